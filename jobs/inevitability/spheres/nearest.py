"""The search for the nearest error on a sphere: an upper limit of its distance."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

STEP = 0.05
"""radians of a step towards an error"""
HALVINGS = 30
"""of an interval of angles, after which it is as short as float32 tells apart"""
STEP_UNITS = 2 * 4 + HALVINGS
"""forward passes for a point, a backward one being worth two, in a step towards an error and one to a nearer error"""


def nearest_errors(
    network: Callable[[Tensor], Tensor], points: Tensor, label: int, steps: int, generator: torch.Generator
) -> Tensor:
    """The angle of each point to the nearest error that was found on its sphere, in radians; infinity: to none.

    points: float32 (count, n), of one sphere around 0. label: of the sphere, 0 or 1; an error is a point with the other
    one. First `steps` steps of steepest descent of the margin along the sphere, the first at random where the margin is
    flat, until there is an error; then as many searches along great circles from the point itself, each in the
    direction in which the margin falls most at the nearest error so far. Returns float64 (count,); 0 for points that
    are errors themselves.
    """
    radius = float(points[0].norm())

    def margin(where: Tensor) -> Tensor:
        """Below or at 0: an error. (count, n), unit vectors -> (count,)."""
        logits = network(where * radius)
        return logits[:, label] - logits[:, 1 - label]

    starts = points / points.norm(dim=1, keepdim=True)
    best = torch.where(_errors(margin, starts), 0.0, torch.inf).double()
    noise = torch.randn(starts.shape, generator=generator, device=generator.device).to(starts)
    downhill = _tangent(-_gradient(margin, starts), starts)
    downhill = torch.where(downhill.any(1, keepdim=True), downhill, _tangent(noise, starts))
    current = along(starts, downhill, torch.full_like(best, STEP))
    direction = torch.zeros_like(starts)
    for _ in range(steps):
        hit = _errors(margin, current) & torch.isinf(best)
        best = torch.where(hit, _angle(starts, current), best)
        direction = torch.where(hit[:, None], _tangent(current, starts), direction)
        if bool(best.isfinite().all()):
            break
        downhill = _tangent(-_gradient(margin, current), current)
        current = along(current, downhill, torch.full_like(best, STEP))
    open_ = best.isfinite() & (best > 0)
    best = _shortened(margin, starts, direction, best, open_)
    for _ in range(steps):
        nearest = along(starts, direction, torch.where(open_, best, 0.0))
        tried = _tangent(-_gradient(margin, nearest), starts)
        better = open_ & _errors(margin, along(starts, tried, torch.where(open_, best, 0.0)))
        if not bool(better.any()):
            break
        direction = torch.where(better[:, None], tried, direction)
        best = _shortened(margin, starts, direction, best, better)
    return best


def along(starts: Tensor, directions: Tensor, angles: Tensor) -> Tensor:
    """Where great circles of the unit sphere lead: unit vectors, unit tangents there, radians -> unit vectors."""
    moved = angles.cos()[:, None] * starts + angles.sin()[:, None] * directions
    result: Tensor = (moved / moved.norm(dim=1, keepdim=True)).to(starts)
    return result


def _shortened(
    margin: Callable[[Tensor], Tensor], starts: Tensor, directions: Tensor, angles: Tensor, chosen: Tensor
) -> Tensor:
    """Smaller angles in the same directions at which there is an error still, by halving intervals."""
    low, high = torch.zeros_like(angles), torch.where(chosen, angles, 0.0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        error = _errors(margin, along(starts, directions, middle))
        low, high = torch.where(error, low, middle), torch.where(error, middle, high)
    return torch.where(chosen, high, angles)


@torch.no_grad()
def _errors(margin: Callable[[Tensor], Tensor], where: Tensor) -> Tensor:
    return margin(where) <= 0


def _gradient(margin: Callable[[Tensor], Tensor], where: Tensor) -> Tensor:
    where = where.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(margin(where).sum(), where)
    return gradient


def _tangent(vectors: Tensor, starts: Tensor) -> Tensor:
    """Their unit directions along the sphere; 0 where they have none."""
    flat = vectors - (vectors * starts).sum(1, keepdim=True) * starts
    lengths: Tensor = flat.norm(dim=1, keepdim=True)
    return flat / lengths.clamp_min(torch.finfo(flat.dtype).tiny)


def _angle(first: Tensor, second: Tensor) -> Tensor:
    """Between unit vectors, also small ones exactly: 2 asin(|a - b| / 2). float64 (count,)."""
    chord = (first.double() - second.double()).norm(dim=1)
    return 2 * torch.asin((chord / 2).clamp(max=1.0)).clamp(max=math.pi)
