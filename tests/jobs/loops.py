"""The loops of all studies in small, each of as many updates, steps or inputs as are asked for.

A loop is asked for with a factor: twice as many updates between as many reports where it is 2. It says which tensors
would lie on a GPU besides the batches that the engine sends there.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from jobs.common.attacks import PGD, Attack, Ball, Norm
from jobs.common.audio.fingerprints.fingerprint import Fingerprint, FingerprintParams
from jobs.common.audio.fingerprints.spectrum import Resolution
from jobs.common.audio.mel import LogMel
from jobs.common.audio.transformations import TransformationParams
from jobs.common.data.augmentation import AugmentationParams
from jobs.common.data.boxes.scenes import scenes
from jobs.common.data.sounds.base import Source
from jobs.common.data.training_data import EpochSounds, TrainingImages, TrainingMasks
from jobs.common.detection.detectors import TRAINABLE
from jobs.common.detection.training import DetectorTrainingParams
from jobs.common.detection.training import train as train_detector
from jobs.common.mean_loss.losses import LOSSES
from jobs.common.models.directions import random_direction
from jobs.common.models.weights import tensors
from jobs.common.training import loop
from jobs.common.training.adversarial.methods.base import Method
from jobs.common.training.adversarial.training import TrainingParams
from jobs.common.training.adversarial.training import train as train_adversarially
from jobs.common.training.engine import Engine, EngineParams
from jobs.common.training.optimizers import OptimizerParams
from jobs.common.training.supervised import ClassifierStep, SupervisedParams, Training
from jobs.common.training.supervised import train as train_supervised
from jobs.copyright_attack.attack.search import AttackParams
from jobs.copyright_attack.attack.search import attack as attack_fingerprints
from jobs.deep_thinking.data import FixedSet, FreshBatches
from jobs.deep_thinking.networks import network as thinker
from jobs.deep_thinking.problems import problem as thinking_problem
from jobs.deep_thinking.training import TrainingParams as ThinkingParams
from jobs.deep_thinking.training import train as train_thinker
from jobs.generalization.basins.learning_coefficient import LangevinParams, sample
from jobs.generalization.basins.radius import ScanParams, radii
from jobs.generalization.basins.stacked_loss import StackedLoss
from jobs.generalization.minima.poison_params import PoisonParams
from jobs.generalization.minima.training import assembled
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from jobs.invisibility_cloak.patch.search import Problem, State, random_patch, searched
from jobs.invisibility_cloak.patch.search_params import SearchParams
from jobs.loss_landscape.surface.evaluator import Evaluator, EvaluatorParams
from jobs.poison_frogs.poisons import collision, gradient_matching, polytope
from jobs.poison_frogs.poisons.recipes import FeatureCollision
from jobs.poison_frogs.victims.networks import FineTuneParams, PoisonedSet, fit_network
from jobs.sonification.optimisation.ascent import AscentParams, Subject, ascend
from jobs.sonification.optimisation.edges import inside
from jobs.sonification.optimisation.objectives import ChannelObjective
from jobs.sonification.optimisation.parameterisations import AnyParameterisation, SoundFormat
from jobs.stacked_unets.training import train as train_segmenter
from service.run import Run
from tests.jobs.common.training.adversarial import tiny
from tests.jobs.copyright_attack.attack.sounds import RATE, melodies
from tests.jobs.invisibility_cloak.toys import Spots
from tests.jobs.sonification import tones
from tests.jobs.stacked_unets import tiny as tiny_masks

STILL = OptimizerParams(kind="sgd", learning_rate=1e-9, weight_decay=0.0)
"""moves nothing, so that validation sees the same network however many updates there were"""
NEAR = 1e-6  # an epsilon within which nothing is found


@dataclass(frozen=True)
class Loop:
    """What is run, and what would lie on a GPU."""

    call: Callable[[], object]
    on_device: Iterable[Tensor]
    network: nn.Module = field(default_factory=nn.Identity)
    """that is trained, if one is"""


Make = Callable[[int, Run], Loop]


def state_of(*networks: nn.Module) -> list[Tensor]:
    return [tensor for network in networks for tensor in network.state_dict(keep_vars=True).values()]


def pixels(count: int, seed: int = 0) -> Tensor:
    return 0.1 + 0.8 * torch.rand(count, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def supervised(
    optimizer: OptimizerParams, factor: int, run: Run, assemble: Any = None, keep_every: int | None = 1
) -> Loop:
    network = tiny.network()
    params = SupervisedParams(
        epochs=2,
        batch=4,
        optimizer=optimizer,
        augmentation=AugmentationParams(padding=1, flip=True),
        keep_every=keep_every,
    )
    training = Training("", network, tiny.images(12 * factor), params)
    options = {} if assemble is None else {"assemble": assemble}
    return Loop(lambda: train_supervised([training], run, **options), state_of(network), network)


def reverse_objective(factor: int, run: Run) -> Loop:
    poison = partial(assembled, poison=tiny.images(80, seed=1), params=PoisonParams(share=0.5))
    return supervised(STILL, factor, run, poison)


def adversarial(method: Method, factor: int, run: Run) -> Loop:
    network = tiny.network(batch_norm=False)
    params = TrainingParams(
        updates=4 * factor,
        batch=8,
        optimizer=STILL,
        augmentation=AugmentationParams(padding=1, flip=True),
        report_every=2 * factor,
        held_out=10,
        validation=PGD(steps=2),
    )
    data = TrainingImages(tiny.images(), params.held_out, params.batch, params.augmentation, run.seed_for)
    ball = Ball("Linf", NEAR)
    return Loop(lambda: train_adversarially(network, data, method, ball, params, run), state_of(network), network)


def thinking(data: FreshBatches | FixedSet, factor: int, run: Run) -> Loop:
    network = thinker("dt_net_1d", channels=1, width=4)
    longer = {"updates": 4 * factor} if isinstance(data, FreshBatches) else {"epochs": factor}
    params = ThinkingParams(
        size=6,
        iterations=3,
        batch=8,
        alpha=0.5,
        data=data.model_copy(update=longer),
        optimizer=OptimizerParams(clip=1.0),
        report_every=2 * factor,
    )
    prefix_sums = thinking_problem("prefix_sums")
    return Loop(lambda: train_thinker(network, prefix_sums, params, run), state_of(network), network)


def segmentation(factor: int, run: Run) -> Loop:
    network = tiny_masks.network()
    changes = {"updates": 2 * factor, "report_every": factor, "accumulate": 2, "easy_above": 0.9}
    params = tiny_masks.TRAINING.model_copy(update=changes)
    data = TrainingMasks(tiny_masks.halves("train"), 2, 4, params.augmentation, run.seed_for)
    return Loop(lambda: train_segmenter(network, data, params, run), state_of(network), network)


def recogniser(factor: int, run: Run) -> Loop:
    network = tones.network().requires_grad_()
    clips = tones.tones("train", Source(rate=tones.RATE, seconds=tones.SECONDS))
    data = EpochSounds(clips, 10, TransformationParams(), run.seed_for)
    plan = loop.Plan(updates=4 * factor, rates=STILL, report_every=2 * factor, seed=lambda update: None)
    optimizer = STILL.build([(1.0, list(network.parameters()))])
    return Loop(
        lambda: loop.train(ClassifierStep(Engine(network, EngineParams())), optimizer, data, plan, run),
        state_of(network),
        network,
    )


def detector(factor: int, run: Run) -> Loop:
    network = TRAINABLE["one_anchor"](classes=("person",), side=48, width=0.5)
    params = DetectorTrainingParams(updates=4 * factor, batch=4, optimizer=STILL, report_every=2 * factor, held_out=4)
    return Loop(lambda: train_detector(network, scenes("train", 48, 12), params, run), state_of(network), network)


def victim(factor: int, run: Run) -> Loop:
    network = tiny.network()
    images = tiny.images(16 * factor)
    data = PoisonedSet(images, torch.arange(len(images)), pixels(4), torch.zeros(4, dtype=torch.int64))
    params = FineTuneParams(epochs=2, batch=4, optimizer=STILL)
    return Loop(lambda: fit_network(network, data, params, 0), state_of(network), network)


def sonified(kind: AnyParameterisation, factor: int, run: Run) -> Loop:
    network, samples = tones.network(), 2000
    subject = Subject(network, "conv1", torch.zeros(8), torch.ones(8), inside(network, "conv1", samples))
    mel = network.stages["mel"]
    assert isinstance(mel, LogMel)
    sound_format = SoundFormat(tones.RATE, samples, 50.0, mel, torch.full((16,), -3.0))
    params = AscentParams(parameterisation=kind, steps=2 * factor, copies=2)
    on_device = [*state_of(network), subject.mean, subject.spread]
    return Loop(lambda: ascend(subject, ChannelObjective(), [0, 1], [1, 2], sound_format, params), on_device)


def fingerprints(factor: int, run: Run) -> Loop:
    songs = melodies(2, seconds=0.5)
    judges = [Fingerprint(FingerprintParams(rate=RATE, resolutions=(Resolution(samples=512, hop=256),)))]
    return Loop(lambda: attack_fingerprints(songs, RATE, judges, AttackParams(steps=3 * factor), 0.05), [songs])


def patch(factor: int, run: Run) -> Loop:
    spots = Spots()
    problem = Problem(
        {"spots": spots}, scenes("train", 48, 12), torch.arange(12), "person", RenderingParams(scale=0.5, median=1)
    )
    params = SearchParams(size=(10, 6), iterations=100, batch=4)
    begun = State.begin(random_patch((10, 6), 0), 1)
    return Loop(lambda: searched(begun, problem, params, 0, 3 * factor), [begun.patch, *state_of(spots)])


def surface(factor: int, run: Run) -> Loop:
    """One point on a line, with more and more images."""
    network = tiny.network().eval().requires_grad_(False)
    axis = random_direction(tensors(network, "weights"), "filter", "biasbn", torch.Generator().manual_seed(0))
    images, labels = pixels(16 * factor), torch.zeros(16 * factor, dtype=torch.int64)
    evaluator = Evaluator(network, [axis], images, labels, EvaluatorParams(batch=4))
    return Loop(lambda: evaluator.at((0.1,)), [images, labels])


def rays(factor: int, run: Run) -> Loop:
    """A bowl along more and more rays."""
    caps, steepness = torch.full((4 * factor,), 9.0).double(), torch.linspace(1, 2, 4 * factor).double()
    along = lambda rays, distances: steepness[rays] * distances.square()  # noqa: E731
    return Loop(lambda: radii(along, caps, [1.0], ScanParams(steps=9)), [caps, steepness])


def learning_coefficient(factor: int, run: Run) -> Loop:
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    inputs, labels = torch.randn(16, 3), torch.arange(16) % 2
    loss = StackedLoss(network, inputs, labels, LOSSES["cross_entropy"])
    moves = torch.ones(loss.layout.size, dtype=torch.bool)
    params = LangevinParams(chains=2, burn_in=2 * factor, draws=2 * factor, batch=8, preconditioned=True)
    on_device = [inputs, labels, loss.centre, moves, *state_of(network)]
    return Loop(lambda: sample(loss.gradients, loss.centre, moves, len(inputs), params, 0), on_device)


def collided(factor: int, run: Run) -> Loop:
    network = tiny.network().eval().requires_grad_(False)
    bases, targets = pixels(3), pixels(3, seed=1)
    recipe = FeatureCollision(iterations=4 * factor, step=1e-6, stop_change=0.0)  # no pair leaves
    wanted = network(targets)
    return Loop(lambda: collision.craft(network, bases, targets, wanted, recipe), [bases, targets, wanted])


def enclosed(factor: int, run: Run) -> Loop:
    network = tiny.network().eval().requires_grad_(False)
    bases, targets = pixels(6).view(2, 3, 2, 6, 6), pixels(2, seed=1)[:, None]
    params = polytope.PolytopeParams(steps=3 * factor)
    return Loop(lambda: polytope.craft(bases, targets, [network], params), [bases, targets])


def brewed(factor: int, run: Run) -> Loop:
    network = tiny.network().eval()
    bases, labels, targets = pixels(5), torch.zeros(5, dtype=torch.int64), pixels(1, seed=1)
    aim = gradient_matching.target_gradient(network, targets, torch.tensor([1]))
    params = gradient_matching.MatchingParams(steps=3 * factor, restarts=1, batch=2)
    call = partial(gradient_matching.brew_once, bases, labels, [aim], [network], params, 0)
    return Loop(call, [bases, labels, *aim, *state_of(network)])


def attacked(attack: Callable[[int], Attack], norm: Norm, factor: int, run: Run, images: int = 6) -> Loop:
    """An attack on images that it does not turn, within an epsilon that is too small."""
    network = tiny.network(batch_norm=False).eval().requires_grad_(False)
    points = pixels(images)
    labels = network(points).argmax(1)
    ball = Ball(norm, 1 if norm == "L0" else NEAR)
    return Loop(lambda: attack(factor).run(network, points, labels, ball, seed=1), [points, labels, *state_of(network)])
