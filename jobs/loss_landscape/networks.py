"""The networks of a landscape: trained here, loaded from the model store, built by the user, or read from a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from jobs.common.data.images import DataParams
from jobs.common.data.images.base import ImageSet
from jobs.common.data.images.relabelled import with_classes
from jobs.common.data.sets import Split, listed
from jobs.common.mean_loss.plain import score_of
from jobs.common.models.cards import classifier_card
from jobs.common.models.fit import check_fit, check_sendable
from jobs.common.models.network_params import (
    NetworkFile,
    NetworkParams,
    PublishedNetwork,
    StoredNetwork,
    TrainedNetwork,
)
from jobs.common.models.weights import check_alike, check_finite, tensors
from jobs.common.training.supervised import Training, train
from jobs.loss_landscape.params import Params
from jobs.loss_landscape.planes.plane_params import CENTRE
from service.errors import InputError
from service.models import CardDraft
from service.run import Run


@dataclass(frozen=True)
class LandscapeNetwork:
    """A network in evaluation mode, on the CPU."""

    name: str
    network: nn.Module
    recorded: Mapping[Split, float] = field(default_factory=dict)
    """the mean loss on a split, as its card says; empty if it does not"""
    recorded_as: str = "cross_entropy"
    """which loss that is"""
    classes: tuple[str, ...] | None = None
    """their names by its outputs; None if nobody says them"""
    path: tuple[dict[str, Tensor], ...] = ()
    """states of the network along its training"""
    epochs: tuple[int, ...] = ()
    """after which these were kept"""
    trained: bool = False


def load_networks(
    params: Mapping[str, NetworkParams], data: DataParams, images: ImageSet, run: Run
) -> tuple[dict[str, LandscapeNetwork], ImageSet]:
    """Each network of a landscape, by the role that it plays: CENTRE, or the axis that it lies on. And the images that
    each has to take, under the labels of the networks' classes.

    Those that are to be trained are trained one after another, when all else is known to fit. InputError if the
    networks have other classes.
    """
    stored = {role: each for role, each in params.items() if isinstance(each, StoredNetwork | PublishedNetwork)}
    networks = {role: _stored(each, images, run) for role, each in stored.items()}
    to_train = {role: each for role, each in params.items() if isinstance(each, TrainedNetwork)}
    fresh: dict[str, LandscapeNetwork] = {}
    if to_train:
        train, _ = data.load_splits()  # the networks are scored on both
        for role, each in to_train.items():
            network = each.classifier.build(train, 0)
            fresh[role] = LandscapeNetwork(each.classifier.name, network, classes=tuple(train.classes))
    labelled = _labelled(images, networks | fresh)
    networks |= {role: _read(each, labelled) for role, each in params.items() if isinstance(each, NetworkFile)}
    _check(networks | fresh, labelled)  # before hours of training
    if to_train:
        networks = run.reserved(train_networks, to_train, data) | networks
        _check(networks, labelled)
    return {role: networks[role] for role in params}, labelled


def _check(networks: Mapping[str, LandscapeNetwork], like: ImageSet) -> None:
    """InputError, one sentence, unless all take such images and have weights that can be moved, of one architecture."""
    for role, each in networks.items():
        weights = tensors(each.network, "weights")
        if not weights:
            raise InputError(f"network {each.name!r} must have weights, along which its loss is drawn; it has none")
        check_sendable(each.network, each.name)
        check_fit(each.network, like, each.name)
        check_finite(tensors(each.network), f"network {role}".strip())
        check_alike(tensors(networks[CENTRE].network, "weights"), weights, f"network {each.name!r}")


def train_networks(run: Run, params: Mapping[str, TrainedNetwork], data: DataParams) -> dict[str, LandscapeNetwork]:
    """Train networks one after another, by the role that each plays, on the training images."""
    images = data.load("train")
    trainings = {
        role: Training(
            f"{role}_" if role else "",
            each.classifier.build(images, run.seed_for("weights", role)).to(run.device),
            images,
            each.training,
        )
        for role, each in params.items()
    }
    train(list(trainings.values()), run)
    return {
        role: LandscapeNetwork(
            params[role].classifier.name,
            training.network.cpu().eval(),
            classes=tuple(images.classes),
            path=tuple(training.kept),
            epochs=tuple(training.kept_at),
            trained=True,
        )
        for role, training in trainings.items()
    }


def _stored(params: StoredNetwork | PublishedNetwork, images: ImageSet, run: Run) -> LandscapeNetwork:
    model = params.load(run)
    model.check_task("classification")
    model.compare_shape(images, run)
    losses = model.card.settings.get("losses", {}) if model.card else {}
    recorded: dict[Split, float] = {
        split: float(losses[split])
        for split in ("train", "test")
        if isinstance(losses, dict) and isinstance(losses.get(split), int | float)
    }
    recorded_as = str(model.card.settings.get("loss", "cross_entropy")) if model.card else "cross_entropy"
    return LandscapeNetwork(model.name, model.network, recorded, recorded_as, model.classes)


def _read(params: NetworkFile, like: ImageSet) -> LandscapeNetwork:
    return LandscapeNetwork(params.weights, params.load(like))


def _labelled(images: ImageSet, networks: Mapping[str, LandscapeNetwork]) -> ImageSet:
    """The images under the labels of the networks' classes. InputError unless the networks have the same."""
    named = [(each.name, each.classes) for each in networks.values() if each.classes is not None]
    for name, classes in named:
        if classes != named[0][1]:
            first, ours, others = named[0][0], listed(named[0][1]), listed(classes)
            raise InputError(f"classes of network {name!r} must be those of {first!r}, {ours}; they are {others}")
        images = with_classes(images, classes, images.name, f"network {name!r}")
    return images


def scored_and_saved(centre: LandscapeNetwork, params: Params, run: Run) -> LandscapeNetwork:
    """Score a network that was trained here on both splits, save it, and note its losses."""
    recorded: dict[Split, float] = {}
    metrics: dict[str, float] = {}
    train, test = params.data.load_splits()
    splits: tuple[tuple[Split, ImageSet, str], ...] = (("train", train, "clean_train"), ("test", test, "test"))
    for split, images, name in splits:
        score = score_of(centre.network, images, params.evaluation.loss, run, f"{split}_scores")
        recorded[split] = score.loss
        metrics |= {f"{name}_loss": score.loss, f"{name}_accuracy": score.accuracy}
    run.log(step=run.step, **metrics)
    run.save_model(params.model_name, centre.network, _card(params, train, recorded, run.metrics))
    return replace(centre, recorded=recorded, recorded_as=params.evaluation.loss)


def _card(params: Params, images: ImageSet, recorded: dict[Split, float], metrics: dict[str, float]) -> CardDraft:
    assert isinstance(params.network, TrainedNetwork)
    return classifier_card(
        "loss_landscape",
        params.network.classifier,
        images,
        metrics=metrics,
        description=f", {params.network.training.epochs} epochs",
        settings={"data": params.data.name, "loss": params.evaluation.loss, "losses": recorded},
    )
