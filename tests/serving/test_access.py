"""`assay serve` with keys and HTTPS, as a user starts it: who comes in, how often, and what it leaves open."""

import json
import re
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import httpx
import psutil
import pytest
import tritonclient.grpc as grpc
import tritonclient.http as triton

from service.cli.commands import main
from service.cluster.connection import _session_folder
from service.errors import InputError
from serving import app
from serving.http.keys import new_key
from serving.http.operations import OPERATIONS
from tests.processes import PATIENCE_SECONDS, titles
from tests.serving.conftest import Guarded
from tests.serving.deployments.test_attack_server import message as attack_message
from tests.serving.models import bits, pixels
from tests.serving.unanswered import connections

pytestmark = pytest.mark.xdist_group("guarded")

OPEN = {"/", "/v2/health/live", "/v2/health/ready"}


def routes() -> list[tuple[str, str]]:
    """Every method and path that the server answers, and some that it does not."""
    paths = [("GET", f"/{path}") for path in ("", "-/routes", "v1/models", "v2/models/../../etc/passwd")]
    for operation in OPERATIONS:
        paths += [(operation.method, path.format(name="sums", version="1")) for path in operation.paths]
    return paths


@pytest.mark.parametrize("route", routes(), ids=lambda route: f"{route[0]}-{route[1]}")
def test_without_a_key_all_but_health_and_the_page_answers_401(guarded: Guarded, route: tuple[str, str]) -> None:
    with guarded.http_of(None) as client:
        answer = client.request(*route, content=b"{}" if route[0] == "POST" else None)
    if route[1] in OPEN:
        assert answer.status_code == 200
    else:
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert "a key is required" in answer.json()["error"]


def test_without_a_key_a_large_body_is_refused_before_it_is_sent(guarded: Guarded) -> None:
    """The answer comes though the client never sends what it announced."""
    head = b"POST /v2/models/sums/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n"
    with connections(guarded.address, 1, head, guarded.trusting) as (connection,):
        assert connection.recv(4096).startswith(b"HTTP/1.1 401")


def test_triton_clients_send_their_key_as_a_header(guarded: Guarded) -> None:
    client = guarded.client_without_key()
    inputs = triton.InferInput("input", [2, 1, 8], "FP32").set_data_from_numpy(bits(2, 8).numpy())
    assert client.infer("sums", [inputs], headers=guarded.headers).as_numpy("prediction").shape == (2, 8)
    assert client.is_server_ready(), "without a key"
    with pytest.raises(triton.InferenceServerException, match="a key is required"):
        client.infer("sums", [inputs])


def test_over_grpc_the_same_keys_are_asked_for_and_the_same_certificate_is_shown(guarded: Guarded) -> None:
    client = grpc.InferenceServerClient(guarded.grpc_address, ssl=True, root_certificates=guarded.certificate)
    assert client.is_server_live() and client.is_server_ready(), "without a key"
    inputs = [grpc.InferInput("input", [2, 1, 8], "FP32").set_data_from_numpy(bits(2, 8).numpy())]
    for headers, sentence in (
        (None, "a key is required"),
        ({"authorization": "Bearer x"}, "the key is not known"),
        ({"authorization": f"Bearer {new_key('alice')[0]}"}, "the key is not known"),
    ):
        with pytest.raises(grpc.InferenceServerException, match=sentence) as refusal:
            client.infer("sums", inputs, headers=headers)
        assert refusal.value.status() == "StatusCode.UNAUTHENTICATED"
    assert client.infer("sums", inputs, headers=guarded.headers).as_numpy("prediction").shape == (2, 8)
    plain = grpc.InferenceServerClient(guarded.grpc_address)
    with pytest.raises(grpc.InferenceServerException):
        plain.is_server_live(client_timeout=5)


def test_a_key_over_its_rate_gets_429_and_is_admitted_after_the_wait(guarded: Guarded) -> None:
    """Many at once: no more than three come in, whatever processes they come to."""
    with guarded.http_of("bob") as bob, ThreadPoolExecutor(8) as pool:
        began = time.monotonic()
        answers = list(pool.map(lambda _: bob.get("/v2"), range(12)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(answers) - len(refused) <= 3 + 0.5 * (time.monotonic() - began)
        assert len(refused) >= 9 - 0.5 * (time.monotonic() - began)
        assert all(answer.status_code in (200, 429) for answer in answers)
        assert all(1 <= int(answer.headers["retry-after"]) <= 2 for answer in refused)
        assert "3 requests at once and 0.5 a second" in refused[0].json()["error"]
        last = bob.get("/v2")
        time.sleep(int(last.headers.get("retry-after", "0")))
        assert bob.get("/v2").status_code == 200
    with guarded.http_of("alice") as alice:
        assert alice.get("/v2").status_code == 200, "the limits of others are not hers"


def test_a_key_over_its_attack_budget_gets_429_and_what_was_not_needed_comes_back(guarded: Guarded) -> None:
    def attack(rows: int, steps: int) -> httpx.Response:
        body = attack_message(pixels(rows).numpy(), epsilon=1e-9, steps=steps)
        return mallory.post("/v2/models/digits/attack", json=body)

    with guarded.http_of("mallory") as mallory:
        assert attack(1, 50).status_code == 200
        for _ in range(8):
            answer = attack(1, 100)
            if answer.status_code != 200:
                break
        assert answer.status_code == 429 and "in an hour" in answer.json()["error"]
        assert 0 < int(answer.headers["retry-after"]) <= 3600
        assert attack(40, 1000).status_code == 400, "never within the budget: no use in coming back"
        assert mallory.get("/v2/models/digits").status_code == 200, "everything else goes on"
    with guarded.http_of("alice") as alice:
        body = attack_message(pixels(1).numpy(), epsilon=1e-9, steps=100)
        assert alice.post("/v2/models/digits/attack", json=body).status_code == 200


def test_metrics_are_scraped_and_neither_they_nor_logs_hold_a_key(guarded: Guarded) -> None:
    address = f"http://127.0.0.1:{guarded.metrics_port}/metrics"
    assert f"metrics for Prometheus at {address}\n" in guarded.output.read_text()

    def lines(complete: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not complete(text := httpx.get(address, timeout=10).text):
            assert time.monotonic() < deadline, [line for line in text.splitlines() if "ray_assay" in line]
            time.sleep(0.3)
        return text

    def has(text: str, name: str, *labels: str) -> bool:
        return any(line.startswith(name) and all(each in line for each in labels) for line in text.splitlines())

    expected = [
        ("ray_assay_requests_total", 'key="alice"', 'model="sums"', 'status="200"'),
        ("ray_assay_attacks_total", 'key="mallory"', 'status="429"'),
        ("ray_assay_attack_queries_total", 'key="mallory"', 'model="digits"'),
        ("ray_assay_attack_gradients_total", 'key="mallory"'),
        ("ray_assay_attack_gmacs_total", 'key="mallory"'),
        ("ray_assay_refusals_total", 'key="-"', 'status="401"'),
        ("ray_assay_refusals_total", 'key="bob"', 'status="429"'),
        ("ray_assay_latency_ms_bucket", 'model="sums"'),
    ]
    text = lines(lambda text: all(has(text, *each) for each in expected))
    session = re.search(r'SessionName="([^"]+)"', text)
    assert session is not None
    logged = ""
    for path in Path(_session_folder(), session[1], "logs").rglob("*"):
        if path.is_file():
            logged += path.read_text(errors="replace")
    assert "key bob" in logged, "who was refused is logged by name"
    for token in guarded.keys.values():
        assert token not in text + logged + guarded.output.read_text()


def listening(server: "subprocess.Popen[str]") -> set[tuple[str, str, int]]:
    """Process, address and port of all that listens, of a server and of what it has started."""
    listed = set()
    for each in [psutil.Process(server.pid), *titles(server.pid)]:
        with suppress(psutil.Error):
            command = each.cmdline()[0].split()[0]
            for connection in each.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    listed.add((command, connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port))
    return listed


def listed() -> dict[str, set[str]]:
    """Process -> addresses, as in SECURITY.md: where its name begins so."""
    text = (Path(__file__).parents[2] / "SECURITY.md").read_text().partition("## The ports of")[2]
    rows = [row.split("|")[1:4] for row in text.partition("\n## ")[0].splitlines() if row.startswith("|")]
    return {process.split()[0]: set(addresses.strip().split(", ")) for process, _, addresses in rows[2:]}


def kind_of(ip: str) -> str:
    """An address in the words of SECURITY.md."""
    if ip in ("::", "0.0.0.0"):
        return "all"
    return "loopback" if ip_address(ip).is_loopback else "node"


def check_ports(open_ports: set[tuple[str, str, int]]) -> None:
    """All that listens is listed in SECURITY.md."""
    expected = listed()
    assert len(open_ports) > 3
    for command, ip, port in open_ports:
        name = max((known for known in expected if Path(command).name.startswith(known)), key=len, default=None)
        assert name is not None, f"{command} listens at {ip}:{port}"
        assert kind_of(ip) in expected[name], f"{command} listens at {ip}:{port}"
    assert {address for addresses in expected.values() for address in addresses} == {"loopback"}


def test_what_listens_is_what_the_documentation_lists(guarded: Guarded) -> None:
    assert "Serve's own proxy is in front" in guarded.output.read_text(), "HAProxy would speak no TLS"
    open_ports = listening(guarded.process)
    check_ports(open_ports)
    for at in (guarded.address, guarded.grpc_address, f"127.0.0.1:{guarded.metrics_port}"):
        assert {ip for _, ip, port in open_ports if str(port) == at.rpartition(":")[2]} == {"127.0.0.1"}


def test_neither_dashboard_nor_job_api_is_started(guarded: Guarded) -> None:
    """No port of its processes answers as they do."""
    with httpx.Client(timeout=5) as client:
        for _, _, port in listening(guarded.process):
            for path in ("/api/version", "/api/jobs/", "/api/job_agent/jobs/"):
                try:
                    answer = client.get(f"http://127.0.0.1:{port}{path}")
                except httpx.HTTPError:
                    continue  # it does not speak HTTP, or not on this address
                assert answer.status_code != 200 or "# HELP" in answer.text, f"{port}{path}: {answer.text[:80]}"


# ---- what is refused before anything starts --------------------------------------------------------------------------


def test_a_public_address_needs_keys_or_a_plain_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reached: list[str] = []

    def stop(host: str, port: int, hint: str) -> None:
        reached.append(host)
        raise InputError("as far as this test goes")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(app, "check_free", stop)
    at = ["serve", "--store", str(tmp_path), "--host"]
    for host in ("0.0.0.0", "::", "192.0.2.7", "example.org"):
        assert main([*at, host]) == 2
        error = capsys.readouterr().err
        assert f"http.host: {host} is public, and there are no keys" in error and "--new-key" in error
    assert not reached
    key = new_key("alice")[1]
    (tmp_path / "serve.yaml").write_text(json.dumps({"keys": [key.model_dump()]}))
    for words in ([*at, "127.0.0.2"], [*at, "0.0.0.0", "--without-keys"]):
        assert main(words) == 2
    assert main([*at, "0.0.0.0", "--config", str(tmp_path / "serve.yaml")]) == 2
    assert reached == ["127.0.0.2", "0.0.0.0", "0.0.0.0"]
