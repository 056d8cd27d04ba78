"""Rates of outcomes, with intervals that know what repeats are worth."""

import math

import pytest

from jobs.common.metrics.intervals import wilson
from jobs.poison_frogs.targets.selection import Target
from jobs.poison_frogs.victims.outcomes import Outcome, rates


def outcome(place: int, repeat: int, succeeded: bool) -> Outcome:
    return Outcome(
        victim="head",
        defence="",
        repeat=repeat,
        control="poison",
        poisons=1,
        place=place,
        target=Target(place, 0, 1, confidence=0.9, margin=2.0, neighbour=5.0, bases=(7,)),
        verdict="base class" if succeeded else "own class",
        confidence=0.5,
        fitted=1.0,
        rotation=math.nan,
        accuracy=1.0,
        drop=0.0,
        recall=math.nan,
        precision=math.nan,
        clean_removed=math.nan,
    )


@pytest.mark.parametrize("repeats", [1, 5])
def test_repeats_that_end_alike_narrow_no_interval(repeats: int) -> None:
    (row,) = rates(outcome(place, repeat, place > 0) for place in range(3) for repeat in range(repeats))
    assert (row["n"], row["base_class"]) == (3 * repeats, 2 * repeats)
    assert (row["low"], row["high"]) == pytest.approx(wilson(2, 3))
