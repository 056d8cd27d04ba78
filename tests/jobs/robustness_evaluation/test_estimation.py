"""What an evaluation is said to cost, against the cells that a run computes."""

from jobs.robustness_evaluation.estimation import estimate
from jobs.robustness_evaluation.job import run
from service.run import Run
from tests.jobs.robustness_evaluation.small import params


class Counting(Run):
    """Counts the cells of each map."""

    cells: dict[str, int]

    def map(self, fn, cells, shared=None, *, name):
        vars(self).setdefault("cells", {})[name] = len(cells)
        return super().map(fn, cells, shared, name=name)


def test_cells_are_those_of_a_run(make_run) -> None:
    attacks = {"one": {"kind": "fgsm"}, "least": {"kind": "fab", "steps": 2, "targets": 1}}
    asked = params(attacks=attacks, epsilons=[0.02, 0.05], first=50)  # three slices, the last of ten
    estimated, handle = estimate(asked), make_run(kind=Counting)
    run(asked, handle)
    assert estimated.pieces == estimated.details["cells"] == handle.cells["attacks"] == 3 * 3
    assert estimated.details["images"] == 50 and estimated.details["searches"] == 3, "the least norm: once"
