"""The attack of Carlini & Wagner 2017 in L2: the nearest image of another class, found by a search over a trade-off."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.attacks.ball import Norm
from jobs.common.attacks.base import Attack, Cost, Goal, Loss, Search, kept
from jobs.common.attacks.losses import margin
from jobs.common.attacks.projections import broadcast

INSIDE = 1 - 1e-6  # pixels of 0 and 1 begin this far inside of the tanh, where its slope is not zero, so they can move
LEAST_PROGRESS = 0.9999  # a sample ends its descent whose loss has fallen by less since the last tenth of the steps
SATURATED = 1e-3  # of dx'/dw: while it is below for all pixels, as in black-and-white images, the loss cannot fall yet
FACTOR = 10  # by which the trade-off grows while it fails
LARGEST = 1e10  # of the trade-offs, as in the code released: float32 ends not far beyond


class CarliniWagner(Attack):
    """Smallest L2 perturbation. It succeeds if this is no longer than epsilon; all that it finds are reported.

    Minimises ||x' - x||^2 + c max(kappa - margin(x'), 0) over w, x' = (tanh w + 1) / 2, by Adam, for each sample by
    itself; c grows tenfold until it succeeds, then its interval is halved. Source: Carlini & Wagner 2017, sections V
    and VI, and their code for the start, the growth of c and the early end.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("L2",)

    kind: Literal["carlini_wagner"] = Field("carlini_wagner", description="the smallest L2 perturbation, by Adam")
    steps: int = Field(1000, ge=1, le=100_000, description="steps for each trade-off, at most")
    binary_search_steps: int = Field(9, ge=1, le=50, description="trade-offs that are tried")
    step_size: float = Field(0.01, gt=0, le=10, description="learning rate of Adam")
    initial_constant: float = Field(
        1e-3, gt=0, le=LARGEST, description="first weight of the margin against the distance"
    )
    confidence: float = Field(0.0, ge=0, le=1e6, description="margin by which the logit of the goal must win")

    @property
    def finds_least(self) -> bool:
        return True

    def cost(self, norm: Norm, classes: int, targeted: bool) -> Cost:
        return Cost(forward=self.steps, backward=self.steps).times(self.binary_search_steps)

    def attack(self, search: Search, generator: torch.Generator) -> None:
        rows = search.remaining
        if not len(rows):
            return
        images = search.images[rows]
        constants = images.new_full((len(rows),), self.initial_constant)
        lower, upper = torch.zeros_like(constants), torch.full_like(constants, torch.inf)
        best, best_norms = images.clone(), torch.full_like(constants, torch.inf)
        for _ in range(self.binary_search_steps):
            points, norms = self._descend(search, rows, images, constants)
            reached, closer = norms.isfinite(), norms < best_norms
            best, best_norms = torch.where(broadcast(closer, images), points, best), torch.minimum(norms, best_norms)
            lower, upper = torch.where(reached, lower, constants), torch.where(reached, constants, upper)
            grown = (constants * FACTOR).clamp(max=LARGEST)
            constants = torch.where(upper.isinf(), grown, (lower + upper) / 2)
        reached = best_norms.isfinite()
        search.record_minimum(rows[reached], best[reached])

    def _descend(self, search: Search, rows: Tensor, images: Tensor, constants: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest points at the goal on the way down, and their norms, inf where none was met."""
        best, best_norms = images.clone(), torch.full_like(constants, torch.inf)
        places = torch.arange(len(rows), device=rows.device)  # in best, of the samples that still descend
        start = torch.atanh((2 * images - 1) * INSIDE)
        moves, velocity, scale = torch.zeros_like(start), torch.zeros_like(start), torch.zeros_like(start)
        checked = torch.full_like(constants, torch.inf)  # the losses at the last tenth
        for number in range(self.steps):
            half = torch.tanh(start + moves) / 2
            points, slopes = 0.5 + half, 0.5 - 2 * half.square()  # slopes: dx'/dw
            logits, losses, gradient = search.gradient(rows, points, self._hinge(constants))
            differences = points - images
            norms = search.ball.norms(differences)
            closer = (margin(logits, search.goal[rows]) > self.confidence) & (norms < best_norms[places])
            if bool(closer.any()):
                best[places[closer]], best_norms[places[closer]] = points[closer], norms[closer]

            descent = (2 * differences - gradient) * slopes
            moves, velocity, scale = adam(moves, descent, velocity, scale, number + 1, self.step_size)

            if number % max(1, -(-self.steps // 10)) == 0:
                total = norms.square() - losses
                falls = (total <= LEAST_PROGRESS * checked) | (slopes.flatten(1).amax(1) < SATURATED)
                checked = total
                states = (rows, places, images, start, moves, velocity, scale, constants, checked)
                rows, places, images, start, moves, velocity, scale, constants, checked = kept(falls, *states)
                if not len(rows):
                    break
        return best, best_norms

    def _hinge(self, constants: Tensor) -> Loss:
        def hinge(logits: Tensor, goal: Goal) -> Tensor:
            """How far below the wanted margin, weighted, as something to maximise: (batch,)."""
            return constants * (margin(logits, goal) - self.confidence).clamp(max=0)

        return hinge


def adam(
    values: Tensor, gradient: Tensor, velocity: Tensor, scale: Tensor, step: int, learning_rate: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of Adam on a state of one's own, whose samples may leave: the values and both moments afterwards.

    Source: Kingma & Ba 2015, algorithm 1, with the paper's constants.
    """
    velocity = torch.lerp(velocity, gradient, 0.1)
    scale = torch.lerp(scale, gradient.square(), 0.001)
    upward = velocity / (1 - 0.9**step)
    return values - learning_rate * upward / ((scale / (1 - 0.999**step)).sqrt() + 1e-8), velocity, scale
