"""A trial that waits for other trials, or finds that it is alone: to see what runs at the same time."""

import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from service.run import Run


class Params(BaseModel):
    """A meeting."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    folder: str = Field(description="where those who are here leave a file")
    company: int = Field(1, gt=0, description="how many have to be here at once")
    seconds: float = Field(60, gt=0, description="how long to wait for them")
    stay: float = Field(0.5, ge=0, description="how long to stay once they are here")


def run(params: Params, run: Run) -> None:
    here = Path(params.folder) / f"here-{run.seed}"
    here.touch()
    end = time.monotonic() + params.seconds
    most = 0
    while most < params.company and time.monotonic() < end:
        most = max(most, len(list(Path(params.folder).glob("here-*"))))
        time.sleep(0.05)
    time.sleep(params.stay)
    most = max(most, len(list(Path(params.folder).glob("here-*"))))
    if params.company == 1:
        here.unlink()
    run.log(step=1, most=most)
