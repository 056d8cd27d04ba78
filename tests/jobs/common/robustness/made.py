"""Outcomes made by hand."""

import torch

from jobs.common.attacks import Ball
from jobs.common.robustness.outcomes import Outcome


def outcome(
    name: str, robust: list[int], epsilon: float = 0.1, kind: str = "pgd", warnings: tuple[str, ...] = ()
) -> Outcome:
    """What an attack did that was tried on all images and succeeded on those without a 1."""
    still = torch.tensor(robust).bool()
    work = torch.full(still.shape, 7)
    distances = torch.where(still, torch.inf, epsilon)
    attacked = torch.ones_like(still)
    return Outcome(name, kind, Ball("Linf", epsilon), attacked, still, ~attacked, distances, work, work, 1.0, warnings)
