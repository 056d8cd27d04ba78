"""Clients that ask and do not wait: they leave when the test says so, and not after some time."""

import contextlib
import http.client
import json
import select
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Any


@contextlib.contextmanager
def connections(
    address: str, count: int, first: bytes, trusting: ssl.SSLContext | None = None
) -> Iterator[list[socket.socket]]:
    """So many connections to host:port, each with the beginning of a request, until the end of the block.

    trusting: over TLS.
    """
    host, _, port = address.partition(":")
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            made = stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
            if trusting:
                made = stack.enter_context(trusting.wrap_socket(made, server_hostname=host))
            opened.append(made)
            opened[-1].sendall(first)
        yield opened


def asked(
    address: str, path: str, body: dict[str, Any], count: int = 1
) -> contextlib.AbstractContextManager[list[socket.socket]]:
    """So many clients that have sent the same request. path: below /v2/models/."""
    content = json.dumps(body).encode()
    head = f"POST /v2/models/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return connections(address, count, f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)


def answered(clients: Sequence[socket.socket]) -> list[socket.socket]:
    """Those to whom something has come."""
    return select.select(clients, [], [], 0)[0]


def answer(client: socket.socket) -> tuple[http.client.HTTPResponse, Any]:
    """What has come to a client: status and headers, and the JSON."""
    response = http.client.HTTPResponse(client)
    response.begin()
    return response, json.loads(response.read())
