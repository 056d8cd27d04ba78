"""The place of a feature among others of its layer, counted by hand; the others that are drawn."""

import torch

from jobs.sonification.optimisation.objectives import ChannelObjective, LayerObjective
from jobs.sonification.optimisation.selectivity import DRAWN, places, scores_of_all, scores_of_drawn


def test_places_are_counted() -> None:
    activations = torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(0))
    own = torch.tensor([3, 0, 6, 3])
    scores = scores_of_all(ChannelObjective(), activations)
    torch.testing.assert_close(scores, activations.mean(2))
    for row, place in enumerate(places(scores, own).tolist()):
        assert sorted(scores[row].tolist(), reverse=True)[place - 1] == float(scores[row, own[row]])
    assert scores_of_all(LayerObjective(), activations).shape == (4, 1)


def test_others_are_drawn_once_each_and_never_the_own_one() -> None:
    scores = torch.arange(200.0).expand(3, -1)  # the score of a feature is its number
    own = torch.tensor([0, 117, 199])
    drawn = scores_of_drawn(scores, own, [1, 2, 3])
    assert drawn.shape == (3, DRAWN)
    for row, feature in zip(drawn.tolist(), own.tolist(), strict=True):
        assert len(set(row)) == DRAWN and feature not in row
    assert len({tuple(row) for row in drawn.tolist()}) == 3
    few = scores_of_drawn(scores[:1, :4], own[:1], [5])
    assert sorted(few[0].tolist()) == [1, 2, 3]
    assert scores_of_drawn(scores[:2, :1], torch.tensor([0, 0]), [1, 2]).shape == (2, 0)
