"""The same on a GPU that is pretended, as a job that has its resources for itself."""

from service.run import Run
from tests.service.gpus import Params, compute

__all__ = ["Params"]


def run(params: Params, run: Run) -> None:
    run.table("devices", [{"device": compute("training", params.model_dump())}])
