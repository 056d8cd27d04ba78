"""Ports of this machine for servers that tests start."""

import atexit
import secrets
import socket
from contextlib import ExitStack, suppress

_marks = ExitStack()
atexit.register(_marks.close)


def free_port() -> int:
    """Another each time, and below those of the kernel: of these Ray takes some for itself, and shares none.

    A port stays this process's until it ends, whether something listens there or not: no other test process gets it.
    The mark is the UDP port of the same number, which servers leave alone.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            mark = socket.socket(type=socket.SOCK_DGRAM)
            try:
                mark.bind(("127.0.0.1", port))
            except OSError:
                mark.close()
            else:
                _marks.enter_context(mark)
                return port


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody takes connections at a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0
