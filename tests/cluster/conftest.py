"""One cluster of several nodes for all tests of this folder that a process runs."""

from collections.abc import Iterator

import pytest

from tests.cluster.nodes import LocalCluster


@pytest.fixture(scope="session")
def _cluster() -> Iterator[LocalCluster]:
    cluster = LocalCluster()
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(_cluster: LocalCluster) -> LocalCluster:
    """A head without cores and two nodes of one core each."""
    _cluster.ensure(2)
    _cluster.take_time()
    return _cluster
