"""The base of everything that is read from a spec: its sections, and the parameters of jobs."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One part of a spec: unknown fields, loose types and non-finite numbers are refused; it never changes."""

    # defaults as well: 1 for a float is 1.0, whether it is said in a spec or not
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)
