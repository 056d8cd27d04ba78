"""Whose pages and which names a server answers to."""

import asyncio

import pytest

from serving.http.pipeline import Pipeline
from serving.http.settings import Http, ServeSettings
from tests.serving.http.test_bodies import App, Client

LOOPBACK = Http().names


def ask(http: Http, method: str = "POST", **headers: str) -> Client:
    app, client = App(), Client([b""])
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    client.scope |= {"method": method, "headers": raw}
    asyncio.run(Pipeline(app, ServeSettings(http=http))(client.scope, client.receive, client.send))
    assert app.called == (client.status == 200)
    return client


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:8000"])
def test_a_loopback_server_answers_to_loopback_names(host: str) -> None:
    assert ask(Http(), host=host).status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8000", "evil.example:8000", "[", ""])
def test_a_loopback_server_answers_to_no_other_name(host: str) -> None:
    """A page of evil.example whose name points at 127.0.0.1 is of the same origin for the browser."""
    answer = ask(Http(), host=host)
    assert answer.status == 403
    assert answer.answer["error"].startswith(
        f"the Host header must be one of localhost, 127.0.0.1, ::1; it is {host!r}"
    )


def test_a_public_server_answers_to_any_name_unless_told_which() -> None:
    assert ask(Http(host="0.0.0.0"), host="models.example").status == 200
    named = Http(host="0.0.0.0", hosts=("models.example",))
    assert ask(named, host="models.example:8000").status == 200
    assert ask(named, host="evil.example").status == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:9999", "https://lab.example.evil"])
def test_a_page_of_another_origin_is_refused(origin: str) -> None:
    answer = ask(Http(origins=("https://lab.example",)), host="localhost:8000", origin=origin)
    assert answer.status == 403 and answer.answer["error"].startswith(f"a page of {origin!r} may not use this server")


def test_its_own_page_and_those_that_are_allowed_pass() -> None:
    assert ask(Http(), host="localhost:8000", origin="http://localhost:8000").status == 200
    assert ask(Http(origins=("https://lab.example",)), host="localhost", origin="https://lab.example").status == 200
    assert ask(Http(origins=("*",)), host="localhost", origin="https://any.example").status == 200


@pytest.mark.parametrize(
    ("site", "destination", "status"),
    [
        ("cross-site", "image", 403), ("same-site", "script", 403), ("cross-site", "iframe", 403),
        ("cross-site", "document", 200), ("same-origin", "empty", 200), ("none", "document", 200),
    ],
)  # fmt: skip
def test_what_a_page_of_another_origin_embeds_is_refused(site: str, destination: str, status: int) -> None:
    """As an image the address of a stream would be asked for without an Origin, and computed."""
    asked = {"host": "localhost:8000", "sec_fetch_site": site, "sec_fetch_dest": destination}
    assert ask(Http(), "GET", **asked).status == status
    assert ask(Http(origins=("*",)), "GET", **asked).status == 200
    assert ask(Http(origins=("https://lab.example",)), **asked, origin="https://lab.example").status == 200


@pytest.mark.parametrize("media", ["text/plain", "text/plain;charset=UTF-8", "multipart/form-data; boundary=x",
                                   "application/x-www-form-urlencoded"])  # fmt: skip
def test_a_body_that_a_browser_sends_without_asking_is_refused(media: str) -> None:
    answer = ask(Http(), host="localhost", content_type=media)
    assert answer.status == 415 and "--json" in answer.answer["error"]


@pytest.mark.parametrize("media", ["application/json", "application/octet-stream", "image/png", "Application/JSON"])
def test_other_bodies_pass(media: str) -> None:
    assert ask(Http(), host="localhost", content_type=media).status == 200
    assert ask(Http(), host="localhost").status == 200, "clients of the protocol name no type"


def test_the_browser_is_told_of_pages_that_are_allowed() -> None:
    settings = ServeSettings(http=Http(origins=("https://lab.example",)))
    client = Client([b""])
    preflight = {"origin": "https://lab.example", "access-control-request-method": "POST"}
    client.scope |= {
        "method": "OPTIONS",
        "headers": [(name.encode(), value.encode()) for name, value in preflight.items()],
    }
    app = App()
    asyncio.run(Pipeline(app, settings)(client.scope, client.receive, client.send))
    assert client.status == 200 and client.headers[b"access-control-allow-origin"] == b"https://lab.example"
    assert not app.called
    client = Client([b""])
    client.scope["headers"] = [(b"host", b"localhost"), (b"origin", b"https://lab.example")]
    asyncio.run(Pipeline(app, settings)(client.scope, client.receive, client.send))
    assert client.status == 200 and client.headers[b"access-control-expose-headers"] == b"*", "as Assay-Successful"
