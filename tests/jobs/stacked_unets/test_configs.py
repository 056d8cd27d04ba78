"""The specs of the study: the small ones in miniature, the paper's as `assay check` sees them."""

from pathlib import Path

import pytest

from jobs.common.estimation import Passes
from jobs.stacked_unets import estimation
from service import spec
from service.execution import runner
from service.execution.runner import Execution
from service.planning import plan
from service.planning.costs import costs as costs_of
from service.store import open_store

CONFIGS = Path(__file__).parents[3] / "configs" / "stacked_unets"
MINIATURE = [
    *("params.training.updates=4", "params.training.report_every=2", "params.training.held_out=2"),
    *("params.data.test_limit=2", "params.evaluation.leave_out=false", "params.evaluation.shown=1"),
]


@pytest.mark.parametrize("name", sorted(file.stem for file in CONFIGS.glob("*.yaml")))
def test_specs_are_valid(name: str) -> None:
    assert plan.trials(spec.load(str(CONFIGS / f"{name}.yaml")))


def test_the_small_spec_runs(store_uri: str) -> None:
    loaded = spec.load(str(CONFIGS / "small.yaml"), [*MINIATURE, f"store={store_uri}"])
    state = runner.start(loaded, Execution(serial=True))
    assert state.status == "finished", state.failure
    folder = open_store(store_uri) / "runs" / state.id
    assert folder.exists("figures/classes_satellite.png") and folder.exists("figures/training.png")
    for trial in plan.trials(loaded):
        assert (folder / "trials" / trial.id).exists("figures/segmented.png")


def test_the_papers_specs_say_what_they_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """90 epochs of 476 batches of 22; 10^9 multiplications for 512x512 are those of the released code."""
    monkeypatch.setattr(estimation, "passes_tried", lambda network, classes: Passes(1, 1.0))
    trials = plan.trials(spec.load(str(CONFIGS / "voc_paper.yaml")))
    costs = [each.estimate for each in costs_of([trials[0], trials[3]])]
    assert [each.details["images to train on"] for each in costs] == [90 * 476 * 22] * 2
    small, large = (each.details["multiply-adds of an image of 512x512"] / 1e9 for each in costs)
    assert small == pytest.approx(14.0 + 0.02, abs=0.06)
    # the heads: the de-gridding one has two 3x3 convolutions
    assert large == pytest.approx(130.1 + 64 * 64 * 512 * (9 * (2304 + 512) + 21) / 1e9, abs=0.1)
    assert costs[0].multiply_adds == pytest.approx(3e9 * small * 90 * 476 * 22)


@pytest.mark.parametrize(
    ("name", "images", "epochs", "milestones"),
    [
        ("stacked_unets/voc_paper", 10_582, 90, []),
        ("stacked_unets/cityscapes_paper", 2_975, 180, []),
        ("stacked_unets/imagenet_paper", 1_281_167, 100, [30, 60, 90]),
    ],
)
def test_epochs_are_those_of_the_images_that_are_not_held_out(
    name: str, images: int, epochs: int, milestones: list[int]
) -> None:
    training = spec.load(str(CONFIGS.parent / f"{name}.yaml")).params.training
    epoch = (images - training.held_out) // training.batch
    assert training.updates == epochs * epoch and training.report_every % epoch == 0
    assert [each / epoch for each in getattr(training.optimizer.decay, "milestones", ())] == milestones


def test_cityscapes_has_the_recipe_of_voc() -> None:
    cityscapes, voc = (spec.load(str(CONFIGS / f"{name}_paper.yaml")).params.training for name in ("cityscapes", "voc"))
    assert cityscapes.optimizer == voc.optimizer and cityscapes.batch_norm == voc.batch_norm
    assert cityscapes.augmentation == voc.augmentation
