"""One cluster for all tests of this folder that a process runs. It goes when they are done."""

from collections.abc import Iterator

import pytest

from tests.cluster.nodes import LocalCluster


@pytest.fixture(scope="package")
def head() -> Iterator[LocalCluster]:
    """A head without cores, and whatever nodes earlier tests have left."""
    cluster = LocalCluster()
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def cluster(head: LocalCluster) -> Iterator[LocalCluster]:
    """A head without cores and two nodes of one core each. Drivers end with the test."""
    head.ensure(2)
    head.take_time()
    yield head
    head.end_drivers()
