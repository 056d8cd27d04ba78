"""A neural fingerprint that was trained against perturbations, and the attack by which it is measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.common.audio.resampling import resampled
from jobs.copyright_attack.judges.neural.encoder import RATE, Encoder, segments
from jobs.copyright_attack.judges.neural.judge import NeuralJudge

STEP = 2.5  # of the ascent, in epsilons over the number of steps (Madry et al. 2018)


class AdversarialNeuralJudge(NeuralJudge):
    name = "neural_adversarial"
    title = "neural, adversarial"


def white_box(encoder: Encoder, sound: Tensor, epsilon: float, steps: int, seed: int) -> Tensor:
    """A sound whose points are as unlike those of the original as can be found: L-inf, signed steps, best of all steps.

    sound: float (samples,) at 8 kHz in [-1, 1], at least a second. seed: of the place in the ball where it begins.
    Returns another in [-1, 1].
    """
    lowest, highest = (sound - epsilon).clamp(min=-1), (sound + epsilon).clamp(max=1)
    with torch.no_grad():
        original = encoder(segments(sound))
    generator = torch.Generator().manual_seed(seed)
    noise = epsilon * (2 * torch.rand(sound.shape, generator=generator) - 1)
    changed = (sound + noise).clamp(lowest, highest)
    least, best = torch.inf, changed
    for step in range(steps + 1):
        changed.requires_grad_()
        likeness = (encoder(segments(changed)) * original).sum(1).mean()
        if (value := likeness.item()) < least:
            least, best = value, changed.detach()
        if step < steps:
            (gradient,) = torch.autograd.grad(likeness, changed)
            changed = (changed.detach() - STEP * epsilon / steps * gradient.sign()).clamp(lowest, highest)
    return best


def white_box_cell(cell: dict[str, Any], shared: Any) -> np.ndarray:
    """The scores of one excerpt, attacked through the judge's own network: (songs,)."""
    judges, sounds, rate, steps = shared
    judge: NeuralJudge = judges[cell["judge"]]
    sound = resampled(torch.from_numpy(np.array(sounds[cell["sound"]])), rate, RATE).clamp(-1, 1)
    attacked = white_box(judge.encoder, sound, cell["epsilon"], steps, cell["seed"])
    return judge.scores(judge.query(attacked.numpy(), RATE))


def networks_of(judges: Mapping[str, Any]) -> dict[str, NeuralJudge]:
    """Those judges that are neural."""
    return {name: judge for name, judge in judges.items() if isinstance(judge, NeuralJudge)}


def white_box_cells(
    judges: Sequence[str], epsilons: Sequence[float], sounds: int, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """One for each judge, bound and sound. seeds: one for each sound."""
    return [
        {"judge": judge, "epsilon": epsilon, "sound": sound, "seed": seeds[sound]}
        for judge in judges
        for epsilon in epsilons
        for sound in range(sounds)
    ]
