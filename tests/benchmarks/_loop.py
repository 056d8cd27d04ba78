"""A training loop that can run bare or as a job of the service: a recurrent network on prefix sums."""

import time
from collections.abc import Callable
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from jobs.deep_thinking.networks import network
from jobs.deep_thinking.problems import problem
from service.run import Run

REPORT_EVERY = 50


class Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    updates: int = Field(400, gt=0, description="weight updates")


def train(updates: int, report: Callable[[int, float, dict[str, Any]], None]) -> float:
    """Train and report every 50 weight updates. Returns the seconds it took."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    prefix = problem("prefix_sums")
    net = network("dt_net_1d", channels=1, width=48)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    began = time.perf_counter()
    for step in range(1, updates + 1):
        inputs, targets = prefix.sample(16, 100, step)
        loss = torch.nn.functional.cross_entropy(net(inputs, 10)[0], targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % REPORT_EVERY == 0:
            report(step, loss.item(), {"network": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step})
    return time.perf_counter() - began


def run(params: Params, run: Run) -> None:
    def report(step: int, loss: float, state: dict[str, Any]) -> None:
        run.log(step=step, loss=loss)
        run.checkpoint(state)

    seconds = train(params.updates, report)
    run.log(step=params.updates, loop_seconds=seconds)
