"""Losses of patches against sums that are written out, and what keeps patches smooth, printable and whole."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from jobs.common.detection.base import Priors
from jobs.invisibility_cloak.patch.objectives import (
    HingeObjective,
    MaximumObjective,
    TargetedObjective,
    check_objective,
)
from jobs.invisibility_cloak.patch.regularisation import (
    CutoutParams,
    PrintabilityParams,
    SmoothnessParams,
    printable_colours,
)
from jobs.invisibility_cloak.patch.targets import Targets
from service.errors import InputError
from tests.jobs.invisibility_cloak.toys import Spots

LOGITS = torch.tensor([[-3.0, -1.0, 0.0, 2.0], [1.0, -0.5, -2.0, -9.0]])
NONE = Targets(torch.empty(0, 4), torch.empty(0, dtype=torch.int64), (0, 0, 0, 0))


def priors(levels: tuple[int, ...] = (), objectness: Tensor | None = LOGITS) -> Priors:
    classes = torch.tensor([0.9, 0.1]).expand(2, 4, 2)
    corners = torch.tensor([[0.0, 0, 10, 20], [0, 0, 10, 22], [40, 40, 50, 60], [0, 0, 90, 90]]).expand(2, -1, -1)
    return Priors(corners, objectness, classes, levels=levels)


def test_the_papers_hinge_is_a_sum_over_priors_and_a_mean_over_images() -> None:
    loss = HingeObjective().loss(priors(), 0, NONE, None)
    assert float(loss) == pytest.approx(((0 + 0 + 1 + 9) + (4 + 0.25)) / 2)
    wide = HingeObjective(margin=2.0).loss(priors(), 0, NONE, None)
    assert float(wide) == pytest.approx(((0 + 1 + 4 + 16) + (9 + 2.25)) / 2)


def test_the_codes_hinge_is_a_mean_that_is_squared_level_by_level() -> None:
    code = HingeObjective(form="mean")
    whole = (0 + 0 + 1 + 3 + 2 + 0.5) / 8
    assert float(code.loss(priors(), 0, NONE, None)) == pytest.approx(whole**2)
    first, second = (0 + 0 + 2 + 0.5) / 4, (1 + 3 + 0 + 0) / 4
    levels = code.loss(priors(levels=(2, 2)), 0, NONE, None)
    assert float(levels) == pytest.approx((first**2 + second**2) / 2)


def test_scores_are_objectness_class_or_their_product() -> None:
    for score, expected in (
        ("objectness", [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1))]),
        ("class", [0.9, 0.9]),
        ("product", [0.9 / (1 + math.exp(-2)), 0.9 / (1 + math.exp(-1))]),
    ):
        loss = MaximumObjective(score=score).loss(priors(), 0, NONE, None)
        assert float(loss) == pytest.approx(np.mean(expected), rel=1e-5)
    # without objectness the class stands for it
    substitute = MaximumObjective(score="objectness").loss(priors(objectness=None), 0, NONE, None)
    assert float(substitute) == pytest.approx(0.9, rel=1e-5)


def test_toward_another_class_only_priors_on_persons_count() -> None:
    targets = Targets(torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([1]), (0, 0, 0, 0))
    loss = TargetedObjective(toward="tree").loss(priors(), 0, targets, 1)
    near = torch.sigmoid(LOGITS[1, :2])  # both overlap by more than .3, the others do not
    expected = (-torch.log(0.1 * near) - torch.log(1 - 0.9 * near)).mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)
    assert float(TargetedObjective(toward="tree").loss(priors(), 0, NONE, 1)) == 0


def test_what_a_detector_does_not_know_is_refused() -> None:
    image = torch.zeros(1, 3, 48, 48)
    check_objective(TargetedObjective(toward="tree"), [Spots().eval()], image)
    with pytest.raises(InputError, match="unknown class of spots 'tre' .did you mean 'tree'"):
        check_objective(TargetedObjective(toward="tre"), [Spots().eval()], image)

    class First(Spots):
        def priors(self, images: Tensor) -> Priors:
            whole = super().priors(images)
            return Priors(whole.corners, whole.objectness, None)

    check_objective(HingeObjective(), [First().eval()], image)
    with pytest.raises(InputError, match="spots knows no classes: its objectness is all that can be attacked"):
        check_objective(MaximumObjective(), [First().eval()], image)


def test_total_variation_of_stripes() -> None:
    stripes = torch.zeros(3, 4, 6)
    stripes[:, :, ::2] = 0.5
    differences = 3 * 4 * 5
    assert float(SmoothnessParams().loss(stripes)) == pytest.approx(differences * 0.5 / 72)
    assert float(SmoothnessParams(form="squared").loss(stripes)) == pytest.approx(differences * 0.25 / 72)
    assert float(SmoothnessParams().loss(torch.full((3, 4, 6), 0.3))) == 0


def test_printability_is_the_distance_from_the_nearest_colour() -> None:
    palette = printable_colours()
    assert palette.shape == (30, 3) and len(palette.unique(dim=0)) == 30
    assert float(palette.min()) >= 0 and float(palette.max()) <= 1
    assert float(PrintabilityParams().loss(palette.T.view(3, 5, 6))) == pytest.approx(0, abs=1e-5)
    own = PrintabilityParams(colours=("#000000", "ff0000"))
    patch = torch.tensor([[1.0, 0.0], [0.5, 0.0], [0.0, 0.3]]).view(3, 1, 2)
    assert float(own.loss(patch)) == pytest.approx((0.5 + 0.3) / 2)
    random = torch.rand(3, 9, 7)
    nearest = [min(float((pixel - colour).norm()) for colour in palette) for pixel in random.flatten(1).T]
    assert float(PrintabilityParams().loss(random)) == pytest.approx(np.mean(nearest), rel=1e-4)
    with pytest.raises((InputError, ValidationError), match="six hexadecimal digits"):
        PrintabilityParams(colours=("red",))


def test_cutout_hides_a_part_of_the_patch() -> None:
    patch = torch.rand(3, 20, 10)
    stream = torch.Generator().manual_seed(0)
    assert CutoutParams().apply(patch, stream) is patch
    places = set()
    for _ in range(30):
        cut = CutoutParams(probability=1.0, share=0.4, fill=0.25).apply(patch, stream)
        hidden = (cut == 0.25).all(0)
        assert int(hidden.sum()) == 8 * 4 and torch.equal(cut[:, ~hidden], patch[:, ~hidden])
        places.add(int(hidden.flatten().nonzero()[0]))
    assert len(places) > 10
