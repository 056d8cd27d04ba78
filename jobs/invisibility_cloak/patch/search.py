"""The search for a patch that works on every image and against one detector or several. It trains no detector.

    each iteration:  a batch of images -> the boxes of the class -> the patch on each of them -> the priors of every
                     detector -> one step of Adam on the pixels of the patch -> cut off at 0 and 1

What is random about an iteration depends on the seed and on its number alone, so that a search that goes on from its
state ends with the same patch bit for bit.

Source: Wu et al. 2020, "Making an Invisibility Cloak", sections 3 and 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from jobs.common.data.batches import Epochs
from jobs.common.data.boxes.base import BoxSet
from jobs.common.detection.base import Detector, weights_hash
from jobs.common.detection.folding import folded
from jobs.common.detection.windows import WindowedDetector, windowed
from jobs.common.training import rules
from jobs.common.training.optimizers import restore_moments, set_rate
from jobs.invisibility_cloak.patch.objectives import TargetedObjective
from jobs.invisibility_cloak.patch.placement import windows_of
from jobs.invisibility_cloak.patch.rendering import render
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from jobs.invisibility_cloak.patch.search_params import FixedWeights, SearchParams
from jobs.invisibility_cloak.patch.targets import Targets, targets_of
from jobs.invisibility_cloak.physical.rephotograph import Reproduction
from service.errors import InputError

KEPT = 1 << 30  # bytes of images
EXPECTED = 16  # images whose boxes tell how large windows are
LOOK_EVERY = 25  # iterations after which it is looked whether all was finite: looking waits for a GPU


@dataclass(frozen=True)
class Problem:
    """What a patch is to do: hide a class on these images from these detectors."""

    detectors: Mapping[str, Detector]
    """by name, at least one"""
    data: BoxSet
    places: Tensor
    """int64 (images,): images of the data that have boxes to draw on"""
    hidden: str
    """name of the class"""
    rendering: RenderingParams
    reproduction: Reproduction = Reproduction()

    def targets(self, places: Tensor, images: Tensor, generator: torch.Generator | None) -> Targets:
        """What the patch is drawn on in some images of the data. generator: of the choice among too many."""
        return targets_of(
            [self.data.boxes(place) for place in places.tolist()],
            self.data.classes.index(self.hidden),
            (images.shape[2], images.shape[3]),
            self.rendering.smallest,
            self.rendering.most_in_search,
            generator,
        )


class KeptImages:
    """Images of the data of a problem, which are read once and not in every epoch, if they are few."""

    def __init__(self, problem: Problem) -> None:
        self._data, self._count = problem.data, len(problem.places)
        self._kept: dict[int, Tensor] = {}

    def at(self, places: Tensor) -> Tensor:
        """float32 (some, 3, height, width). places: int64 (some,)."""
        if all(place in self._kept for place in places.tolist()):
            return torch.stack([self._kept[place] for place in places.tolist()])
        images = self._data.images(places)
        if images[0].nbytes * self._count <= KEPT:
            self._kept.update(zip(places.tolist(), images, strict=True))
        return images


@dataclass
class State:
    """How far a search is."""

    patch: Tensor
    """(3, height, width)"""
    logarithms: Tensor
    """of the weights of the detectors: (detectors,)"""
    first_losses: Tensor
    """of each detector, in the first iteration; NaN before it: (detectors,)"""
    moments: dict[str, Tensor] = field(default_factory=dict)
    """what Adam remembers, by torch's names; nothing before the first iteration"""
    iteration: int = 0

    @classmethod
    def begin(cls, patch: Tensor, detectors: int) -> "State":
        """Before the first iteration. patch: (3, height, width) in [0, 1]."""
        return cls(patch.clone(), torch.zeros(detectors), torch.full((detectors,), torch.nan))

    def to(self, device: torch.device) -> "State":
        """A copy of the state on a device."""
        return State(
            self.patch.to(device, copy=True),
            self.logarithms.to(device, copy=True),
            self.first_losses.to(device, copy=True),
            {name: each.to(device, copy=True) for name, each in self.moments.items()},
            self.iteration,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the patch: those of the search, but for one that begins in a size of its own."""
        return self.patch.shape[1], self.patch.shape[2]

    @property
    def weights(self) -> Tensor:
        """Of the detectors, summing to 1: (detectors,)."""
        return torch.softmax(self.logarithms, 0)


@dataclass(frozen=True)
class Prepared:
    """What is the same in all iterations of a search."""

    problem: Problem
    params: SearchParams
    seed: int
    detectors: dict[str, Detector]
    """folded, on the device"""
    views: dict[str, WindowedDetector]
    """of those that look again only where the patch may be"""
    images: KeptImages
    epochs: Epochs

    @classmethod
    def of(
        cls, problem: Problem, params: SearchParams, shape: tuple[int, int], seed: int, device: torch.device
    ) -> "Prepared":
        """shape: of the patch, (height, width)."""
        detectors = {name: folded(each, device) for name, each in problem.detectors.items()}
        views = _windowed(detectors, problem, shape) if device.type == "cpu" else {}
        batch = min(params.batch, len(problem.places))
        epochs = Epochs(len(problem.places), batch, lambda epoch: seed_at(seed, "epoch", epoch))
        return cls(problem, params, seed, detectors, views, KeptImages(problem), epochs)


def searched(
    state: State, problem: Problem, params: SearchParams, seed: int, until: int, device: torch.device | None = None
) -> tuple[State, Tensor]:
    """Go on with a search. until: the iteration before which it stops. device: where; None: the CPU.

    Returns the new state, on the CPU, and the loss of each detector before each step, (iterations, detectors).
    InputError: a loss stops being finite, or a detector changes while it is attacked.
    """
    device = device or torch.device("cpu")
    prepared = Prepared.of(problem, params, state.shape, seed, device)
    before = {name: weights_hash(each) for name, each in prepared.detectors.items()}
    state = state.to(device)
    optimizer = adam_of(state)
    history: list[Tensor] = []
    finite: list[Tensor] = []  # of the iterations since it was looked at
    while state.iteration < until:
        history.append(step(state, optimizer, prepared))
        finite.append(history[-1].isfinite().all() & state.patch.isfinite().all())
        if len(finite) == LOOK_EVERY or state.iteration == until:
            _check_finite(finite, state.iteration)
            finite = []
    for name, each in prepared.detectors.items():
        if weights_hash(each) != before[name]:
            raise InputError(
                f"detector {name!r} changed while it was attacked: its weights or its statistics of batch norm",
                hint="in evaluation mode a detector must not change; one of your own has to obey eval()",
            )
    state.moments = optimizer.state[state.patch]
    trace = torch.stack(history).cpu() if history else torch.empty(0, len(before))
    return state.to(torch.device("cpu")), trace


def _check_finite(finite: list[Tensor], last: int) -> None:
    """InputError, with its number, about the first iteration in which something was not. last: that of the last one."""
    flags = torch.stack(finite).tolist()
    if not all(flags):
        raise InputError(
            f"the loss of the patch is not finite in iteration {last - len(flags) + 1 + flags.index(False)}",
            hint="a lower learning_rate or a longer warm_up keeps it finite",
        )


def adam_of(state: State) -> torch.optim.Optimizer:
    """Adam with the largest second moment so far (Reddi et al. 2018), which moves the patch of a state."""
    optimizer = rules.Adam([{"params": [state.patch], "scale": 1.0}], amsgrad=True)
    if state.moments:
        restore_moments(optimizer, [state.moments])
    return optimizer


def step(state: State, optimizer: torch.optim.Optimizer, prepared: Prepared) -> Tensor:
    """One iteration, in place. Returns the loss of each detector before it: (detectors,)."""
    problem, params = prepared.problem, prepared.params
    generator = torch.Generator().manual_seed(seed_at(prepared.seed, "draws", state.iteration))
    chosen = problem.places[prepared.epochs.indices(state.iteration)]
    images = prepared.images.at(chosen).to(state.patch.device)
    targets = problem.targets(chosen, images, generator)
    patch = state.patch.detach().requires_grad_()
    shown = params.cutout.apply(patch, generator)
    rendered = render(problem.reproduction.printed(shown), images, targets, problem.rendering, generator)
    rendered = problem.reproduction.photographed(rendered, generator)
    windows = windows_of(targets, len(images), state.shape, problem.rendering)
    losses = []
    for name, detector in prepared.detectors.items():
        toward = None
        if isinstance(params.objective, TargetedObjective):
            toward = detector.label_of(params.objective.toward)
        if name in prepared.views:
            priors = prepared.views[name].priors(rendered, images, chosen.tolist(), windows)
        else:
            priors = detector.priors(rendered)
        losses.append(params.objective.loss(priors, detector.label_of(problem.hidden), targets, toward))
    each = torch.stack(losses)
    loss = _together(each, state, list(prepared.detectors), params)
    loss = loss + params.smoothness.weight * params.smoothness.loss(patch)
    if params.printability.weight:
        loss = loss + params.printability.weight * params.printability.loss(patch)
    (state.patch.grad,) = torch.autograd.grad(loss, [patch])
    set_rate(optimizer, params.rate(state.iteration))
    optimizer.step()
    state.patch.clamp_(0, 1)
    state.iteration += 1
    return each.detach()


def _windowed(
    detectors: Mapping[str, Detector], problem: Problem, shape: tuple[int, int]
) -> dict[str, WindowedDetector]:
    """Those detectors that are faster where they look again only at what the patch may cover. A camera changes all.

    shape: of the patch, (height, width).
    """
    if problem.reproduction.camera is not None:
        return {}
    some = problem.places[:EXPECTED]
    images = problem.data.images(some[:1])
    windows = windows_of(problem.targets(some, images, None), len(some), shape, problem.rendering)
    views = {name: windowed(each, windows, images, len(problem.places)) for name, each in detectors.items()}
    return {name: view for name, view in views.items() if view is not None}


def _together(losses: Tensor, state: State, names: list[str], params: SearchParams) -> Tensor:
    """One loss of all detectors. With min-max weights these move by a step of mirror ascent."""
    if not state.iteration:
        state.first_losses = losses.detach().clamp_min(1e-6)
    ensemble = params.ensemble
    if isinstance(ensemble, FixedWeights):
        return (losses * losses.new_tensor([ensemble.weights.get(name, 1.0) for name in names])).sum()
    with torch.no_grad():
        relative = losses.detach() / state.first_losses
        kept = 1 - ensemble.step_size * ensemble.regularisation
        logarithms = kept * state.logarithms + ensemble.step_size * relative
        state.logarithms = logarithms - logarithms.logsumexp(0)
    return state.first_losses.sum() * (state.weights * losses / state.first_losses).sum()


def seed_at(seed: int, purpose: str, number: int) -> int:
    """A seed in [0, 2^63) for a numbered part of a search."""
    sequence = np.random.SeedSequence((seed, *purpose.encode(), number))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def random_patch(size: tuple[int, int], seed: int) -> Tensor:
    """Uniform noise: (3, height, width)."""
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(seed))
