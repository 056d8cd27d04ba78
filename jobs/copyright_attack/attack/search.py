"""Adam within a bound: the smallest loss of fingerprints by a change that is not larger than is allowed.

Many songs of one length are changed at the same time; none knows of the others.

Source: Saadatpanah et al. 2020, section 4, after Madry et al. 2018: a step of Adam, then a projection.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.audio.fingerprints.fingerprint import Fingerprint
from jobs.common.params import StudyParams
from jobs.common.training import rules
from jobs.copyright_attack.attack.bounds import AnyBound, Limit, LinfBound
from jobs.copyright_attack.attack.objectives import AnyObjective, Loss, RingObjective, prepared
from jobs.copyright_attack.attack.transformations import TransformationParams
from service.errors import FieldError, InputError

FULL = 32767  # of a sample of 16 bits
NEAR = 5e-3  # of a whole number: float32 holds those up to full scale with an error of 2e-3


class AttackParams(StudyParams):
    """An attack on fingerprints."""

    objective: AnyObjective = Field(RingObjective(), description="what is minimised")
    bound: AnyBound = Field(LinfBound(), description="what is not exceeded")
    steps: int = Field(100, ge=1, le=100_000, description="gradient steps")
    step_size: float = Field(0.2, gt=0, le=10, description="of Adam, in units of the bound")
    transformations: TransformationParams | None = Field(
        None, description="random changes that the attack is to survive; none: the sound as it is"
    )


@dataclass(frozen=True)
class Attacked:
    """What came of an attack."""

    sounds: Tensor
    """(batch, samples), as a WAV of 16 bits holds them"""
    losses: Tensor
    """(steps, batch): before each step"""


def attack(
    originals: Tensor,
    rate: int,
    fingerprints: Sequence[Fingerprint],
    params: AttackParams,
    epsilon: float,
    targets: Tensor | None = None,
    seed: int = 0,
) -> Attacked:
    """Change sounds so that fingerprints lose their peaks, by no more than a bound.

    originals: float32 (batch, samples) in [-1, 1]. epsilon: size of the bound, in its unit. targets: (batch, samples),
    songs to move toward, for remix. seed: of the transformations. InputError about sounds that cannot be attacked.
    """
    check_sounds(originals, rate, fingerprints)
    limit = params.bound.around(originals, rate, epsilon)
    losses_of = loss_of(originals, rate, fingerprints, params, targets, seed)
    return descend(originals, limit, losses_of, params.steps, params.step_size)


def loss_of(
    originals: Tensor,
    rate: int,
    fingerprints: Sequence[Fingerprint],
    params: AttackParams,
    targets: Tensor | None = None,
    seed: int = 0,
) -> Loss:
    """What `attack` minimises, with the same arguments: a new draw of the transformations at each call."""
    if (params.objective.kind == "remix") != (targets is not None):
        raise FieldError("targets", "be given for the objective remix, and for no other", targets is not None)
    transformations = params.transformations
    if transformations is None:
        return prepared(params.objective, fingerprints, originals, rate, targets)
    generator = torch.Generator().manual_seed(seed)

    def losses_of(changed: Tensor) -> Tensor:
        parts = []
        for _ in range(transformations.draws):
            draw = transformations.drawn(originals.shape[1], rate, generator)
            with torch.no_grad():
                at_original, at_target = draw(originals), None if targets is None else draw(targets)
            parts.append(prepared(params.objective, fingerprints, at_original, rate, at_target)(draw(changed)))
        return torch.stack(parts).mean(0)

    return losses_of


def descend(originals: Tensor, limit: Limit, losses_of: Loss, steps: int, step_size: float) -> Attacked:
    """Adam on a change of each sound, brought back into the bound and the range of samples after every step."""
    # in units of the bound: Adam's steps then have one size for all sounds, whatever the bound allows each
    unit = limit.scale.clamp(min=1e-9)
    moves = torch.zeros_like(originals, requires_grad=True)
    optimizer = rules.Adam([moves], step_size, fused=True)
    history = []
    for _ in range(steps):
        losses = losses_of(originals + moves * unit)
        (moves.grad,) = torch.autograd.grad(losses.sum(), [moves])
        history.append(losses.detach())
        optimizer.step()
        with torch.no_grad():
            moves.copy_(within(originals, limit.project(moves * unit)) / unit)
    changes = within(originals, limit.project(moves.detach() * unit))
    return Attacked(originals + quantised_changes(originals, changes), torch.stack(history))


def within(originals: Tensor, changes: Tensor) -> Tensor:
    """Changes that leave every sample in [-1, 1]."""
    return (originals + changes).clamp(-1, 1) - originals


def quantised_changes(originals: Tensor, changes: Tensor) -> Tensor:
    """Changes after which samples are whole numbers of 16 bits, rounded toward the original, so that no bound on
    samples is exceeded: by less than one unit where no whole number is within it.
    """
    starts, moves = originals.double() * FULL, changes.double() * FULL
    whole = (starts - starts.round()).abs() < NEAR
    starts = torch.where(whole, starts.round(), starts)
    ends = starts + moves
    ends = torch.where(whole & ((ends - ends.round()).abs() < NEAR), ends.round(), ends)
    rounded = torch.where(moves > 0, ends.floor(), ends.ceil())
    return (rounded / FULL).to(originals) - originals


def check_sounds(originals: Tensor, rate: int, fingerprints: Sequence[Fingerprint]) -> None:
    """InputError, in one sentence, about sounds that have nothing to attack."""
    if originals.ndim != 2 or not originals.is_floating_point() or not originals.numel():
        raise InputError(f"sounds must be float (batch, samples); they are {originals.dtype} {tuple(originals.shape)}")
    if not bool(originals.isfinite().all()):
        raise InputError("the samples of a sound must be finite numbers; some are not")
    if (largest := float(originals.abs().max())) > 1:
        raise InputError(f"the samples of a sound must be within [-1, 1]; the largest magnitude is {largest:.3g}")
    for fingerprint in fingerprints:
        seconds, needed = originals.shape[1] / rate, fingerprint.shortest / fingerprint.rate
        if seconds < needed:
            raise InputError(f"a sound must last at least {needed:.3g} seconds, a frame; it lasts {seconds:.3g}")
    if bool((silent := originals.abs().amax(1) < 1e-4).any()):
        place = int(silent.nonzero()[0])
        raise InputError(f"sound {place} is silent: it has no fingerprint")
