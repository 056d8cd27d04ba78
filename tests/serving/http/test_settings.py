"""configs/serve.yaml: what is written is what is meant, or one sentence says what is wrong."""

from pathlib import Path

import pytest

from service.errors import SpecError
from serving.http.settings import Http, Key, ServeSettings, load_settings, parse_settings

ENTRY = f"{{name: alice, hash: 'sha256:{32 * '0'}:{64 * '0'}'}}"
CONFIGS = Path(__file__).parents[3] / "configs"


def test_the_shipped_settings_spell_out_every_default() -> None:
    assert load_settings(str(CONFIGS / "serve.yaml")) == ServeSettings()
    text = (CONFIGS / "serve.yaml").read_text()
    for name, field in ServeSettings.model_fields.items():
        if name == "keys":
            assert all(f" {inner}:" in text for inner in Key.model_fields)
        elif name == "proxy":
            assert "proxy: auto" in text
        elif name != "grpc":
            for inner in type(field.get_default()).model_fields:
                assert f"  {inner}:" in text, f"{name}.{inner} is not in configs/serve.yaml"


def test_without_a_file_the_defaults_bind_to_loopback() -> None:
    assert load_settings(None).http.host == "127.0.0.1"
    assert parse_settings("") == ServeSettings()


def test_the_command_line_wins() -> None:
    settings = ServeSettings().listening("0.0.0.0", 9001, None)
    assert (settings.http.host, settings.http.port) == ("0.0.0.0", 9001)
    assert ServeSettings().listening(None, None, None) == ServeSettings()
    assert ServeSettings().listening(None, None, 9002).metrics.port == 9002
    with pytest.raises(SpecError, match="http.port must be at most 65,535; it is 70,000"):
        ServeSettings().listening(None, 70000, None)
    with pytest.raises(SpecError, match="metrics.port must be another than http.port and grpc.port; it is 8002"):
        ServeSettings().listening(None, 8002, None)


@pytest.mark.parametrize(
    ("host", "public"),
    [("127.0.0.1", False), ("127.0.0.2", False), ("::1", False), ("localhost", False), ("0.0.0.0", True)]
    + [("::", True), ("192.168.1.4", True), ("head.example.org", True)],
)
def test_which_addresses_are_public(host: str, public: bool) -> None:
    assert Http(host=host).public == public


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("htp: {}", "htp: unknown field (did you mean 'http'?)"),
        ("batching: {max_row: 3}", "batching.max_row: unknown field (did you mean 'max_rows'?)"),
        ("queue: {ongoing: lots}", "queue.ongoing must be a whole number; it is 'lots'"),
        ("limits: {body_mb: '3'}", "limits.body_mb must be a number; it is '3'"),
        ("limits: {gmacs: 1e400}", "limits.gmacs"),
        ("logging: {access: no}", "logging.access must be true or false; it is 'no'"),
        ("replicas: {min: 3, max: 2}", "max must be at least 3, which is min; it is 2"),
        ("queue: {ongoing: 4}", "queue.ongoing must be above 4, which is limits.streams; it is 4"),
        ("http: {port: 1, port: 2}", "'port' is given twice"),
        ("keys: [{name: alice}]", "keys.0.hash: missing"),
        ("keys: [{name: Alice, hash: x}]", "keys.0.name must "),
        ("keys: [{name: alice, hash: secret}]", "keys.0.hash must "),
        (f"keys: [{ENTRY}, {ENTRY}]", "keys: 'alice' is given twice"),
        (f"keys: [{ENTRY[:-1]}, burst: 0}}]", "keys.0.burst must be at least 1; it is 0"),
        ("http: {tls: {certificate: c.pem}}", "http.tls.private_key: missing"),
        ("{proxy: haproxy, http: {tls: {certificate: c.pem, private_key: k.pem}}}", "http.tls is for proxy: serve"),
        ("{proxy: haproxy, grpc: {}}", "grpc is for proxy: serve"),
        ("proxy: nginx", "proxy must be 'auto', 'haproxy' or 'serve'; it is 'nginx'"),
        ("[1]", "a mapping of fields"),
        ("http: 3", "http"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(SpecError) as raised:
        parse_settings(text)
    assert sentence in str(raised.value)


def test_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot read the settings"):
        load_settings(str(tmp_path / "absent.yaml"))
    (tmp_path / "serve.yaml").write_text("htp: {}")
    with pytest.raises(SpecError, match="serve.yaml: htp: unknown field"):
        load_settings(str(tmp_path / "serve.yaml"))
