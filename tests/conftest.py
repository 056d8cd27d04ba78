"""What all tests share: one small local Ray for the session, and stores of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """An embedded Ray with 4 logical cores, started once."""
    from service.cluster import connect

    with connect(address="local", cpus=4):
        yield


@pytest.fixture
def store_uri(tmp_path: Path) -> str:
    """A fresh local store."""
    return str(tmp_path / "store")
