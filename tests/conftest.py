"""What all tests share: one small local Ray for the session, stores of their own, local and on S3, and seeds."""

import gc
import os
import random
import uuid
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# before torch is loaded, also by processes that tests start: two test processes of two threads each on two cores would
# spend their time waiting for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")
# every five seconds Ray would look at all processes of the machine, for a dashboard that nobody sees
os.environ.setdefault("REPORTER_UPDATE_INTERVAL_MS", "60000")


SCIENCE = "tests/jobs"  # tests that compute; most of the others wait, for Ray, for servers and for processes
RAY = ExitStack()  # ends the Ray of the tests, if it runs


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected stays: looking for garbage in it, now and between tests, would take seconds."""
    gc.disable()
    collected = yield
    gc.freeze()
    gc.enable()
    return collected


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """The first process takes groups from the front, which wait, the others from the end, which compute. So there is
    one Ray and one server at a time, and a core has work while they are waited for.
    """
    from xdist.scheduler import LoadGroupScheduling

    class FromBothEnds(LoadGroupScheduling):
        def _assign_work_unit(self, node: Any) -> None:
            if node.gateway.id != "gw0":
                self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
            super()._assign_work_unit(node)

    return FromBothEnds(config, log)


def pytest_make_parametrize_id(val: object) -> str | None:
    """A file that is a parameter is named by its size: all processes need one name, and some files say their time."""
    return f"{len(val)} bytes" if isinstance(val, bytes) and len(val) > 32 else None


def pytest_itemcollected(item: pytest.Item) -> None:
    """One process runs a file, all tests that need Ray, and all that ask the same application of Serve: both take long
    to start.
    """
    item.add_marker(pytest.mark.xdist_group(group_of(item)))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What asks Serve comes first, then what needs Ray, then what waits, and the tests of a group together, also in one
    process.
    """
    places: dict[str, tuple[bool, bool, bool, int]] = {}
    for item in items:
        computes = item.nodeid.startswith(SCIENCE)
        places.setdefault(group_of(item), (not is_served(item), not needs_ray(item), computes, len(places)))
    items.sort(key=lambda item: places[group_of(item)])


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """Ray ends with the last test that needs it: its processes take a tenth of a core also when nothing is asked."""
    if nextitem is None or not needs_ray(nextitem):
        RAY.close()


def needs_ray(item: pytest.Item) -> bool:
    """By its fixture, or by the parameter `how` of a test that is run with and without Ray."""
    if "ray_session" in getattr(item, "fixturenames", ()):
        return True
    return hasattr(item, "callspec") and item.callspec.params.get("how") == "ray"


def is_served(item: pytest.Item) -> bool:
    return not {"served", "guarded"}.isdisjoint(getattr(item, "fixturenames", ()))


def group_of(item: pytest.Item) -> str:
    """The tests that one process runs: a group of its own that a module names, or its file."""
    marker = item.get_closest_marker("xdist_group")
    if marker is not None:
        return str(marker.args[0])
    if is_served(item):
        return "served"
    return "ray" if needs_ray(item) else item.nodeid.partition("::")[0]


def pytest_runtest_setup() -> None:
    """What a test draws hangs neither on the tests before it nor on the time."""
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def ray_session() -> None:
    """An embedded Ray with 4 logical cores, the same for all tests. Its processes report their metrics every second."""
    import ray

    from service.cluster.connection import connect

    if ray.is_initialized():
        return
    with pytest.MonkeyPatch.context() as patch:  # undone when its processes have them
        patch.setenv("RAY_metrics_report_interval_ms", "1000")  # of Ray's ten seconds a test would wait for most
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # of two seconds, in which a small training has ended
        RAY.enter_context(connect(address="local", cpus=4))


@pytest.fixture
def store_uri(tmp_path: Path) -> str:
    """A fresh local store."""
    return str(tmp_path / "store")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """An object store that speaks S3, on a port of this machine. Its address."""
    from moto.server import ThreadedMotoServer

    before = dict(os.environ)
    os.environ.update(AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing", AWS_DEFAULT_REGION="us-east-1")
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def s3_uri(s3_server: str) -> str:
    """A fresh store on S3."""
    from pyarrow import fs

    bucket = f"assay-{uuid.uuid4().hex[:8]}"
    query = f"endpoint_override={s3_server}&scheme=http&allow_bucket_creation=true"
    fs.FileSystem.from_uri(f"s3://{bucket}?{query}")[0].create_dir(bucket)
    return f"s3://{bucket}/store?{query}"


@pytest.fixture(params=["local", "s3"])
def any_store_uri(request: pytest.FixtureRequest) -> str:
    """A fresh store on each of the two file systems."""
    uri: str = request.getfixturevalue("store_uri" if request.param == "local" else "s3_uri")
    return uri
