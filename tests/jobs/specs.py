"""Shipped specs as a test runs them."""

from pathlib import Path
from typing import Any

from service import spec
from service.execution import runner
from service.execution.runner import Execution
from service.store import Folder, open_store


def finish(path: Path, overrides: list[str], store_uri: str, serial: bool = True) -> Folder:
    """Run a spec to its end. Returns the run's folder."""
    state = runner.start(spec.load(str(path), [*overrides, f"store={store_uri}"]), Execution(serial=serial))
    assert state.status == "finished", state.failure
    return open_store(store_uri) / "runs" / state.id


def results(folder: Folder) -> dict[str, dict[str, Any]]:
    """The rows of the table of results, by trial."""
    return {row["trial"]: row for row in folder.read_table("tables/results.parquet").to_pylist()}
