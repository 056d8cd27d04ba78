"""Targets and bases: the rules, and one sentence for each thing that cannot be."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from jobs.common.data.images.base import Source
from jobs.common.data.images.digits import digits_16
from jobs.poison_frogs.targets.selection import (
    BaseParams,
    Candidates,
    PairParams,
    Target,
    TargetParams,
    nearest,
    select,
)
from service.errors import InputError

LABELS = torch.tensor([0] * 6 + [1] * 5 + [2] * 2)
FEATURES = torch.arange(13.0)[:, None] + torch.tensor([[1.0, 0.5]])
LOGITS = torch.nn.functional.one_hot(LABELS, 3) * torch.linspace(1, 3, 13)[:, None]
SPLIT = Candidates(("cat", "dog", "frog"), LABELS, FEATURES, LOGITS, torch.full((13,), 0.5))


def chosen(split: Candidates = SPLIT, most: int = 1, seed: int = 0, **options: Any) -> list[Target]:
    pair = {"target": "cat", "base": "dog", **options.pop("pair", {})}
    targets, bases = (TargetParams(**options.pop("targets", {})), BaseParams(**options.pop("bases", {})))
    return select(split, PairParams(**pair), targets, bases, most, seed)


def indices(targets: list[Target]) -> list[int]:
    return [target.index for target in targets]


def test_random_targets_are_those_of_the_class_in_an_order_of_the_seed():
    assert sorted(indices(chosen())) == [0, 1, 2, 3, 4, 5]
    assert indices(chosen(seed=1)) == indices(chosen(seed=1)) != indices(chosen(seed=2))
    assert indices(chosen(targets={"count": 2})) == indices(chosen())[:2]
    assert len(chosen(pair={"targets": 3}, targets={"count": 2})) == 3
    assert indices(chosen(targets={"indices": (4, 1, 9)})) == [4, 1]


def test_outliers_are_those_that_the_clean_network_is_least_sure_of():
    targets = chosen(targets={"rule": "outlier", "count": 3})
    assert indices(targets) == [0, 1, 2] and targets[0].confidence < targets[2].confidence
    first = targets[0]
    assert first.margin == pytest.approx(1.0) and first.confidence == pytest.approx(0.5761, abs=1e-4)
    assert (first.true_class, first.base_class, first.neighbour) == (0, 1, 0.5)


def test_bases_are_ordered_by_their_rule():
    assert chosen(most=5, bases={"rule": "nearest"})[0].bases == (6, 7, 8, 9, 10)
    same = chosen(most=5, bases={"rule": "same"})
    assert len({target.bases for target in same}) == 1 and sorted(same[0].bases) == [6, 7, 8, 9, 10]
    other = chosen(most=5, bases={"rule": "random"})
    assert len({target.bases for target in other}) > 1 and all(sorted(t.bases) == sorted(t.bases) for t in other)
    single = chosen(most=3, bases={"rule": "single"})[0]
    assert single.bases == (6,) and [single.base(rank) for rank in range(3)] == [6, 6, 6]
    tried = chosen(most=1, bases={"rule": "nearest", "preferred": (9, 8, 0)})[0]
    assert tried.bases == (9, 8, 6, 7, 10), "of another class is tried for the other pairs alone"


def test_what_is_misclassified_or_a_copy_is_left_out():
    logits = LOGITS.clone()
    logits[2] = torch.tensor([0.0, 5.0, 0.0])
    wrong = replace(SPLIT, logits=logits)
    assert sorted(indices(chosen(wrong))) == [0, 1, 3, 4, 5]
    kept = {target.index: target.margin for target in chosen(wrong, targets={"only_correct": False})}
    assert kept[2] == -5.0
    near = torch.full((13,), 0.5)
    near[[1, 7]] = 0.0
    copies = replace(SPLIT, neighbours=near)
    assert 1 not in indices(chosen(copies)) and 7 not in chosen(copies, bases={"rule": "nearest"}, most=4)[0].bases
    dead = FEATURES.clone()
    dead[3] = 0
    assert 3 not in indices(chosen(replace(SPLIT, features=dead)))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pair": {"base": "dgo"}}, "unknown class 'dgo'.*did you mean 'dog'"),
        ({"targets": {"count": 7}}, "targets.count must be 1 to 6, the images of 'cat' that fit: of 6 .*; it is 7"),
        ({"targets": {"indices": (0, 13)}}, r"targets.indices must be 0 to 12, .*; it is 13"),
        ({"targets": {"indices": (7,)}}, "none of them is of the class 'cat'"),
        ({"bases": {"preferred": (-1,)}}, r"bases.preferred must be 0 to 12, .*; it is -1"),
        ({"most": 6}, "poisons must be at most 5, the test images of 'dog' .*; it is 6"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        chosen(**options)


def test_copies_are_at_a_distance_of_exactly_zero():
    features = torch.randn(40, 30, generator=torch.Generator().manual_seed(0)) * 100
    assert nearest(features, features.flip(0)).tolist() == [0.0] * 40
    expected = (features[:5, None] - features[None, 5:]).norm(dim=2).amin(1)
    torch.testing.assert_close(nearest(features[:5], features[5:]), expected)


def test_digits_are_enlarged_and_stay_8_bit_images():
    train, test = digits_16("train", Source()), digits_16("test", Source())
    assert (len(train), len(test), train.shape) == (1000, 797, (1, 16, 16))
    images = test.images(torch.arange(3))
    torch.testing.assert_close(images * 255, (images * 255).round())
