"""What is reported of sounds: the share of the gain that is left, and whose examples there are."""

from dataclasses import replace

import pytest
import torch

from jobs.sonification.results import metrics_of_sonification, warnings_of
from jobs.sonification.sonification import Feature, Sonification

WORD = Sonification(
    feature=Feature("output", 1, "middle", dead=False), copy=0, sound=torch.zeros(8), start=-2.3, optimised=-0.01,
    final=-2.0, rank=1, rivals=3, drawn=torch.tensor([-9.0, -8.0]), curve=torch.zeros(1), activations=torch.zeros(3),
    predicted=1, probability=0.1,
)  # fmt: skip


def test_what_is_kept_of_a_log_probability_is_a_share_of_its_gain() -> None:
    metrics = metrics_of_sonification([WORD], [WORD.feature], "words")
    assert metrics["kept_words"] == pytest.approx(0.3 / 2.29)
    assert warnings_of({"words": [WORD]}, {}, None) == [
        "words: in most sounds less than half is left of what optimisation gained"
    ]
    whole = replace(WORD, final=-0.01)
    assert metrics_of_sonification([whole], [WORD.feature], "words")["kept_words"] == pytest.approx(1)
    assert not warnings_of({"words": [whole]}, {}, None)


def test_where_nothing_was_gained_nothing_is_kept() -> None:
    idle = replace(WORD, optimised=WORD.start)
    metrics = metrics_of_sonification([idle, replace(WORD, final=-0.01)], [WORD.feature], "words")
    assert metrics["kept_words"] == pytest.approx(1) and not warnings_of({"words": [idle]}, {}, None)
