"""Cells that keep a core busy, as a job."""

from pydantic import BaseModel, ConfigDict, Field

from service.run import Run
from tests.benchmarks._cells import busy

PLACEMENT = "fan_out"


class Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    cells: int = Field(100, gt=0, description="how many")
    seconds: float = Field(0.1, ge=0, description="of one core, each")


def run(params: Params, run: Run) -> None:
    run.map(busy, [[float(index), params.seconds] for index in range(params.cells)])
    run.log(step=1, cells=params.cells)
