"""The vote of covered images, on a detector whose boxes are known."""

import numpy as np
import pytest
import torch
from sklearn.cluster import DBSCAN

from jobs.invisibility_cloak.defences.occlusion_vote import FILL, OcclusionVote, components
from tests.jobs.invisibility_cloak.defences.detectors import WhiteFinder


def vote(lines: int = 3, explained: float = 0.6) -> OcclusionVote:
    return OcclusionVote(WhiteFinder(), lines, 0.5, explained, 0.3)


def person(red: bool) -> torch.Tensor:
    images = torch.full((1, 3, 40, 40), 0.2)
    images[..., 4:36, 10:20] = 1.0
    if red:
        images[..., 24:28, 13:17] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    return images


def test_every_half_is_covered_once() -> None:
    images = torch.rand(2, 3, 8, 12)
    versions = vote(3).versions(images)
    assert len(versions) == 13 and torch.equal(versions[0], images)
    for index, (axis, place) in enumerate((axis, place) for place in (1, 2, 3) for axis in (2, 3)):
        line = place * images.shape[axis] // 4
        first, second = versions[1 + 2 * index], versions[2 + 2 * index]
        low, high = (part.narrow(axis, 0, line) for part in (first, second))
        assert (low == FILL).all() and torch.equal(high, images.narrow(axis, 0, line))
        rest = images.shape[axis] - line
        assert torch.equal(first.narrow(axis, line, rest), images.narrow(axis, line, rest))
        assert (second.narrow(axis, line, rest) == FILL).all()


def test_what_a_patch_hides_is_found_and_what_is_explained_is_not_found_twice() -> None:
    assert not len(WhiteFinder().detect(person(red=True))[0])
    (found,) = vote().detect(person(red=True))
    # with what is below 20 covered, its upper part; with what is above 30 covered, its lower part
    assert found.corners.tolist() == [[10, 4, 20, 20], [10, 30, 20, 36]]
    assert found.scores is not None and found.scores.tolist() == pytest.approx([0.9, 0.9])
    (clean,) = vote().detect(person(red=False))
    assert clean.corners.tolist() == [[10, 4, 20, 36]]
    (nothing,) = vote().detect(torch.full((1, 3, 40, 40), 0.2))
    assert len(nothing) == 0


def test_an_attack_sees_every_version() -> None:
    images = torch.rand(2, 3, 8, 8).requires_grad_()
    priors = vote(2).priors(images)
    assert priors.corners.shape == (2, 9 * 64, 4) and priors.objectness is not None
    priors.objectness.sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    # each pixel counts once in the whole image, and in one of the two halves at each of the four lines
    assert torch.allclose(images.grad, torch.full_like(images, 20 * 5 / 3))


def test_groups_are_those_of_dbscan() -> None:
    stream = np.random.default_rng(0)
    for count in (1, 2, 7, 30):
        points = stream.random((count, 2))
        distances = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
        expected = DBSCAN(eps=0.15, min_samples=1, metric="precomputed").fit_predict(distances)
        ours = components(torch.from_numpy(distances <= 0.15)).numpy()
        pairs = (expected[:, None] == expected[None], ours[:, None] == ours[None])
        assert np.array_equal(*pairs)
