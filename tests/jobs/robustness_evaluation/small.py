"""Small parameters: a linear model on digits, attacked in no time."""

from typing import Any

from jobs.robustness_evaluation.params import Params
from service.planning.validation import validate

HERE = "tests.jobs.robustness_evaluation.subjects"


def tree(**changes: Any) -> dict[str, Any]:
    """Parameters as a spec has them: the linear model on its digits, attacked by PGD."""
    return {
        "network": {"name": f"{HERE}:linear"},
        "data": {"name": f"{HERE}:digits"},
        "epsilons": [0.05],
        "attacks": {"pgd": {"kind": "pgd", "steps": 5}},
        "first": 60,
        "slice": 20,
        "show": 0,
        **changes,
    }


def params(**changes: Any) -> Params:
    return validate(Params, tree(**changes), "params")


def odd(kind: str) -> dict[str, Any]:
    return {"name": f"{HERE}:odd", "options": {"kind": kind}}
