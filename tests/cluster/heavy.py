"""Cells that share, and give back, more than an object store of the tests holds."""

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from service.run import Run

PLACEMENT = "fan_out"


class Params(BaseModel):
    """Parts of a large array."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    mb: int = Field(60, gt=0, le=1000, description="size of the array")
    cells: int = Field(8, gt=0, description="parts of it that are asked for")
    part_mb: int = Field(24, gt=0, le=1000, description="size of a part")


def part(cell: int, shared: dict[str, Any]) -> dict[str, Any]:
    values: np.ndarray = shared["values"]
    return {"sum": float(values[cell :: shared["cells"]].sum()), "part": values[cell : cell + shared["length"]].copy()}


def run(params: Params, run: Run) -> None:
    values = np.random.default_rng(run.seed_for("values")).standard_normal(params.mb << 17)  # 8 bytes each
    shared = {"values": values, "cells": params.cells, "length": params.part_mb << 17}
    results = run.map(part, list(range(params.cells)), shared)
    run.table("sums", [{"sum": each["sum"], "last": float(each["part"][-1])} for each in results])
    run.log(step=1, total=sum(each["sum"] for each in results))
