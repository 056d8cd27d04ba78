"""Patches drawn otherwise: each condition against what it means, by hand."""

import pytest
import torch
from pydantic import ValidationError

from jobs.common.detection.boxes import Boxes
from jobs.invisibility_cloak.patch.rendering import render
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from jobs.invisibility_cloak.patch.targets import targets_of
from jobs.invisibility_cloak.robustness.conditions import COVER, covered, drawn_under
from jobs.invisibility_cloak.robustness.params import CurveParams

RENDERING = RenderingParams(scale=0.3, median=1)
PATCH = torch.rand(3, 25, 15, generator=torch.Generator().manual_seed(0))
IMAGES = torch.zeros(2, 3, 80, 80)
BOXES = [
    Boxes(torch.tensor([[10.0, 5.0, 50.0, 75.0]]), torch.tensor([0])),
    Boxes(torch.tensor([[20.0, 5.0, 40.0, 45.0], [50.0, 20.0, 75.0, 70.0]]), torch.tensor([0, 0])),
]
TARGETS = targets_of(BOXES, 0, (80, 80))


def drawn(axis: str, value: float, patch: torch.Tensor = PATCH) -> torch.Tensor:
    return drawn_under(axis, value, patch, IMAGES, TARGETS, RENDERING, torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("axis", "value"), [("scale", 0.3), ("angle", 0.0), ("brightness", 0.0), ("occlusion", 0.0)])
def test_nothing_is_changed_where_the_value_is_that_of_the_rendering(axis: str, value: float) -> None:
    assert torch.allclose(drawn(axis, value), render(PATCH, IMAGES, TARGETS, RENDERING), atol=1e-5)


def test_what_is_drawn_grows_with_the_square_of_its_width() -> None:
    white = torch.ones_like(PATCH)
    one, other = (float(drawn("scale", value, white)[0].sum()) for value in (0.2, 0.4))
    assert other / one == pytest.approx(4, rel=0.01)


def test_light_is_added_and_cut_off() -> None:
    grey = torch.full_like(PATCH, 0.5)
    for value, expected in ((0.2, 0.7), (-0.7, 0.0), (0.9, 1.0)):
        assert float(drawn("brightness", value, grey)[0, :, 40, 30].mean()) == pytest.approx(expected, abs=1e-4)


def test_a_half_turn_is_a_half_turn() -> None:
    turned, expected = drawn("angle", 180.0), render(PATCH.flip(1, 2), IMAGES, TARGETS, RENDERING)
    assert torch.allclose(turned, expected, atol=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.9])
def test_a_share_of_the_patch_is_covered(share: float) -> None:
    patch = torch.ones(3, 100, 60)
    hidden = covered(patch, share, torch.Generator().manual_seed(2)) == COVER
    assert float(hidden.float().mean()) == pytest.approx(share, abs=0.02)
    rows, columns = hidden[0].any(1).sum(), hidden[0].any(0).sum()
    assert int(hidden[0].sum()) == int(rows * columns)  # one rectangle


def test_every_image_has_a_cover_of_its_own() -> None:
    white = torch.ones_like(PATCH)
    first, second = drawn("occlusion", 0.3, white)
    assert not torch.equal(first, second) and torch.equal(drawn("occlusion", 0.3, white)[0], first)
    # on both patches of the second image it is at the same place of the patch, and grey
    assert ((second > COVER - 1e-3) & (second < COVER + 1e-3)).float().sum() > 50


@pytest.mark.parametrize(("axis", "value"), [("scale", 0.0), ("angle", 200.0), ("brightness", 1.5), ("occlusion", 1.0)])
def test_values_are_bounded(axis: str, value: float) -> None:
    with pytest.raises(ValidationError, match=f"{axis} must be from"):
        CurveParams(**{axis: (value,)})  # type: ignore[arg-type]


def test_points_are_in_order() -> None:
    params = CurveParams(scale=(0.4, 0.2), angle=(), brightness=(0.0,), occlusion=())
    assert params.points == [("scale", 0.2), ("scale", 0.4), ("brightness", 0.0)]
