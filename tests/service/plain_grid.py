"""The grid as a job that does not say that it fans out."""

from tests.service.grid import Params, run

__all__ = ["Params", "run"]
