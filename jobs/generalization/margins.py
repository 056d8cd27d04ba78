"""How far points of the plane are from the decision boundary: the margin that a network leaves between them.

Source: Huang et al. 2020, section 6 and figure 8.
"""

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from jobs.common.data.images.plane_points import SHAPE
from jobs.common.params import StudyParams
from jobs.common.passes import outputs

NEAREST = 1e-5  # of the frame's side, where a ray begins
HALVINGS = 20
PART = 1 << 16  # points at once on a CPU
MOST_PLACES = 1 << 23  # held at a time, of all rays of some points


class MarginParams(StudyParams):
    """How the distance of each training point to the decision boundary is measured, for points of the plane."""

    angles: int = Field(72, ge=4, le=100_000, description="rays from each point, evenly around it")
    radii: int = Field(60, ge=2, le=100_000, description="places on a ray whose class is looked up")


def margins(network: nn.Module, points: Tensor, params: MarginParams) -> Tensor:
    """The distance of each point to the nearest place with another class than its own: float64 (n,), on the CPU.

    network: in evaluation mode. points: (n, 2, 1, 1). Distances are in units of the frame's side, and infinite where no
    ray meets another class. On each ray the first place of another class is bracketed, then halved: what lies between
    two places of one class is not seen, so that distances are upper bounds.
    """
    together = max(1, MOST_PLACES // (params.angles * params.radii))
    return torch.cat([_margins(network, some, params) for some in torch.split(points, together)])


def _margins(network: nn.Module, points: Tensor, params: MarginParams) -> Tensor:
    """Of a few points, all places of whose rays fit into memory."""
    turns = torch.arange(params.angles, dtype=torch.float64) * 2 * math.pi / params.angles
    rays = torch.stack([turns.cos(), turns.sin()], dim=1)  # (angles, 2)
    radii = torch.logspace(math.log10(NEAREST), math.log10(math.sqrt(2)), params.radii, dtype=torch.float64)
    starts = points.double().flatten(1)  # (n, 2)
    own = _classes(network, starts)
    places = starts[:, None, None] + radii[None, None, :, None] * rays[None, :, None]  # (n, angles, radii, 2)
    other = _classes(network, places.view(-1, 2)).view(places.shape[:3]) != own[:, None, None]
    first = torch.where(other.any(2), other.int().argmax(2), -1)  # (n, angles)
    crossed = first >= 0
    low = torch.where(first > 0, radii[(first - 1).clamp(min=0)], 0.0)
    high = torch.where(crossed, radii[first.clamp(min=0)], torch.inf)
    chosen = crossed.nonzero()
    near, far = low[crossed], high[crossed]
    for _ in range(HALVINGS):
        middle = (near + far) / 2
        at = starts[chosen[:, 0]] + middle[:, None] * rays[chosen[:, 1]]
        beyond = _classes(network, at) != own[chosen[:, 0]]
        near, far = torch.where(beyond, near, middle), torch.where(beyond, middle, far)
    high[crossed] = far
    nearest: Tensor = high.min(1).values
    return nearest


def _classes(network: nn.Module, places: Tensor) -> Tensor:
    """What the network takes places for, int64 (k,). places: float64 (k, 2)."""
    return outputs(network, places.float().view(-1, *SHAPE), lambda logits: logits.argmax(1), on_cpu=PART)
