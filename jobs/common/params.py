"""The base of every study's parameters."""

from pydantic import BaseModel, ConfigDict


class StudyParams(BaseModel):
    """Strict and frozen: unknown fields, loose types and non-finite numbers are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
