"""Ports of this machine for servers that tests start."""

import secrets
import socket
from contextlib import suppress

_given: set[int] = set()


def free_port() -> int:
    """Another each time, and below those of the kernel: of these Ray takes some for itself, and shares none."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
