"""How far it is along rays to where the loss first reaches a cut: a scan for a bracket, then bisection.

All rays are followed together, so that one pass over the data serves many of them.

Source: Huang et al. 2020, "Understanding Generalization through Visualizations", section 5, where the radius is the
sample of a ray whose loss is closest to the cut; here it is the first crossing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.params import StudyParams
from service.errors import FieldError

Along = Callable[[Tensor, Tensor], Tensor]
"""rays, int64 (k,), and distances, float64 (k,), which are positive -> the loss there, float64 (k,)"""

HALVINGS = 64  # of a bracket at most: a radius of 1e-16 of its bracket is as good as none


class ScanParams(StudyParams):
    """Where the loss along a ray is looked at before its radius is bisected.

    What the loss does between two neighbours without being past the cut at one of them is not noticed.
    """

    steps: int = Field(25, ge=2, le=10_000, description="distances, in geometric progression up to the cap")
    smallest: float = Field(1e-3, gt=0, lt=1, description="the first of them, as a share of the cap")
    tolerance: float = Field(1e-3, gt=1e-12, lt=1, description="of a radius, relative")

    def shares(self) -> Tensor:
        """The distances in units of the cap: float64 (steps,), the last one 1."""
        exponents = torch.linspace(1, 0, self.steps, dtype=torch.float64)
        return torch.tensor(self.smallest, dtype=torch.float64) ** exponents


@dataclass(frozen=True)
class Radii:
    """What was measured along rays, by cut. Tensors on the CPU."""

    radius: Tensor
    """float64 (cuts, rays): the first distance at which the loss is at least the cut; the cap if there is none"""
    censored: Tensor
    """bool (cuts, rays): the loss stays below the cut as far as the cap"""
    crossings: Tensor
    """int64 (cuts, rays): how often the loss passes the cut, up or down; more than one: the ray comes back below it"""
    not_finite: Tensor
    """int64 (rays,): distances of the scan at which the loss is NaN or infinite, which counts as past the cut"""


def radii(loss: Along, caps: Tensor, cuts: Sequence[float], scan: ScanParams) -> Radii:
    """The radius of each ray for each cut.

    caps: float64 (rays,), how far each ray is followed, on the device of the computation. cuts: above the loss at the
    centre, which the caller checks (`refused_cut`).
    """
    rays = torch.arange(len(caps), device=caps.device)
    ladder = caps * scan.shares().to(caps.device)[:, None]  # (steps, rays)
    losses = torch.stack([loss(rays, distances) for distances in ladder])
    bounds = torch.tensor(cuts, dtype=torch.float64, device=caps.device)
    past = ~(losses < bounds[:, None, None])  # (cuts, steps, rays); NaN is past any cut
    inside = torch.zeros_like(past[:, :1])
    crossings = (torch.cat([inside, past[:, :-1]], dim=1) != past).sum(1)
    censored = ~past.any(1)
    first = past.int().argmax(1)  # (cuts, rays)
    steps = torch.cat([torch.zeros_like(caps)[None], ladder])  # (steps + 1, rays), from the centre on
    lower, upper = steps.gather(0, first), steps.gather(0, first + 1)
    radius = torch.where(censored, caps, _bisected(loss, lower, upper, ~censored, bounds, scan.tolerance))
    return Radii(radius.cpu(), censored.cpu(), crossings.cpu(), (~torch.isfinite(losses)).sum(0).cpu())


def refused_cut(cut: float, centre: float, name: str) -> FieldError | None:
    """What is wrong with a cut that the centre has reached: a basin has its centre inside. None if it has not.

    centre: what is cut, at the weights of the network of this name.
    """
    if centre < cut:
        return None
    requirement = f"be above {centre:.4g}, the loss of {name} at its own weights"
    return FieldError("basins.cuts", requirement, cut, hint="set cuts_from to centre, and cuts are counted from there")


def _bisected(loss: Along, lower: Tensor, upper: Tensor, bracketed: Tensor, cuts: Tensor, tolerance: float) -> Tensor:
    """The middle of each bracket (cuts, rays), when it is narrow enough. The loss is below the cut at its lower end."""
    lower, upper = lower.clone(), upper.clone()
    for _ in range(HALVINGS):
        open_ = bracketed & (upper - lower > tolerance * upper)
        cut, ray = open_.nonzero(as_tuple=True)
        if not len(ray):
            break
        middle = (lower[cut, ray] + upper[cut, ray]) / 2
        below = loss(ray, middle) < cuts[cut]
        lower[cut[below], ray[below]] = middle[below]
        upper[cut[~below], ray[~below]] = middle[~below]
    return (lower + upper) / 2
