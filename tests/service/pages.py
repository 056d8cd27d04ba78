"""A small job for the tests of the report: it makes a page of its own and files in formats of other programs."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from service.run import Run, Trial


class Params(BaseModel):
    """Nothing to choose."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def run(params: Params, run: Run) -> None:
    """One of each."""
    run.log(step=0, height=1.0)
    run.html("turn it", "<!doctype html><title>ä</title>", title="A surface <to turn>")
    run.file("surface.vtp", b"<VTKFile/>")


def summarize(trials: Sequence[Trial], run: Run) -> None:
    """One of the whole run."""
    run.file("all.h5", bytes(2_000_000), title="Everything")
