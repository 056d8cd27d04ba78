"""A Redis server out of Debian's packages, unpacked into a folder without being installed and without root."""

import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.ports import free_port, listens
from tests.processes import started, wait_for

PACKAGES = ("redis-server", "redis-tools", "liblzf1", "libjemalloc2")


def find(folder: Path) -> tuple[str, dict[str, str]]:
    """The program and the environment that it needs. Skips the test, with the reason, if it cannot be had."""
    if found := shutil.which("redis-server"):
        return found, dict(os.environ)
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip("no redis-server here, and no apt to get it with")
    folder.chmod(0o755)
    done = subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, capture_output=True, text=True, timeout=120)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["nothing came"])[-1]
        pytest.skip(f"no redis-server here, and apt-get download failed: {reason}")
    for archive in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", archive, folder / "root"], check=True)
    libraries = os.pathsep.join({str(path.parent) for path in (folder / "root").rglob("*.so.*")})
    return str(folder / "root/usr/bin/redis-server"), {**os.environ, "LD_LIBRARY_PATH": libraries}


class Redis:
    """A server on this machine that keeps nothing on disk. address: host:port."""

    def __init__(self, folder: Path) -> None:
        program, environment = find(folder)
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        words = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = ExitStack()
        server = self._process.enter_context(started(words, env=environment, stdout=subprocess.DEVNULL, cwd=folder))
        wait_for(lambda: listens(port), server)

    def close(self) -> None:
        self._process.close()
