"""Cells that keep a core busy, as a job."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from service.run import Run
from tests.benchmarks._cells import busy

PLACEMENT = "fan_out"


class Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    cells: int = Field(100, gt=0, description="how many")
    seconds: float = Field(0.1, ge=0, description="of one core, each")
    mark: str = Field("", description="a file that is made when the first cell begins")


def marked(cell: list[float], mark: str) -> float:
    if mark:
        Path(mark).touch()
    return busy(cell, None)


def run(params: Params, run: Run) -> None:
    run.map(marked, [[float(index), params.seconds] for index in range(params.cells)], params.mark)
    run.log(step=1, cells=params.cells)
