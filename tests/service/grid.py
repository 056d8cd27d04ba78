"""A small job for the tests of the fan-out: cells that leave a line each time they are computed, and can misbehave."""

import os
import signal
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from service.errors import InputError
from service.run import Run
from tests.service.pace import pause

PLACEMENT = "fan_out"


class Params(BaseModel):
    """A grid of cells."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    cells: int = Field(40, ge=0, le=100_000, description="how many")
    seconds: float = Field(0.0, ge=0, description="what a cell takes")
    folder: str = Field("", description="where each cell leaves a line when it is computed: its index, and the process")
    fail: tuple[int, ...] = Field((), description="cells that raise as long as the file `mended` is absent")
    refuse: int | None = Field(None, description="cell that finds the input of the map wrong")
    die_once: int | None = Field(None, description="cell that kills its worker the first time")
    die_always: int | None = Field(None, description="cell that kills its worker")
    unserialisable: bool = Field(False, description="whether results are something that cannot be kept")


def value(cell: dict[str, Any], shared: dict[str, Any]) -> Any:
    index = cell["index"]
    if shared["folder"]:
        with open(Path(shared["folder"]) / "computed", "a") as file:
            file.write(f"{index} {os.getpid()}\n")
    pause(shared["seconds"])
    if index in shared["fail"] and not (Path(shared["folder"]) / "mended").exists():
        raise ArithmeticError(f"cell {index} does not converge")
    if index == shared["refuse"]:
        raise InputError("the grid is upside down")
    if index == shared["die_always"]:
        os.kill(os.getpid(), signal.SIGKILL)
    if index == shared["die_once"] and not (mark := Path(shared["folder"]) / "died").exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if shared["unserialisable"]:
        return {"index": index, "stream": torch.Generator()}
    noise = torch.randn(500, generator=torch.Generator().manual_seed(cell["seed"]))
    return {"index": index, "loss": (noise * shared["weights"]).sum().item(), "noise": noise}


def run(params: Params, run: Run) -> None:
    cells = [{"index": index, "seed": run.seed_for("cell", index)} for index in range(params.cells)]
    weights = torch.randn(500, generator=torch.Generator().manual_seed(run.seed_for("weights")))
    results = run.map(value, cells, shared={"weights": weights, **params.model_dump()}, name="grid")
    rows = [{"index": each["index"], "loss": each["loss"]} for each in results if each is not None]
    run.table("losses", rows or [{"index": -1, "loss": 0.0}])
    run.log(step=1, cells=len(rows))
