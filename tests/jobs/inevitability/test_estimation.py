"""What a trial is said to cost, against the cells that a run computes."""

import pytest

from jobs.inevitability.estimation import estimate
from jobs.inevitability.job import run
from service.run import Run
from tests.jobs.inevitability.small import TRAINED, params


class Counting(Run):
    """Counts the cells of each map."""

    cells: dict[str, int]

    def map(self, fn, cells, shared=None, name=None):
        vars(self).setdefault("cells", {})[name] = len(cells)
        return super().map(fn, cells, shared, name=name)


def test_cells_are_those_of_a_run(make_run) -> None:
    attacks = {"fgsm": {"kind": "fgsm"}, "least": {"kind": "fab", "steps": 2, "targets": 1}}
    asked = params(
        data={"train_limit": 40, "test_limit": 20},
        networks={"one": TRAINED, "other": {"kind": "model", "name": "tests.jobs.inevitability.subjects:linear"}},
        resolutions=[1, 2],
        averaged=True,
        curves={"attacks": attacks, "fixed": True},
        slice=15,
    )
    estimated, handle = estimate(asked), make_run(kind=Counting)
    run(asked, handle)
    # Linf 2 + 1 at each resolution; L2 2 + 1 at resolution 1, of 0.3, 0.6, 1.2 and the search 3 + 1 at 2
    assert handle.cells["attacks"] == 2 * ((6 + 7) + 7 + (6 + 7))
    assert estimated.pieces == estimated.details["cells"] == handle.cells["attacks"]
    assert estimated.details["trainings"] == 2 and estimated.details["images"] == 20
    assert estimated.core_seconds is None, "the time of a network that is there is not known"


def test_passes_are_the_most_that_attacks_take() -> None:
    asked = params(
        data={"train_limit": 40, "test_limit": 20},
        networks={"one": {**TRAINED, "method": {"kind": "natural"}}},
        epsilons={"Linf": [0.1]},
        curves={"attacks": {"pgd": {"kind": "pgd", "steps": 10}}},
    )
    estimated = estimate(asked)
    macs = 64 * 8 + 8 * 8 + 8 * 10
    images = 6 * 16
    forward, backward = 1 + 11, 10  # the clean pass and those of the attack
    assert estimated.multiply_adds == pytest.approx(macs * (3 * images + 20 * (forward + 2 * backward)))
    assert estimated.core_seconds > 0


def test_data_that_are_not_there() -> None:
    estimated = estimate(params(data={"name": "image_folder", "root": "/nowhere"}))
    assert estimated.details["data"].startswith("unknown: ") and estimated.core_seconds is None
