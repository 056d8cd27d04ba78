"""Filters: brute force, scikit-learn, planted poisons, and the sets that leave them nothing to work with."""

import math
from collections import Counter

import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import matthews_corrcoef, precision_score, recall_score
from torch import Tensor

from jobs.poison_frogs.defences.filters import (
    activation_clustering,
    deep_knn,
    l2_outliers,
    spectral_signatures,
    starved,
    two_means,
)
from jobs.poison_frogs.defences.quality import quality
from service.errors import InputError


def clouds(sizes: tuple[int, ...], dimension: int = 8, apart: float = 6.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A Gaussian cloud for each class, the centres on the axes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    centres = apart * torch.eye(len(sizes), dimension)
    return centres[labels] + torch.randn(len(labels), dimension, generator=generator), labels


def knn_by_hand(features: Tensor, labels: Tensor, k: int) -> list[bool]:
    keep = []
    for row in range(len(features)):
        others = [other for other in range(len(features)) if other != row]
        others.sort(key=lambda other: float((features[other] - features[row]).norm()))
        votes = Counter(int(labels[other]) for other in others[:k])
        keep.append(votes[int(labels[row])] == max(votes.values()))
    return keep


@pytest.mark.parametrize("k", [1, 2, 5, 20, 58])
def test_deep_knn_by_hand(k: int) -> None:
    """Three classes that overlap; ties are kept, the point itself has no vote, chunks change nothing."""
    features, labels = clouds((20, 15, 24), apart=1.5)
    expected = knn_by_hand(features.double(), labels, k)
    for chunk in (None, 1, 7, 59, 100):
        assert deep_knn(features.double(), labels, k, chunk).tolist() == expected
    assert not all(expected) or k > 50


def test_deep_knn_finds_poisons_among_the_other_class() -> None:
    features, labels = clouds((60, 60))
    features[:5] = features[60] + 0.01 * torch.randn(5, 8)  # labelled 0, at a target of class 1
    poisoned = torch.arange(120) < 5
    for k in (11, 50, 100):
        found = quality(deep_knn(features, labels, k), poisoned)
        assert found.recall == 1 and found.clean_removed == 0
    assert quality(deep_knn(features, labels, 3), poisoned).recall == 0, "five poisons vote for each other"


def test_a_tie_is_kept() -> None:
    features = torch.tensor([[0.0], [1.0], [-1.5], [50.0]])
    labels = torch.tensor([0, 1, 0, 1])
    assert deep_knn(features, labels, 2).tolist() == [True, False, True, True]


def test_neighbours_far_from_the_origin() -> None:
    """Distances of float32 points that share a large offset are those without it."""
    features, labels = clouds((20, 15, 24), apart=1.5)
    features = (features * 64).round() / 64  # so that the offset costs nothing
    assert torch.equal(deep_knn(features + 1000, labels, 5), deep_knn(features, labels, 5))


def test_a_class_too_small_for_k() -> None:
    """It goes as a whole, however well it is told apart; `starved` says so beforehand."""
    features, labels = clouds((100, 8), apart=100)
    assert not deep_knn(features, labels, 20)[labels == 1].any()
    assert starved(labels, 20) == (1,) and starved(labels, 14) == () and deep_knn(features, labels, 14).all()
    assert starved(torch.tensor([0, 5]), 1) == (0, 5)


def test_bounds_of_k() -> None:
    features, labels = clouds((5, 5))
    for k in (0, 10, 11):
        with pytest.raises(InputError, match=f"k must be 1 to 9, the number of other points; it is {k}"):
            deep_knn(features, labels, k)
    assert deep_knn(features, labels, 9).shape == (10,)
    with pytest.raises(InputError, match="k must be 1 to 0, the number of other points; it is 1"):
        deep_knn(features[:1], labels[:1], 1)


def test_l2_outliers() -> None:
    """The farthest of each class, as many as the share rounds down to."""
    features, labels = clouds((100, 50))
    features[3], features[120] = 20.0, -20.0
    assert (~l2_outliers(features, labels, 0.02)).nonzero().flatten().tolist()[0::2] == [3, 120]
    for share, dropped in ((0, 0), (0.01, 1), (0.02, 3), (0.29, 29 + 14), (0.999, 99 + 49)):
        assert int((~l2_outliers(features, labels, share)).sum()) == dropped
    far = (features[:100] - features[:100].mean(0)).norm(dim=1).argsort(descending=True)[:7]
    assert (~l2_outliers(features, labels, 0.07)[:100]).nonzero().flatten().tolist() == sorted(far.tolist())
    with pytest.raises(InputError, match="share must be at least 0 and below 1; it is 1"):
        l2_outliers(features, labels, 1.0)


def test_spectral_signatures() -> None:
    """Poisons that share a direction go; the scores are those of the covariance's first eigenvector, centred."""
    features, labels = clouds((80, 80), dimension=12)
    features += 50  # far from the origin: scores of the points themselves would see the mean alone
    features[:8, 5] += 7
    keep = spectral_signatures(features, labels, poisons=8)
    assert int((~keep).sum()) == 24 and not keep[:8].any()
    for label in (0, 1):
        rows = (labels == label).nonzero().flatten()
        centred = (features[rows] - features[rows].mean(0)).double()
        _, vectors = torch.linalg.eigh(centred.T @ centred)
        expected = rows[(centred @ vectors[:, -1]).square().topk(12).indices]
        assert sorted(expected.tolist()) == (~keep & (labels == label)).nonzero().flatten().tolist()


def test_spectral_counts() -> None:
    features, labels = clouds((20, 30))
    for poisons, factor, dropped in ((1, 1.5, 2), (2, 1.5, 3), (4, 1.5, 6), (10, 1.1, 11), (3, 1.0, 3)):
        assert int((~spectral_signatures(features, labels, poisons, factor)).sum()) == 2 * dropped
    with pytest.raises(
        InputError, match=r"must be below 20, the number of points of class 0; it is 21 \(assume fewer poisons\)"
    ):
        spectral_signatures(features, labels, 14)
    with pytest.raises(InputError, match="poisons must be at least 1; it is 0"):
        spectral_signatures(features, labels, 0)


def test_two_means_against_scikit_learn() -> None:
    """The best of fifty starts of k-means is not better."""
    for seed in range(5):
        features, _ = clouds((40, 25), dimension=6, apart=4, seed=seed)
        centred = (features - features.mean(0)).double()
        second = two_means(centred)
        inertia = sum(float((part - part.mean(0)).square().sum()) for part in (centred[second], centred[~second]))
        reference = KMeans(2, n_init=50, random_state=0).fit(centred.numpy())
        assert inertia == pytest.approx(reference.inertia_, rel=1e-6)


@pytest.mark.parametrize("dimensions", [None, 2, 10])
def test_activation_clustering(dimensions: int | None) -> None:
    """A second cloud in a class goes if it is the smaller one, and small enough."""
    features, labels = clouds((60, 60))
    features[:15] += 8
    poisoned = torch.arange(120) < 15
    keep = activation_clustering(features, labels, dimensions)
    assert quality(keep[labels == 0], poisoned[labels == 0]) == quality(~poisoned[:60], poisoned[:60])
    assert int((~keep).sum()) > 15, "a class without poisons loses its smaller half too"
    assert activation_clustering(features, labels, dimensions, 0.2).all()
    few = activation_clustering(features, labels, dimensions, 0.25)
    assert not few[:15].any() and few[15:60].all()


def test_clusters_of_equal_size_stay() -> None:
    features = torch.tensor([[0.0], [0.1], [9.0], [9.1], [5.0], [6.0]])
    assert activation_clustering(features, torch.tensor([0, 0, 0, 0, 1, 1])).all()
    with pytest.raises(InputError, match="dimensions must be at least 1; it is 0"):
        activation_clustering(features, torch.zeros(6, dtype=torch.int64), 0)
    with pytest.raises(InputError, match="largest_share must be above 0 and at most 0.5; it is 0.6"):
        activation_clustering(features, torch.zeros(6, dtype=torch.int64), 1, 0.6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_classes_without_variance_or_company(value: float) -> None:
    """Points that are all alike, and a class of one: there is nothing to choose by, and all stay."""
    features = torch.full((12, 5), value)
    features[11] = 3.0
    labels = torch.tensor([0] * 11 + [1])
    assert spectral_signatures(features, labels, 1).all()
    assert activation_clustering(features, labels).all()
    assert l2_outliers(features, labels, 0.05).all()
    assert int((~l2_outliers(features, labels, 0.1)).sum()) == 1, "some share of a class is asked for"
    assert deep_knn(features[:11], labels[:11], 5).all()


def test_quality_against_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        keep, poisoned = torch.rand(50, generator=generator) < 0.8, torch.rand(50, generator=generator) < 0.3
        found = quality(keep, poisoned)
        assert found.precision == pytest.approx(precision_score(poisoned, ~keep))
        assert found.recall == pytest.approx(recall_score(poisoned, ~keep))
        assert found.clean_removed == pytest.approx(float((~keep & ~poisoned).sum() / (~poisoned).sum()))
        assert found.matthews == pytest.approx(matthews_corrcoef(poisoned, ~keep))


def test_quality_at_its_ends() -> None:
    yes, no = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)
    nothing = quality(yes, torch.tensor([True, False, False, False]))
    assert math.isnan(nothing.precision) and (nothing.recall, nothing.clean_removed, nothing.matthews) == (0, 0, 0)
    clean = quality(yes, no)
    assert math.isnan(clean.recall) and clean.clean_removed == 0
    assert math.isnan(quality(no, yes).clean_removed)
    assert quality(torch.tensor([False, True]), torch.tensor([True, False])).matthews == 1
    with pytest.raises(InputError, match=r"torch.bool \(4,\) and torch.bool \(3,\)"):
        quality(yes, yes[:3])


def test_what_does_not_fit_is_said() -> None:
    features, labels = clouds((5, 5))
    with pytest.raises(InputError, match=r"labels \(9,\) do not fit features \(10, 8\)"):
        l2_outliers(features, labels[:9], 0.1)
    with pytest.raises(InputError, match="not finite"):
        deep_knn(features * math.nan, labels, 1)
    with pytest.raises(InputError, match="whole numbers from 0 on"):
        spectral_signatures(features, labels - 1, 1)
