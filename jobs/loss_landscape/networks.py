"""The networks of a landscape: trained here, loaded from the model store, built by the user, or read from a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from jobs.common.data.images import DataParams
from jobs.common.data.images.base import ImageSet, Split
from jobs.common.models.classifier_params import ClassifierParams, check_fit
from jobs.common.models.network_params import StoredNetwork, TrainedNetwork
from jobs.common.models.weights import check_finite, tensors
from jobs.common.params import StudyParams
from jobs.common.training.supervised import Training, train
from jobs.loss_landscape.files.weights_file import load_weights
from service.run import Run


class NetworkFile(StudyParams):
    """A classifier with weights from a file."""

    kind: Literal["file"] = Field("file", description="an architecture, and its weights in a file")
    classifier: ClassifierParams = Field(ClassifierParams(), description="the network")
    weights: str = Field(min_length=1, description="path of a safetensors file with the names of the network's state")


NetworkParams = Annotated[TrainedNetwork | StoredNetwork | NetworkFile, Field(discriminator="kind")]


@dataclass(frozen=True)
class Found:
    """A network in evaluation mode, on the CPU."""

    name: str
    network: nn.Module
    recorded: Mapping[Split, float] = field(default_factory=dict)
    """the mean loss on a split, as its card says; empty if nobody said"""
    path: tuple[dict[str, Tensor], ...] = ()
    """states of the network along its training"""
    epochs: tuple[int, ...] = ()
    """after which these were kept"""
    trained: bool = False


def find(params: Mapping[str, NetworkParams], data: DataParams, like: ImageSet, run: Run) -> dict[str, Found]:
    """Each network of a landscape, by the role that it plays ("" is the one at the centre).

    Those that are to be trained are trained now, one after another. like: images that each has to take.
    """
    to_train = {role: each for role, each in params.items() if isinstance(each, TrainedNetwork)}
    networks: dict[str, Found] = run.reserved(train_networks, to_train, data) if to_train else {}
    networks |= {
        role: _loaded(each, like, run) for role, each in params.items() if not isinstance(each, TrainedNetwork)
    }
    for role, each in networks.items():
        check_fit(each.network, like, each.name)
        check_finite(tensors(each.network), f"network {role}".strip())
    return {role: networks[role] for role in params}


def train_networks(run: Run, params: Mapping[str, TrainedNetwork], data: DataParams) -> dict[str, Found]:
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
    for role, training in trainings.items():
        check_fit(training.network, images, role or "network")
    train(list(trainings.values()), run)
    return {
        role: Found(
            params[role].classifier.name,
            training.network.cpu().eval(),
            path=tuple(training.kept),
            epochs=tuple(training.kept_at),
            trained=True,
        )
        for role, training in trainings.items()
    }


def _loaded(params: StoredNetwork | NetworkFile, like: ImageSet, run: Run) -> Found:
    match params:
        case NetworkFile():
            network = params.classifier.build(like, 0)
            load_weights(network, Path(params.weights).expanduser())
            return Found(params.weights, network.eval())
        case StoredNetwork():
            model = params.load(run)
            model.check_task("classification")
            said = model.card.settings.get("losses", {}) if model.card else {}
            recorded: dict[Split, float] = {
                split: float(said[split])
                for split in ("train", "test")
                if isinstance(said, dict) and isinstance(said.get(split), int | float)
            }
            return Found(model.name, model.network, recorded)
