"""DDN: the direction of a perturbation and its L2 norm, decoupled.

Source: Rony et al. 2019 ("Decoupling direction and norm for efficient gradient-based L2 adversarial attacks and
defenses"), algorithm 1.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.attacks.ball import Norm
from jobs.common.attacks.projections import TINY
from jobs.common.attacks.shrinking import OnBall, Shrinking, Step, along_gradient, scaled


class DDN(Shrinking):
    """A step in the direction of the cross entropy's gradient, then out or in to the sphere.

    In the paper the radius begins at 1 and always changes by a share of 0.05, and steps fall from 1 to 0.01.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("L2",)

    kind: Literal["ddn"] = Field("ddn", description="decoupled direction and norm: looks for the least L2 perturbation")

    def move(self, descent: OnBall, step: Step, norm: Norm) -> Tensor:
        moved = along_gradient(descent, step)
        norms: Tensor = torch.linalg.vector_norm(moved.flatten(1), dim=1)
        return scaled(descent.images, moved, descent.radii / norms.clamp(min=TINY))
