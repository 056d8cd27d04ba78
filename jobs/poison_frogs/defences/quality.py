"""How well a filter tells poisons from clean points."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from service.errors import InputError


@dataclass(frozen=True)
class Quality:
    """How well a filter tells poisons from clean points."""

    precision: float
    """share of what is dropped that is poison; NaN if nothing is dropped"""
    recall: float
    """share of the poisons that are dropped; NaN if there are none"""
    clean_removed: float
    """share of the clean points that are dropped; NaN if there are none"""
    matthews: float
    """correlation of dropped with poison, in [-1, 1]; 0 if all or none are dropped, or are poisons"""


def quality(keep: Tensor, poisoned: Tensor) -> Quality:
    """keep, poisoned: bool (N,), what a filter keeps and what the poisons are."""
    if keep.shape != poisoned.shape or keep.dtype != torch.bool or poisoned.dtype != torch.bool or not len(keep):
        shapes = f"{keep.dtype} {tuple(keep.shape)} and {poisoned.dtype} {tuple(poisoned.shape)}"
        raise InputError(f"what is kept and what is poisoned must be bool (N,) of the same points, not {shapes}")
    hits, false = int((~keep & poisoned).sum()), int((~keep & ~poisoned).sum())
    misses, clean = int((keep & poisoned).sum()), int((keep & ~poisoned).sum())
    margins = (hits + false) * (hits + misses) * (clean + false) * (clean + misses)
    return Quality(
        precision=_share(hits, hits + false),
        recall=_share(hits, hits + misses),
        clean_removed=_share(false, false + clean),
        matthews=(hits * clean - false * misses) / math.sqrt(margins) if margins else 0.0,
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
