"""Concentration among uncertain labels in the study: whose probabilities, what its ceiling is about, bad input."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from jobs.common.data.images.base import ImageSet
from jobs.common.data.images.half_cubes import HalfCubes
from jobs.inevitability import drawing, figures
from jobs.inevitability.ceilings import concentration
from jobs.inevitability.ceilings.ceiling import Ceiling, alarms
from jobs.inevitability.ceilings.concentration_params import ConcentrationParams
from service.errors import FieldError, InputError
from tests.jobs.inevitability.test_curves import curve

HERE = __name__
EPSILONS = {"L2": (0.2, 0.4)}


def certainty(images: ImageSet) -> Tensor:
    """How sure annotators might be: less where the first pixel is near the middle, where the classes of cubes meet."""
    first = images.images(torch.arange(len(images))).flatten(1)[:, 0]
    return 0.5 + (first - 0.5).abs()


def annotators(split: str, images: ImageSet) -> Tensor:
    assert split in ("train", "test")
    sure = certainty(images)
    return torch.where(images.labels[:, None] == torch.arange(2), sure[:, None], 1 - sure[:, None])


def too_few(split: str, images: ImageSet) -> Tensor:
    return annotators(split, images)[1:]


def asked(**changes: object) -> ConcentrationParams:
    balls = {"kind": "balls", "counts": [2], "centres": 200, "slack": 0.0}
    methods = {"free": balls, "uncertain": {**balls, "gamma": 0.6}}
    return ConcentrationParams.model_validate(
        {"methods": methods, "alpha": 0.1, "soft_labels": f"{HERE}:annotators"} | changes, strict=False
    )


def test_regions_of_uncertain_labels_have_a_ceiling_of_their_own(make_run) -> None:
    images = HalfCubes("test", 8)
    params = asked()
    rows = concentration.measured(
        params, EPSILONS, concentration.prepared(params, EPSILONS, images, images), make_run()
    )
    free, bound = ([row for row in rows if row["search"] == name] for name in ("free", "uncertain"))
    assert [row["gamma"] for row in free + bound] == [None, None, 0.6, 0.6]
    assert all(row["train_uncertainty"] >= 0.6 for row in bound)
    # 1 - (sure - (1 - sure)) is 2 - 2 sure
    every = 2 - 2 * certainty(images)
    assert 0.3 < float(every.mean()) < 0.7, "so that 0.6 asks for something"
    first, second = concentration.ceilings(params, [row | {"holds": True} for row in rows])
    assert (first.least_uncertainty, second.least_uncertainty) == (None, 0.6)
    assert "label uncertainty of 0.6 or more" in second.label and "uncertainty" not in first.label


def test_a_ceiling_for_uncertain_errors_raises_no_alarm() -> None:
    """How uncertain the labels of a network's errors are is not known."""
    measured = curve([[1] * 95 + [0] * 5, [1] * 90 + [0] * 10], (0.0, 0.1))
    for uncertainty, count in ((None, 1), (0.5, 0)):
        ceiling = Ceiling("concentration", "one", measured.norm, (0.1,), (0.5,), False, 0.01, uncertainty)
        assert len(alarms([measured], [ceiling])) == count


def test_what_does_not_fit_is_said_before_anything_is_computed() -> None:
    images = HalfCubes("test", 8)
    with pytest.raises(ValidationError, match="soft_labels must be given where a search has gamma; it is empty"):
        asked(soft_labels=None)
    with pytest.raises(InputError, match="probabilities must have a row of two classes or more for each label"):
        concentration.prepared(asked(soft_labels=f"{HERE}:too_few"), EPSILONS, images, images)
    with pytest.raises(FieldError, match=r"concentration.methods.free.alpha must be at least .*, one of the"):
        concentration.prepared(asked(alpha=1e-6), EPSILONS, images, images)
    boxes = {"one": {"kind": "boxes", "neighbours": 1_000_000}}
    with pytest.raises(FieldError, match=r"concentration.methods.one.neighbours must be at most"):
        concentration.prepared(asked(methods=boxes), {"Linf": (0.1,)}, images, images)


def test_the_growth_of_regions_is_drawn_over_seeds() -> None:
    rows = [
        {"norm": "L2", "search": "balls", "epsilon": epsilon, "train_adversarial_risk": a, "test_adversarial_risk": b}
        for epsilon, a, b in ((0.1, 0.2, 0.3), (0.1, 0.4, 0.5), (0.2, 0.6, 0.7), (0.2, 0.6, 0.9))
    ]
    (growth,) = drawing.growth_of(rows)["L2"]
    assert growth == figures.Growth("balls", [0.1, 0.2], [[0.2, 0.4], [0.6, 0.6]], [[0.3, 0.5], [0.7, 0.9]])
    low = figures.Growth("balls", [0.1], [[0.1]], [[0.1]])
    first, axes = figures.growth({"Linf": [low], "L2": [growth]}, 0.05).axes
    assert first.get_ylim() == axes.get_ylim() and axes.get_ylim()[0] == 0 and axes.get_ylim()[1] >= 90
    others, fitted, alpha = (line.get_ydata() for line in axes.lines)
    assert others == pytest.approx([40, 80]) and fitted == pytest.approx([30, 60]) and alpha == [5, 5]
