"""A small job of two phases, both inside reservations: a walk, and a second one that begins where the first one ended.

Either can kill its process once, or raise. A resumed trial ends where an undisturbed one does only if each phase has a
checkpoint of its own and the rows of both agree with them.
"""

import os
import signal
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from service.errors import InputError
from service.run import Run

PLACEMENT = "fan_out"


class Params(BaseModel):
    """Two walks."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    steps: int = Field(4, gt=0, description="steps of each walk")
    die_in: str = Field("", description="phase whose process kills itself at its last step, the first time")
    fail_in: str = Field("", description="phase that raises an error")
    folder: str = Field("", description="where it is remembered that a process has killed itself")


def walk(run: Run, phase: str, start: Tensor, params: Params) -> Tensor:
    """Go on from the checkpoint of the phase to its end."""
    saved = run.restore(phase) or {"position": start, "steps": 0}
    position, before = saved["position"], 0 if phase == "first" else params.steps
    if phase == params.fail_in:
        raise InputError(f"the {phase} walk fails")
    for step in range(saved["steps"], params.steps):
        if phase == params.die_in and step == params.steps - 1 and not (mark := Path(params.folder) / "died").exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        position = position + torch.randn(3, generator=torch.Generator().manual_seed(run.seed_for(phase, step)))
        run.log(step=before + step + 1, **{phase: float(position.sum())})
        run.checkpoint({"position": position, "steps": step + 1}, phase)
    if phase == "second":
        run.warn("the second walk has ended")
    return position


def run(params: Params, run: Run) -> None:
    run.expect(2 * params.steps)
    middle = run.reserved(walk, "first", torch.zeros(3), params)
    end = run.reserved(walk, "second", middle, params)
    run.table("ends", [{"middle": float(each), "end": float(other)} for each, other in zip(middle, end, strict=True)])
