"""The attacked network and its surrogates: trained here, or of the model store."""

import torch
from torch import nn

from jobs.common.data.images.base import ImageSet
from jobs.common.data.sets import listed
from jobs.common.models.cards import classifier_card
from jobs.common.models.fit import check_fit, check_sendable
from jobs.common.models.network_params import TrainedNetwork
from jobs.common.training.supervised import Training, train
from jobs.poison_frogs.features import Features
from jobs.poison_frogs.params import Params
from jobs.poison_frogs.poisons.recipes import Matching
from jobs.poison_frogs.victims.heads import HeadParams
from jobs.poison_frogs.victims.networks import ScratchParams
from service.errors import InputError, within
from service.models import CardDraft
from service.run import Run


def check_networks(params: Params, images: ImageSet) -> None:
    """InputError if a network that is to be trained does not fit the images, or has no features where they are named.

    Seen on one image and fresh weights, before anything is trained.
    """
    first = images.images(torch.arange(1))
    if isinstance(params.network, TrainedNetwork):
        network = params.network.classifier.build(images, 0)
        check_sendable(network, params.network.classifier.name)
        check_fit(network, images, params.network.classifier.name)
        Features(network, first, params.layers)
    for name, victim in params.complete_victims.items():
        if isinstance(victim, ScratchParams) and victim.classifier is not None:
            with within(f"victims.{name}.classifier"):
                network = victim.classifier.build(images, 0)
                check_sendable(network, victim.classifier.name)
                check_fit(network, images, victim.classifier.name)
                Features(network, first)


def networks_of(params: Params, images: ImageSet, run: Run) -> list[nn.Module]:
    """The attacked network and the surrogates, on the CPU: trained, and the first of them saved; or loaded."""
    if not isinstance(params.network, TrainedNetwork):
        model = params.network.load(run)
        model.check_task("classification")
        model.compare_shape(images, run)
        heads_alone = all(isinstance(each, HeadParams) for each in params.victims.values())
        by_class = isinstance(params.attack, Matching) or not heads_alone  # what the network says of classes is used
        check_sendable(model.network, model.name)
        check_fit(model.network, images, model.name, own_classes=not by_class)
        if by_class:
            check_classes(images, model.classes, model.name)
        return [model.network]
    networks: list[nn.Module] = run.reserved(train_networks, params)
    run.save_model(params.model_name, networks[0], card(params, images, run.metrics))
    return networks


def check_classes(images: ImageSet, classes: tuple[str, ...] | None, name: str) -> None:
    """InputError unless the outputs of a stored network are the classes of the images, where its card names them.

    Setups are of numbers of the data, so these are not brought to the order of the network.
    """
    if classes is not None and classes != tuple(images.classes):
        ours = listed(images.classes)
        raise InputError(
            f"classes of model {name!r} must be those of {images.name}, {ours}; they are {listed(classes)}"
        )


def train_networks(run: Run, params: Params) -> list[nn.Module]:
    """Train the attacked network and the surrogates one after another; they come back on the CPU."""
    assert isinstance(params.network, TrainedNetwork)
    for name, victim in params.victims.items():  # which train in such a reservation too, but after all else
        if not isinstance(victim, HeadParams):
            with within(f"victims.{name}"):
                victim.engine.check(run.device)
    images, classifier = params.data.load("train"), params.network.classifier
    names = ["", *(f"surrogate_{number}_" for number in range(1, params.surrogates + 1))]
    networks = [classifier.build(images, run.seed_for("weights", name)).to(run.device) for name in names]
    train(
        [Training(name, each, images, params.network.training) for name, each in zip(names, networks, strict=True)], run
    )
    return [each.cpu().eval() for each in networks]


def card(params: Params, images: ImageSet, metrics: dict[str, float]) -> CardDraft:
    assert isinstance(params.network, TrainedNetwork)
    return classifier_card(
        "poison_frogs",
        params.network.classifier,
        images,
        metrics=metrics,
        description=", clean: what poisons were crafted for",
        settings={"data": params.data.name},
    )
