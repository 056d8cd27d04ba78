"""Points of the plane: where the paper has them, and as images within [0, 1]."""

import math

import pytest
import torch

from jobs.common.data.images import DataParams
from jobs.common.data.images.base import ImageSet, Part
from jobs.common.data.images.plane_points import coordinates, frame_of
from jobs.common.data.sets import Split
from jobs.common.models.classifiers import classifier

NAMES = ("spirals", "swiss_roll", "circles", "circles_gap")


def both(name: str) -> tuple[ImageSet, ImageSet]:
    data = DataParams(name=name)
    return data.load("train"), data.load("test")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["train", "test"])
def test_they_are_images_and_give_their_coordinates_back(name: str, split: Split) -> None:
    points = DataParams(name=name).load(split)
    values = points.images(torch.arange(len(points)))
    assert values.shape == (len(points), 2, 1, 1) and 0 <= float(values.min()) <= float(values.max()) <= 1
    frame = frame_of(points)
    options = {"mean": [0.5, 0.5], "std": [1 / (2 * frame)] * 2}
    network = classifier("fully_connected", classes=2, channels=2, hidden=[], **options)
    torch.testing.assert_close(network.normalise(values).flatten(1).double(), coordinates(points), rtol=1e-5, atol=1e-4)
    part = Part(points, torch.tensor([3, 1]))
    assert torch.equal(coordinates(part), coordinates(points)[[3, 1]])


def test_spirals_turn_one_and_a_half_times_and_each_is_the_other_negated() -> None:
    train, test = both("spirals")
    assert (len(train), len(test)) == (266, 134)
    points = torch.cat([coordinates(train), coordinates(test)])
    labels = torch.cat([train.labels, test.labels])
    first = points[labels == 1]
    radius = first.norm(dim=1).sort()
    angle = (radius.values / 5) ** 2
    torch.testing.assert_close(
        angle, torch.arange(1, 201, dtype=torch.float64) * 3 * math.pi / 200, rtol=1e-4, atol=1e-3
    )
    spiral = 5 * angle.sqrt()[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    torch.testing.assert_close(first[radius.indices], spiral, rtol=1e-3, atol=2e-2)
    assert len({tuple(row) for row in points.tolist()}) == 400, "no point is there twice, whatever its label"


def test_the_swiss_roll_has_the_papers_noise_around_its_bands() -> None:
    """In polar coordinates the radius is 1.5 times the angle, up to noise of 0.5."""
    train, test = both("swiss_roll")
    assert (len(train), len(test)) == (4200, 1000)
    points = coordinates(train) * torch.where(train.labels == 0, 1.0, -1.0)[:, None].double()
    radius, angle = points.norm(dim=1), torch.atan2(points[:, 1], -points[:, 0])
    turns = ((radius / 1.5 - angle) / (2 * math.pi)).round()
    away = radius - 1.5 * (angle + 2 * math.pi * turns)
    far = radius > 5  # where the band is narrow against its radius
    assert float(away[far].std()) == pytest.approx(0.5 * math.sqrt(1 + 1.5**2 / 11**2), rel=0.1)
    uniform = (radius / 1.5 / (600 * 2 * math.pi / 360)) ** 2
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.02) and float(uniform.std()) == pytest.approx(
        12**-0.5, abs=0.02
    )
    half = train.images(torch.arange(2100)), train.images(torch.arange(2100, 4200))
    torch.testing.assert_close(half[0], 1 - half[1], rtol=1e-6, atol=1e-6)


def test_ten_points_of_the_outer_circle_lie_beside_the_inner_one() -> None:
    wide, _ = both("circles")
    narrow, test = both("circles_gap")
    assert [len(wide), len(narrow)] == [120, 130] and len(test) == 400
    assert torch.equal(coordinates(narrow)[:120], coordinates(wide))
    inner, beside = coordinates(narrow)[:40], coordinates(narrow)[120:]
    torch.testing.assert_close(beside.norm(dim=1), torch.full((10,), 0.401, dtype=torch.float64), rtol=1e-5, atol=1e-6)
    nearest = torch.cdist(beside, inner).min(1).values
    torch.testing.assert_close(
        nearest, torch.full((10,), 2 * 0.4 * math.sin(math.pi / 80)).double(), rtol=2e-3, atol=1e-4
    )
    assert torch.equal(narrow.labels.bincount(), torch.tensor([40, 90]))


def test_classes_are_kept_by_name() -> None:
    digits = DataParams(name="digits", classes=("7", "1")).load("train")
    whole = DataParams(name="digits").load("train")
    assert digits.classes == ("7", "1")
    expected = torch.where(whole.labels == 7, 0, 1)[(whole.labels == 7) | (whole.labels == 1)]
    assert torch.equal(digits.labels, expected)
    with pytest.raises(Exception, match="data.classes must be two classes or more"):
        DataParams(name="digits", classes=("7",)).load("train")
    with pytest.raises(Exception, match="unknown class 'seven'"):
        DataParams(name="digits", classes=("seven", "1")).load("train")
