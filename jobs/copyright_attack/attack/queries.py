"""An attack that only asks: the score that a judge gives is lowered by random search, without a gradient.

Source: Andriushchenko et al. 2020, "Square Attack": changes on the border of the L-infinity ball, in windows that
shrink, each kept if it helps. Here a window is a stretch of time, filled with a square wave of a random frequency.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.params import StudyParams
from jobs.copyright_attack.attack.search import quantised_changes, within

LOWEST, HIGHEST = 30.0, 4000.0  # hertz of the waves


class QueryParams(StudyParams):
    """A random search against a judge."""

    epsilon: float = Field(0.05, gt=0, le=1, description="the most that a sample changes, in units of full scale")
    queries: int = Field(200, ge=1, le=1_000_000, description="questions to the judge at most, for each song")
    window: float = Field(0.5, gt=0, le=1, description="the longest stretch that a question changes, as a share")


@dataclass(frozen=True)
class Queried:
    """What came of the questions about one song."""

    sound: Tensor
    """(samples,), as a WAV of 16 bits holds it"""
    scores: Tensor
    """(queries made,): the least score so far, after each question"""
    successful: bool


def query(
    original: Tensor, rate: int, judge: Callable[[Tensor], tuple[float, bool]], params: QueryParams, seed: int
) -> Queried:
    """Lower what a judge says until it no longer names the song, or the questions are used up.

    original: (samples,) in [-1, 1]. judge: of a sound (samples,), the score of the song, and whether it is named.
    """
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (len(original),), generator=generator).to(original) * 2 - 1
    change, best, named = params.epsilon * signs, float("inf"), True
    scores: list[float] = []
    proposed = change
    while named and len(scores) < params.queries:
        sound = _sound(original, proposed)
        score, still_named = judge(sound)
        if score < best or not still_named:
            change, best, named = proposed, score, still_named
        scores.append(best)
        share = params.window * (1 - len(scores) / params.queries) + 0.01
        proposed = _with_window(change, share, rate, params.epsilon, generator)
    return Queried(_sound(original, change), torch.tensor(scores), not named)


def _sound(original: Tensor, change: Tensor) -> Tensor:
    return original + quantised_changes(original, within(original, change))


def _with_window(change: Tensor, share: float, rate: int, epsilon: float, generator: torch.Generator) -> Tensor:
    """The change with a square wave in a window of at most a share of it."""
    where, width, pitch, phase = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    length = max(1, round(width * min(share, 1) * len(change)))
    first = round(where * (len(change) - length))
    hertz = LOWEST * (min(HIGHEST, rate / 2) / LOWEST) ** pitch  # equally likely in octaves
    turns = torch.arange(length, dtype=torch.float64) * hertz / rate + phase
    changed = change.clone()
    changed[first : first + length] = epsilon * (1 - 2 * (turns % 1 >= 0.5)).to(change)
    return changed
