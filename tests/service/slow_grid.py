"""The grid as a job without the mark FAN_OUT: its cells are computed inside the trial."""

from tests.service.grid import Params, run

__all__ = ["Params", "run"]
