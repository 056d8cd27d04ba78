"""A judge that compares the points of a neural fingerprint, second by second."""

import numpy as np
import torch

from jobs.common.passes import outputs
from jobs.copyright_attack.judges.base import Fingerprint, Judge, heard
from jobs.copyright_attack.judges.neural.encoder import RATE, SEGMENT, Encoder, segments
from jobs.copyright_attack.judges.neural.training import audible

BATCH = 128  # segments in a pass on a CPU
LEAST = 0.8  # mean cosine
AHEAD = 0.02  # of the runner-up


class NeuralJudge(Judge):
    """An encoder that was trained before."""

    name = "neural"
    title = "neural"
    unit = "mean cosine"
    rule = f"a mean cosine of at least {LEAST:g}, and {AHEAD:g} more than that of any other song"
    shortest = SEGMENT / RATE

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder.eval()

    def fingerprint(self, sound: np.ndarray, rate: int) -> Fingerprint:
        """points: float32 (segments, width); NaN where it is silent."""
        pieces = segments(torch.from_numpy(heard(sound, rate, RATE)))
        points = torch.full((len(pieces), self.encoder.width), torch.nan)
        loud = audible(pieces).nonzero()[:, 0]
        if len(loud):
            points[loud] = outputs(self.encoder, pieces[loud], on_cpu=BATCH, purpose="fingerprints")
        return {"points": points.numpy()}

    def scores(self, query: Fingerprint) -> np.ndarray:
        return np.array([alignment(query["points"], song["points"]) for song in self._songs.values()], np.float64)

    def accepts(self, score: float, runner_up: float) -> bool:
        return score >= LEAST and score >= runner_up + AHEAD


def alignment(query: np.ndarray, song: np.ndarray) -> float:
    """The largest mean cosine of points that meet, over all shifts at which the shorter one is inside the longer one.

    query, song: (segments, width) of length 1, NaN where it is silent: silence is 0 alike to anything. 0 if all means
    are negative, or there are no points.
    """
    if not len(query) or not len(song):
        return 0.0
    longer, shorter = (query, song) if len(query) > len(song) else (song, query)
    cosines = np.nan_to_num(longer @ shorter.T)  # (longer, shorter)
    shifts = len(longer) - len(shorter) + 1
    means = sum(cosines[place : place + shifts, place] for place in range(len(shorter))) / len(shorter)
    return max(float(np.max(means)), 0.0)
