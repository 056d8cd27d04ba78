"""The files of the pages, as a browser gets them."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from serving.http.keys import new_key
from serving.http.settings import ServeSettings
from serving.pages.files import files
from tests.serving import in_process

FOLDER = Path(__file__).parents[2] / "serving" / "pages"
WRITTEN = sorted(path for path in FOLDER.rglob("*") if path.suffix in (".html", ".js", ".css", ".svg"))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = ServeSettings(keys=(new_key("alice")[1],))
    app = in_process.application(settings, str(tmp_path_factory.mktemp("pages") / "store"))
    yield TestClient(app, base_url="http://localhost")


def test_the_pages_need_no_key_and_the_requests_do(client: TestClient) -> None:
    for address in files():
        answer = client.get(address)
        assert answer.status_code == 200 and answer.content, address
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'") and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/").text.startswith("<!doctype html>") and client.get("/docs/").status_code == 200
    assert client.get("/v2/models").status_code == 401


@pytest.mark.parametrize(
    "address",
    [
        "/pages/files.py",
        "/pages/",
        "/pages/../settings.py",
        "/pages/%2e%2e/app.py",
        "/pages/panels",
        "/pages//style.css",
    ],
)
def test_nothing_else_is_served(client: TestClient, address: str) -> None:
    assert client.get(address).status_code == 401


def test_a_file_is_sent_again_only_when_it_has_changed(client: TestClient) -> None:
    answer = client.get("/pages/main.js", headers={"Accept-Encoding": "identity"})
    assert answer.text == (FOLDER / "main.js").read_text() and answer.headers["cache-control"] == "no-cache"
    again = client.get("/pages/main.js", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304 and not again.content
    with client.stream("GET", "/pages/main.js", headers={"Accept-Encoding": "gzip"}) as packed:
        assert gzip.decompress(b"".join(packed.iter_raw())) == answer.content
    refused = client.get("/pages/main.js", headers={"Accept-Encoding": "gzip;q=0"})
    assert "content-encoding" not in refused.headers and refused.content == answer.content
    head = client.head("/")
    assert head.status_code == 200 and not head.content and int(head.headers["content-length"]) > 0


def test_the_pages_only_answer_to_reading(client: TestClient) -> None:
    answer = client.post("/", json={})
    assert answer.status_code == 405 and answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_nothing_comes_from_elsewhere_and_no_text_becomes_markup(path: Path) -> None:
    text = path.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|\sstyle=", text)


def test_no_text_of_a_card_becomes_code() -> None:
    """In the snippets, which users copy: what is put between quotes is the page's own, or has a form without them."""
    text = (FOLDER / "snippets.js").read_text()
    assert set(re.findall(r'"\$\{(model\.[^}]*)\}', text)) == {"model.name", "model.version"}
