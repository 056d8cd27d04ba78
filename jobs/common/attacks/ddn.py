"""DDN: the direction of a perturbation and its L2 norm, decoupled.

Source: Rony et al. 2019 ("Decoupling direction and norm for efficient gradient-based L2 adversarial attacks and
defenses"), algorithm 1.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.attacks.ball import Norm, ascent_direction
from jobs.common.attacks.projections import TINY, broadcast
from jobs.common.attacks.shrinking import OnBall, Shrinking


class DDN(Shrinking):
    """A step in the direction of the cross entropy's gradient, then out or in to the sphere.

    In the paper the radius begins at 1 and always changes by a share of 0.05, and steps fall from 1 to 0.01.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("L2",)

    kind: Literal["ddn"] = Field("ddn", description="decoupled direction and norm: looks for the least L2 perturbation")

    def move(self, descent: OnBall, gradient: Tensor, length: float, norm: Norm) -> Tensor:
        radii = broadcast(descent.radii, gradient)
        differences = torch.addcmul(descent.points - descent.images, ascent_direction(gradient, "L2"), radii * length)
        norms = broadcast(torch.linalg.vector_norm(differences.flatten(1), dim=1), differences)
        return differences.mul_(radii / norms.clamp(min=TINY)).add_(descent.images).clamp_(0, 1)
