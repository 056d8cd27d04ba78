"""A small job for the tests of the report: it makes a page of its own and files in formats of other programs."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from service.run import Run, Trial, remarks

GREY = np.full((2, 2, 3), 128, dtype=np.uint8)


class Params(BaseModel):
    """Nothing to choose."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def run(params: Params, run: Run) -> None:
    """One of each."""
    run.log(step=0, height=1.0)
    run.html("turn it", "<!doctype html><title>ä</title>", title="A surface <to turn>")
    run.file("surface.vtp", b"<VTKFile/>")
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 16000)
    run.audio("tone", np.stack([tone, tone], axis=1), 16000, title="A tone <of 440 Hz>")
    run.image("grey", GREY, title="All grey")
    run.warn("the tone is not music <yet>")
    remarks.note("in batches of <8>")


def summarize(trials: Sequence[Trial], run: Run) -> None:
    """One of the whole run."""
    run.file("all.h5", bytes(2_000_000), title="Everything")
    run.image("grey", GREY, title="The grey of all trials")
