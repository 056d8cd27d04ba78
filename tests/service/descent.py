"""A small job that trains on batches shared by several processes, for the tests of data parallelism.

Least squares by gradient descent with momentum: the weights of one process are those of many, up to rounding, only if
batches, gradients, checkpoints and seeds are right. Rank 1 can fail or die, so that rank 0 is left waiting.
"""

import os
import signal
import time
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field

from jobs.common.training import parallel
from service.errors import InputError
from service.run import Run

PLACEMENT = "shared_batches"


class Params(BaseModel):
    """Least squares."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    steps: int = Field(6, gt=0, description="steps of gradient descent")
    batch: int = Field(7, gt=0, description="rows in the global batch")
    rate: float = Field(0.1, gt=0, description="learning rate")
    seconds_per_step: float = Field(0.0, ge=0, description="seconds to sleep at each step")
    fail_at: int | None = Field(None, description="step at which rank 1 raises an error")
    die_once_at: int | None = Field(None, description="step at which rank 1 kills itself, the first time")
    witness: str = Field("", description="file that gets a line at each start of a rank")


def run(params: Params, run: Run) -> None:
    weights = torch.zeros(5, requires_grad=True)
    optimizer = torch.optim.SGD([weights], lr=params.rate, momentum=0.9)
    first = 0
    if (saved := run.restore()) is not None:
        weights.data, first = saved["weights"], saved["step"]
        optimizer.load_state_dict(saved["optimizer"])
    if params.witness:
        with open(params.witness, "a") as witness:
            witness.write(f"{parallel.rank()} of {parallel.world()} from step {first}\n")
    truth = torch.arange(5.0)
    for step in range(first, params.steps):
        if parallel.rank() == parallel.world() - 1:
            misbehave(params, step)
        stream = torch.Generator().manual_seed(run.seed_for("batch", step))
        inputs = parallel.share(torch.randn(params.batch, 5, generator=stream))
        loss = parallel.part_of_mean((inputs @ (weights - truth)).square().mean(), len(inputs), params.batch)
        optimizer.zero_grad()
        loss.backward()
        parallel.sum_gradients([weights])
        optimizer.step()
        time.sleep(params.seconds_per_step)
        run.log(step=step + 1, loss=parallel.total(loss.detach()).item())
        run.checkpoint({"weights": weights.detach(), "optimizer": optimizer.state_dict(), "step": step + 1})
    run.array("weights", weights.detach().numpy())


def misbehave(params: Params, step: int) -> None:
    if step == params.fail_at:
        raise InputError(f"the last rank fails at step {step}")
    if step == params.die_once_at and not (mark := Path(params.witness + ".died")).exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
