"""The base of every study's parameters."""

from pydantic import BaseModel, ConfigDict


class StudyParams(BaseModel):
    """Strict and frozen: unknown fields, loose types and non-finite numbers are refused."""

    # defaults as well: 1 for a float is 1.0, whether it is said in a spec or not
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)
