"""Small parameters: a linear model on digits, attacked in no time; networks that are trained for a few updates."""

from typing import Any

from jobs.inevitability.params import Params
from service.planning.validation import validate
from tests.jobs.shared import changed

HERE = "tests.jobs.inevitability.subjects"
LINEAR = {"kind": "model", "name": f"{HERE}:linear"}
TRAINED = {
    "kind": "train",
    "classifier": {"name": "mlp", "options": {"side": 8, "width": 8}},
    "scaled": ["side"],
    "method": {"kind": "pgd", "steps": 1, "step": 1.0},
    "training": {"updates": 6, "batch": 16, "report_every": 3, "held_out": 10},
}


def tree(**changes: Any) -> dict[str, Any]:
    """Parameters as a spec has them: the curve of the linear model by PGD without a random start."""
    return changed(
        {
            "data": {"name": f"{HERE}:digits"},
            "networks": {"linear": LINEAR},
            "epsilons": {"Linf": [0.05, 0.1], "L2": [0.3, 0.6]},
            "curves": {"attacks": {"pgd": {"kind": "pgd", "steps": 30, "random_start": False}}},
            "slice": 30,
        },
        changes,
    )


def params(**changes: Any) -> Params:
    return validate(Params, tree(**changes), "params")
