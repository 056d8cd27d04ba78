"""A small job for the tests of the service: a random walk that trains nothing and shows everything.

Each step adds a draw from the stream of (seed, step) to a tensor, so an interrupted walk ends where an undisturbed one
does only if its checkpoint, its seeds and its rows are right.
"""

import os
import signal
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field

from service.errors import InputError
from service.models import CardDraft, TensorSpec
from service.run import Estimate, Run, Trial
from tests.service.pace import pause


class Pace(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    steps: int = Field(10, gt=0, le=100_000, description="steps of the walk")
    seconds_per_step: float = Field(0.0, ge=0, description="seconds to sleep at each step")


class Params(BaseModel):
    """A random walk."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    pace: Pace = Field(Pace(), description="how long")
    drift: float = Field(0.0, description="added at every step")
    careful: bool = Field(True, description="whether the walk is saved")
    fail_at: int | None = Field(None, description="step at which the walk raises an error")
    die_once_at: int | None = Field(None, description="step at which the process kills itself, the first time")
    warn_at: int | None = Field(None, description="step before which the walk warns and notes something")
    witness: str = Field("", description="file that gets a line at each start of a trial")
    sizes: tuple[int, ...] = Field((3,), min_length=1, description="shape of the tensor")


def run(params: Params, run: Run) -> None:
    if params.witness:
        with open(params.witness, "a") as witness:
            witness.write(f"{run.folder.uri}\n")
    position, first = torch.zeros(params.sizes), 0
    if (saved := run.restore()) is not None:
        position, first = saved["position"], saved["step"]
    run.expect(params.pace.steps)
    for step in range(first, params.pace.steps):
        if step == params.fail_at:
            raise InputError(f"the walk fails at step {step}")
        if step == params.warn_at:
            run.warn(f"the walk warns at step {step}")
            run.note(f"the walk notes step {step}")
        if step == params.die_once_at and not (mark := Path(params.witness + f".{run.seed}.died")).exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        stream = torch.Generator().manual_seed(run.seed_for("step", step))
        position = position + torch.randn(params.sizes, generator=stream) + params.drift
        pause(params.pace.seconds_per_step)
        run.log(step=step + 1, height=position.mean().item())
        if params.careful:
            run.checkpoint({"position": position, "step": step + 1})
    model = torch.nn.Linear(params.sizes[0], 1, bias=False)
    model.weight.data = position.reshape(1, -1)[:, : params.sizes[0]].clone()
    draft = CardDraft(
        architecture="tests.service.walk:linear",
        arguments={"size": params.sizes[0]},
        study="walk",
        task="walking",
        inputs=(TensorSpec(name="input", datatype="FP32", shape=(-1, params.sizes[0])),),
        outputs=(TensorSpec(name="output", datatype="FP32", shape=(-1, 1)),),
        settings={},
        metrics={"height": position.mean().item()},
        description="where the walk ended",
    )
    run.save_model("walk", model, draft)
    run.table("end", [{"axis": axis, "position": value} for axis, value in enumerate(position.flatten().tolist())])


def estimate(params: Params) -> Estimate:
    return Estimate(core_seconds=float(params.pace.steps), details={"steps": params.pace.steps})


def summarize(trials: list[Trial], run: Run) -> None:
    from matplotlib.figure import Figure  # a worker does without

    figure = Figure()
    axes = figure.subplots()
    for trial in trials:
        axes.plot([row["step"] for row in trial.history], [row["height"] for row in trial.history], label=trial.label)
    run.figure("walks", figure, title="Height at each step")
    run.table("ends", [{"trial": trial.label, **trial.metrics, "best": trial.best} for trial in trials], title="Ends")


def linear(size: int) -> torch.nn.Module:
    return torch.nn.Linear(size, 1, bias=False)
