"""Which song judges name, and an ensemble of them: a song is named if enough of them name it."""

from collections.abc import Mapping

import numpy as np

NONE = -1  # no song is named


def named(scores: np.ndarray, threshold: float) -> np.ndarray:
    """The place of the best song of each sound, or NONE if its score is not above the threshold: int64 (sounds,).

    scores: (sounds, songs). A row of NaN, of a cell that failed, names none.
    """
    unknown = np.isnan(scores).any(1)
    best = np.where(unknown[:, None], -np.inf, scores)
    return np.where(best.max(1) > threshold, best.argmax(1), NONE)


def voted(names: Mapping[str, np.ndarray], needed: int) -> np.ndarray:
    """The song that most judges name, or NONE if fewer than `needed` do: int64 (sounds,). Of equal counts the first.

    names: of `named`, by judge.
    """
    table = np.stack(list(names.values()))  # (judges, sounds)
    songs = max(int(table.max(initial=NONE)) + 1, 1)
    votes = np.stack([(table == song).sum(0) for song in range(songs)])  # (songs, sounds)
    return np.where(votes.max(0) >= needed, votes.argmax(0), NONE)
