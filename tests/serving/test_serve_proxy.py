"""Serve's own proxy, which is in front where TLS or gRPC is asked for: what a process of its own has to see to."""

import pytest

from tests.serving import test_hostile as hostile
from tests.serving.conftest import Guarded

pytestmark = pytest.mark.xdist_group("guarded")


@pytest.fixture(scope="module")
def served(guarded: Guarded) -> Guarded:
    return guarded


test_bodies_that_never_end_take_no_place = hostile.test_bodies_that_never_end_take_no_place
test_half_a_head_and_nothing_are_closed = hostile.test_half_a_head_and_nothing_are_closed
test_a_stream_that_nobody_reads_is_not_computed = hostile.test_a_stream_that_nobody_reads_is_not_computed
