"""A job that trains and computes cells on a GPU that is pretended, and remembers when and on what it did either."""

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

import ray
import torch
from pydantic import BaseModel, ConfigDict, Field

from service.run import Run, reserved_device

PLACEMENT = "fan_out"

if "PRETENDED_GPU" in os.environ:  # no tensor is put there
    torch.cuda.is_available = lambda: True
    torch.cuda.current_device = lambda: 0


class Params(BaseModel):
    """Training and cells."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    folder: str = Field(description="where each computation leaves a file")
    seconds: float = Field(0.3, gt=0, description="what each takes")
    cells: int = Field(8, gt=0, description="how many")


def compute(what: str, params: dict[str, Any]) -> str:
    """Wait, and write down when and where."""
    began = time.time()
    time.sleep(params["seconds"])
    entry = {
        "what": what,
        "began": began,
        "ended": time.time(),
        "device": str(reserved_device()),
        "gpus": ray.get_gpu_ids() if ray.is_initialized() else [],
    }
    (Path(params["folder"]) / f"{uuid.uuid4().hex}.json").write_text(json.dumps(entry))
    return str(entry["device"])


def train(run: Run, params: dict[str, Any]) -> str:
    assert run.device == reserved_device()
    run.log(step=1, trained=1.0)
    return compute("training", params)


def cell(index: int, params: dict[str, Any]) -> str:
    return compute("cell", params)


def run(params: Params, run: Run) -> None:
    given = params.model_dump()
    devices = [run.reserved(train, given), *run.map(cell, list(range(params.cells)), given)]
    run.table("devices", [{"device": each} for each in devices])
