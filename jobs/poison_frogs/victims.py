"""Victims: who learns from the poisoned set. A linear head on frozen features, a network tuned on, or a fresh one; and
the filters that a victim may have before it.

A poison is judged by a victim that has converged: an unfinished head does not even learn the poison itself. So heads
are trained for a number of steps, not of epochs, or to convergence by L-BFGS.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.augmentation import AugmentationParams
from jobs.common.classifier_params import ClassifierParams
from jobs.common.datasets.base import ImageSet
from jobs.common.params import StudyParams
from jobs.common.training import OptimizerParams, device_of, set_rate
from jobs.poison_frogs import defences
from service.errors import RunFailedError

INITIAL = 0.001  # deviation of a head's first weights (Shafahi et al. 2018, released code)
MOMENTS = ("first", "second")
EVALUATIONS = 2000  # of L-BFGS at most: it converges long before


class HeadParams(StudyParams):
    """A linear layer on the frozen features of the network: transfer learning."""

    kind: Literal["head"] = Field("head", description="a linear layer on frozen features")
    solver: Literal["lbfgs", "adam"] = Field("lbfgs", description="to convergence, or a number of steps of Adam")
    start: Literal["cold", "warm"] = Field("cold", description="from fresh weights, or from those of the clean head")
    l2: float = Field(1e-4, ge=0, le=10, description="penalty l2/2 ‖W‖² on the mean cross entropy")
    steps: int = Field(5700, ge=1, le=1_000_000, description="of Adam; the paper has 100 epochs of 57")
    batch: int = Field(32, ge=1, le=100_000, description="images in a minibatch of Adam")
    learning_rate: float = Field(0.01, gt=0, le=10, description="of Adam")


class NetworkVictim(StudyParams):
    """All layers learn."""

    epochs: int = Field(10, ge=1, le=10_000, description="times that each image is seen")
    batch: int = Field(128, ge=1, le=100_000, description="images in a minibatch")
    augmentation: AugmentationParams = Field(AugmentationParams(), description="random changes of each minibatch")


class FineTuneParams(NetworkVictim):
    """Training goes on from the attacked network, in all layers: the paper's end-to-end setting."""

    kind: Literal["fine_tune"] = Field("fine_tune", description="all layers go on from the attacked network")
    optimizer: OptimizerParams = Field(
        OptimizerParams(learning_rate=1.85e-5, weight_decay=0.0), description="how the weights move; ticks are epochs"
    )
    hidden_l2: float = Field(
        0.0,
        ge=0,
        le=10,
        description="penalty l2/2 ‖W‖² on all linear layers but the last, for Adam; the code has 0.004",
    )


class ScratchParams(NetworkVictim):
    """A network with fresh weights, of the attacked architecture or of another."""

    kind: Literal["scratch"] = Field("scratch", description="fresh weights")
    classifier: ClassifierParams | None = Field(None, description="another architecture; none: the attacked one")
    optimizer: OptimizerParams = Field(OptimizerParams(), description="how the weights are moved; its ticks are epochs")


VictimParams = Annotated[HeadParams | FineTuneParams | ScratchParams, Field(discriminator="kind")]


class DeepKnn(StudyParams):
    """A filter of the training set, by the features of the attacked network: Peri et al. 2020."""

    kind: Literal["deep_knn"] = Field("deep_knn", description="drop what most of its neighbours say is another class")
    k: int = Field(50, ge=1, description="neighbours; twice the poisons at least")

    def keep(self, features: Tensor, labels: Tensor) -> Tensor:
        """Which points stay, bool (n,). features: (n, D). labels: int64 (n,)."""
        return defences.deep_knn(features, labels, self.k)


class L2Outliers(StudyParams):
    """A filter as well: Steinhardt et al. 2017."""

    kind: Literal["l2_outliers"] = Field("l2_outliers", description="drop what is farthest from the mean of its class")
    share: float = Field(0.05, ge=0, lt=1, description="of each class that is dropped")

    def keep(self, features: Tensor, labels: Tensor) -> Tensor:
        return defences.l2_outliers(features, labels, self.share)


class Spectral(StudyParams):
    """A filter as well: Tran et al. 2018."""

    kind: Literal["spectral"] = Field("spectral", description="drop what lies farthest along the main direction")
    poisons: int = Field(1, ge=1, description="in a class, as the defender guesses")
    factor: float = Field(1.5, ge=1, description="times as many are dropped")

    def keep(self, features: Tensor, labels: Tensor) -> Tensor:
        return defences.spectral_signatures(features, labels, self.poisons, self.factor)


class Clustering(StudyParams):
    """A filter as well: Chen et al. 2018."""

    kind: Literal["activation_clustering"] = Field(
        "activation_clustering", description="drop the smaller of two clusters of each class"
    )
    dimensions: int | None = Field(10, ge=1, description="principal components that are looked at; none: all")
    largest_share: float = Field(0.5, gt=0, le=0.5, description="of a class that is believed to be poison")

    def keep(self, features: Tensor, labels: Tensor) -> Tensor:
        return defences.activation_clustering(features, labels, self.dimensions, self.largest_share)


DefenceParams = Annotated[DeepKnn | L2Outliers | Spectral | Clustering, Field(discriminator="kind")]


@dataclass(frozen=True)
class Head:
    """A linear layer. weight: (classes, D). bias: (classes,). moments: what Adam remembers, to go on from."""

    weight: Tensor
    bias: Tensor
    moments: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, features: Tensor) -> Tensor:
        """Logits (n, classes)."""
        return functional.linear(features, self.weight, self.bias)


def fit_head(
    features: Tensor, labels: Tensor, classes: int, params: HeadParams, seed: int, clean: Head | None = None
) -> Head:
    """Train a head. features: (n, D). labels: int64 (n,) in 0..classes-1. clean: what a warm start goes on from.

    RunFailedError if its weights stop being finite.
    """
    stream = torch.Generator().manual_seed(seed)
    if params.start == "warm" and clean is not None:
        weight, bias, remembered = clean.weight.clone(), clean.bias.clone(), clean.moments
    else:
        weight, bias, remembered = features.new_empty(classes, features.shape[1]), features.new_zeros(classes), {}
        nn.init.trunc_normal_(weight, std=INITIAL, a=-2 * INITIAL, b=2 * INITIAL, generator=stream)
    # the bias is the weight of a feature that is 1
    rows, start = torch.cat([features, features.new_ones(len(features), 1)], 1), torch.cat([weight, bias[:, None]], 1)
    wanted = functional.one_hot(labels, classes).to(features.dtype)
    if params.solver == "lbfgs":
        found, remembered = _converged(rows, wanted, start, params.l2), {}
    else:
        found, remembered = _adam(rows, wanted, start, params, remembered, stream)
    if not bool(torch.isfinite(found).all()):
        raise RunFailedError(
            "the weights of a victim's head are not finite", hint="a lower learning_rate keeps them so"
        )
    return Head(found[:, :-1].contiguous(), found[:, -1].clone(), remembered)


def _slope(rows: Tensor, wanted: Tensor, weight: Tensor, l2: float) -> tuple[Tensor, Tensor]:
    """Logarithms of the classes' shares (n, classes), and the slope of the penalised mean cross entropy by the weight.

    Without autograd, which takes three times as long for so little. wanted: (n, classes), 1 for the label.
    """
    shares = (rows @ weight.T).log_softmax(1)
    slope = (shares.exp() - wanted).T @ rows / len(rows)
    if l2:
        slope[:, :-1] += l2 * weight[:, :-1]
    return shares, slope


def _converged(rows: Tensor, wanted: Tensor, start: Tensor, l2: float) -> Tensor:
    """Where the penalised mean cross entropy is least, in float64 on the way.

    By L-BFGS with a line search for the strong Wolfe conditions (Moré & Thuente 1994), as scipy has it.
    """
    rows, wanted = rows.double(), wanted.double()

    def value_and_slope(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight = torch.from_numpy(flat).view(start.shape)
        shares, slope = _slope(rows, wanted, weight, l2)
        loss = l2 / 2 * weight[:, :-1].square().sum() - (shares * wanted).sum() / len(rows)
        return float(loss), slope.flatten().numpy()

    options = {"maxiter": EVALUATIONS, "maxfun": EVALUATIONS, "maxcor": 20, "gtol": 1e-6, "ftol": 1e-12}
    begin = start.double().flatten().numpy()
    with _blas().limit(limits=torch.get_num_threads(), user_api="blas"):  # scipy's own threads only wait for each other
        found = minimize(value_and_slope, begin, jac=True, method="L-BFGS-B", options=options).x
    return torch.from_numpy(found).view(start.shape).to(start.dtype)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _adam(
    rows: Tensor,
    wanted: Tensor,
    weight: Tensor,
    params: HeadParams,
    remembered: dict[str, Tensor],
    stream: torch.Generator,
) -> tuple[Tensor, dict[str, Tensor]]:
    """So many steps of Adam (Kingma & Ba 2015, algorithm 1), and its moments. An epoch's last batch may be short."""
    weight = weight.clone()
    first, second = (remembered[name].clone() if remembered else torch.zeros_like(weight) for name in MOMENTS)
    begin = int(remembered["step"]) if remembered else 0
    batches: Iterator[tuple[Tensor, Tensor]] = iter(())
    for step in range(begin + 1, begin + params.steps + 1):
        if (batch := next(batches, None)) is None:
            order = torch.randperm(len(rows), generator=stream)
            batches = zip(*(torch.split(each[order], params.batch) for each in (rows, wanted)), strict=True)
            batch = next(batches)
        _, slope = _slope(*batch, weight, params.l2)
        first.lerp_(slope, 0.1)
        second.mul_(0.999).addcmul_(slope, slope, value=0.001)
        scale = (second / (1 - 0.999**step)).sqrt_().add_(1e-8)
        weight.addcdiv_(first, scale, value=-params.learning_rate / (1 - 0.9**step))
    return weight, {"step": torch.tensor(begin + params.steps), "first": first, "second": second}


@dataclass(frozen=True)
class PoisonedSet:
    """What a victim learns from: images of a set, and poisons after them."""

    images: ImageSet
    rows: Tensor
    """int64 (n,): which images of the set"""
    poisons: Tensor
    """float32 (k, channels, height, width)"""
    aims: Tensor
    """int64 (k,) their labels"""

    def __len__(self) -> int:
        return len(self.rows) + len(self.poisons)

    def batch(self, indices: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images and labels; those of the set come first."""
        clean, poisoned = indices[indices < len(self.rows)], indices[indices >= len(self.rows)] - len(self.rows)
        images = torch.cat([self.images.images(self.rows[clean], stream), self.poisons[poisoned]])
        return images, torch.cat([self.images.labels[self.rows[clean]], self.aims[poisoned]])


def fit_network(
    network: nn.Module,
    data: PoisonedSet,
    params: FineTuneParams | ScratchParams,
    seed: int,
    watch: Callable[[nn.Module], None] = lambda network: None,
) -> nn.Module:
    """Train a copy of the network; it comes back in evaluation mode.

    watch: looks at it after each epoch, in evaluation mode. RunFailedError if the loss stops being finite.
    """
    network = copy.deepcopy(network)
    device = device_of(network)
    stream = torch.Generator().manual_seed(seed)
    hidden = _hidden(network) if isinstance(params, FineTuneParams) and params.hidden_l2 else []
    others = [each for each in network.parameters() if all(each is not one for one in hidden)]
    optimizer = params.optimizer.build([(1.0, others), (1.0, hidden)])
    if isinstance(params, FineTuneParams) and hidden:
        optimizer.param_groups[-1]["weight_decay"] = params.hidden_l2
    batches = _batches(len(data), params.batch, stream)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # for dropout
        for epoch in range(params.epochs):
            network.train().requires_grad_(True)
            set_rate(optimizer, params.optimizer.rate(epoch, params.epochs))
            total = 0.0
            for _ in range(math.ceil(len(data) / params.batch)):
                images, labels = data.batch(next(batches), stream)
                images = params.augmentation.apply(images, stream).to(device)
                loss = functional.cross_entropy(network(images), labels.to(device))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                if params.optimizer.clip is not None:
                    nn.utils.clip_grad_norm_(network.parameters(), params.optimizer.clip)
                optimizer.step()
                total += loss.item()
            if not math.isfinite(total):
                raise RunFailedError(f"a victim's loss is not finite in epoch {epoch}")
            watch(network.eval())
    return network.requires_grad_(False)


def _batches(count: int, size: int, stream: torch.Generator) -> Iterator[Tensor]:
    """Minibatches without end, each epoch in an order of its own; the last of an epoch may be short."""
    while True:
        yield from torch.split(torch.randperm(count, generator=stream), size)


def _hidden(network: nn.Module) -> list[nn.Parameter]:
    """The weights of all linear layers but the last."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    return [layer.get_parameter("weight") for layer in layers[:-1]]
