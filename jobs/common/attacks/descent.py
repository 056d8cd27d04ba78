"""A descent to the least perturbation: its schedule, where each sample is, and which samples no longer come nearer."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from jobs.common.attacks.apgd_steps import PerSample
from jobs.common.attacks.base import Goal, Search

PROGRESS = 1e-3
"""share of its distance by which a sample must come nearer, or it leaves"""


def patience(steps: int) -> int:
    """Steps within which a sample must come nearer."""
    return max(5, steps // 20)


def falling(number: int, scheduled: float, last: float) -> float:
    """From 1 at step 0 to `last` after so many scheduled steps, along a cosine."""
    return last + (1 - last) * (1 + math.cos(math.pi * min(1.0, number / scheduled))) / 2


@dataclass
class Descent(PerSample):
    """Where each sample is. points and images: (k, channels, height, width); the others: (k,)."""

    rows: Tensor
    goal: Goal
    images: Tensor
    points: Tensor
    noted: Tensor
    """the least norm when the sample last came nearer by a share of PROGRESS"""
    stalls: Tensor
    """steps since then"""

    @classmethod
    def begin(cls, search: Search) -> Self:
        """At the images of the samples that remain."""
        rows = search.remaining
        images = search.images[rows]
        zeros = images.new_zeros(len(rows))
        return cls(rows, search.goal[rows], images, images, zeros + torch.inf, zeros)

    def note(self, least: Tensor) -> None:
        """Count the steps without progress. least: (k,), the least norms so far."""
        nearer = least < (1 - PROGRESS) * self.noted
        self.noted = torch.where(nearer, least, self.noted)
        self.stalls = torch.where(nearer, 0, self.stalls + 1)

    def leave(self, patience: int, least: Tensor) -> None:
        """Drop the samples that have not come nearer in so many steps. least: (k,), inf: the goal was not reached."""
        remaining = (self.stalls < patience) | least.isinf()
        if not bool(remaining.all()):
            self.keep(remaining)
