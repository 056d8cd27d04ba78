"""The network that is measured: trained here, with poison or without, or one that is there already."""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from jobs.common.models.cards import classifier_card
from jobs.common.models.ensemble import check_no_statistics
from jobs.common.models.fit import check_fit, check_sendable
from jobs.common.models.network_params import NetworkFile, TrainedNetwork
from jobs.common.models.weights import check_finite, tensors
from jobs.common.training.supervised import Assemble, Training, plain, train
from jobs.generalization.gradient_free.search import search
from jobs.generalization.gradient_free.search_params import SearchedNetwork
from jobs.generalization.minima.training import assembled
from jobs.generalization.params import Params
from jobs.generalization.sets import Sets
from service.errors import InputError
from service.models import CardDraft
from service.run import Run


@dataclass(frozen=True)
class Measured:
    """A network in evaluation mode, on the CPU."""

    name: str
    network: nn.Module
    second_moments: dict[str, Tensor] = field(default_factory=dict)
    """means of squared gradients at the end of training, by the names of the weights; empty if there are none"""
    path: tuple[dict[str, Tensor], ...] = ()
    """states of the network along its training"""
    epochs: tuple[int, ...] = ()
    """after which these were kept"""


def measured_network(params: Params, sets: Sets, run: Run) -> Measured:
    """Train or load it. InputError, one sentence, if it does not fit the images: before anything is trained."""
    if isinstance(params.network, TrainedNetwork | SearchedNetwork):
        fresh = params.network.classifier.build(sets.training, 0)
        _check(Measured(params.network.classifier.name, fresh), sets)
        if isinstance(params.network, SearchedNetwork) or params.minefield is not None:
            check_no_statistics(fresh)
        make = search_network if isinstance(params.network, SearchedNetwork) else train_network
        return run.reserved(make, params, sets)  # type: ignore[no-any-return]
    if isinstance(params.network, NetworkFile):
        given = Measured(params.network.weights, params.network.load(sets.training))
    else:
        model = params.network.load(run)
        model.check_task("classification")
        model.compare_shape(sets.training, run)
        if model.classes is not None and model.classes != tuple(sets.training.classes):
            raise InputError(f"classes of model {model.name!r} must be those of {sets.training.name}, in their order")
        given = Measured(model.name, model.network)
    _check(given, sets)
    return given


def _check(given: Measured, sets: Sets) -> None:
    if not tensors(given.network, "weights"):
        raise InputError(f"network {given.name!r} must have weights; it has none")
    check_sendable(given.network, given.name)
    check_fit(given.network, sets.training, given.name)
    check_finite(tensors(given.network), f"network {given.name!r}")


def train_network(run: Run, params: Params, sets: Sets) -> Measured:
    """Train it where the spec's resources are reserved."""
    assert isinstance(params.network, TrainedNetwork)
    classifier = params.network.classifier
    network = classifier.build(sets.training, run.seed_for("weights")).to(run.device)
    training = Training("", network, sets.training, params.network.training)
    assemble: Assemble = plain
    if params.poison.share and sets.poison is not None:
        assemble = partial(assembled, poison=sets.poison, params=params.poison)
    train([training], run, assemble)
    return Measured(
        classifier.name, network.cpu().eval(), training.second_moments, tuple(training.kept), tuple(training.kept_at)
    )


def search_network(run: Run, params: Params, sets: Sets) -> Measured:
    """Search for it where the spec's resources are reserved."""
    assert isinstance(params.network, SearchedNetwork)
    classifier, images = params.network.classifier, sets.training
    network = classifier.build(images, 0).to(run.device).eval()
    pixels = images.images(torch.arange(len(images))).to(run.device)
    search(network, pixels, images.labels.to(run.device), params.network, run)
    return Measured(classifier.name, network.cpu())


def card(params: Params, sets: Sets, metrics: dict[str, float]) -> CardDraft:
    """What serving needs to know of a network that was trained here."""
    assert isinstance(params.network, TrainedNetwork | SearchedNetwork)
    return classifier_card(
        "generalization",
        params.network.classifier,
        sets.training,
        metrics=metrics,
        description=f", poison {params.poison.share:g}" if params.poison.share else "",
        settings={"data": params.data.name, "poison": params.poison.share},
    )
