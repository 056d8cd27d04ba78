"""Training of the neural fingerprint: seconds of songs and distorted copies of them, drawn to each other."""

from collections.abc import Callable

import torch
from torch import Tensor

from jobs.common.audio.levels import QUIET, rms
from jobs.common.audio.resampling import resampled
from jobs.common.data.music.base import Songs
from jobs.common.training import loop
from jobs.common.training.averages import Term
from jobs.common.training.engine import Batch, Engine
from jobs.copyright_attack.judges.neural.encoder import HOP, RATE, SEGMENT, Encoder, contrastive_loss
from jobs.copyright_attack.judges.neural.params import AdversarialParams, NeuralParams
from service.errors import InputError
from service.run import Run

STEP = 2.5  # of the ascent, in epsilons over the number of steps (Madry et al. 2018)


def trained(run: Run, params: NeuralParams, adversarial: AdversarialParams | None, name: str) -> Encoder:
    """A network trained from its first weights on, on the CPU; for `run.reserved`. name: of its phase and metrics.

    InputError if there is no music, or half precision without a GPU.
    """
    songs, _ = params.music.load()
    seed = run.seed_for(name, "weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Encoder().to(run.device)
    params.engine.check(run.device)
    engine = Engine(encoder, params.engine)

    def seed_for(index: int) -> int:
        return run.seed_for(name, "batch", index)

    step = ContrastiveStep(engine, adversarial)
    plan = loop.Plan(
        updates=params.updates,
        rates=params.optimizer,
        report_every=max(1, params.updates // 10),
        seed=lambda update: run.seed_for(name, "start", update),
        phase=name.replace("_", "-"),
        prefix=f"{name}_",
        first_step=run.step,
    )
    optimizer = params.optimizer.build([(1.0, list(encoder.parameters()))])
    loop.train(step, optimizer, Pairs(songs, params, seed_for), plan, run)
    return encoder.cpu()


class Pairs:
    """Seconds of songs and distorted copies: float (pairs, 8000) each, at 8 kHz. Batch i depends on i alone."""

    def __init__(self, songs: Songs, params: NeuralParams, seed: Callable[[int], int]) -> None:
        """InputError if no song is as long as a second and what copies are moved by."""
        self._params, self._seed = params, seed
        self._margin = round(params.shift * RATE)
        sounds = [resampled(sound, songs.rate, RATE) for sound in songs.sounds]
        self._sounds = [sound for sound in sounds if len(sound) > SEGMENT + 2 * self._margin + HOP]
        if len(self._sounds) < 2:
            raise InputError("judges.neural.music: at least two songs must be longer than two seconds")

    def batch(self, index: int) -> Batch:
        generator = torch.Generator().manual_seed(self._seed(index))
        params = self._params
        rounds = -(-params.pairs // len(self._sounds))
        order = torch.cat([torch.randperm(len(self._sounds), generator=generator) for _ in range(rounds)])
        first, second = [], []
        for song in order[: params.pairs].tolist():
            sound = self._sounds[song]
            last = len(sound) - SEGMENT - self._margin
            start = int(torch.randint(self._margin, last + 1, (), generator=generator))
            moved = start + int(torch.randint(-self._margin, self._margin + 1, (), generator=generator))
            first.append(sound[start : start + SEGMENT])
            second.append(sound[moved : moved + SEGMENT])
        copies = params.distortion.apply(torch.stack(second), RATE, generator)
        low, high = params.noise
        ratio = low + (high - low) * torch.rand(len(copies), 1, generator=generator)
        noise = torch.randn(copies.shape, generator=generator) * rms(copies) * 10 ** (-ratio / 20)
        return torch.stack(first), copies + noise


class ContrastiveStep(loop.Step):
    """An update by NT-Xent; the copies may be made as unlike as a bound allows before."""

    def __init__(self, engine: Engine, adversarial: AdversarialParams | None) -> None:
        super().__init__(engine)
        self._adversarial = adversarial

    def backward(self, batch: Batch, update: int) -> dict[str, Term]:
        first, second = batch
        if self._adversarial is not None:
            second = unlike(self.engine, first, second, self._adversarial)
        loss = contrastive_loss(self.engine(first), self.engine(second))
        self.engine.scaled(loss).backward()  # type: ignore[no-untyped-call]
        return {"loss": Term(loss.detach(), 1.0)}


def unlike(encoder: Callable[[Tensor], Tensor], first: Tensor, second: Tensor, params: AdversarialParams) -> Tensor:
    """`second` within epsilon of what it was, where its points are less alike to their partners: L-inf, signed steps.

    first, second: float (pairs, 8000). It begins at a random place of the ball, drawn by torch's own generator.
    """
    with torch.no_grad():
        partners = encoder(first)
    change = torch.empty_like(second).uniform_(-params.epsilon, params.epsilon)
    for _ in range(params.steps):
        change.requires_grad_()
        loss = contrastive_loss(partners, encoder(second + change))
        (gradient,) = torch.autograd.grad(loss, change)
        moved = change.detach() + STEP * params.epsilon / params.steps * gradient.sign()
        change = moved.clamp(-params.epsilon, params.epsilon)
    return second + change.detach()


def audible(pieces: Tensor) -> Tensor:
    """Which segments are more than silence: bool (n,). pieces: (n, 8000)."""
    return rms(pieces)[:, 0] > max(QUIET, 1e-4)
