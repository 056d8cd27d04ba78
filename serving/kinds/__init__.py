"""How a model is served: by the task that its card names. A new kind is a module here and a line in KINDS."""

from collections.abc import Collection

import torch
from torch import nn

from service.errors import ModelNotFoundError, nearest
from service.models import ModelCard
from service.store import Folder
from serving.http.metadata import Offer
from serving.http.settings import ServeSettings
from serving.kinds.base import Endpoint
from serving.kinds.classification import Classification
from serving.kinds.music_identification import MusicIdentification
from serving.kinds.object_detection import ObjectDetection
from serving.kinds.segmentation import Segmentation
from serving.kinds.sound_classification import SoundClassification
from serving.kinds.thinking import DeepThinking

KINDS: dict[str, type[Endpoint]] = {
    kind.task: kind
    for kind in (
        Classification,
        DeepThinking,
        MusicIdentification,
        ObjectDetection,
        Segmentation,
        SoundClassification,
    )
}


def actions_of(card: ModelCard, switched_off: Collection[str] = ()) -> tuple[str, ...]:
    """What can be asked of a model. ModelNotFoundError if models of its task have no endpoint."""
    return tuple(action for action in kind_of(card).actions_of(card) if action not in switched_off)


def offer(card: ModelCard, settings: ServeSettings) -> Offer:
    """How models with such a card are served. ModelNotFoundError if they are not."""
    kind, actions = kind_of(card), actions_of(card, settings.switched_off)
    attacks = kind.attacks if "attack" in actions else {}
    sonification = dict(kind.sonification_of(card, settings.sonification)) if "sonify" in actions else {}
    return Offer(kind.outputs_of(card), actions, attacks, sonification, kind.panel)


def kind_of(card: ModelCard) -> type[Endpoint]:
    """ModelNotFoundError if models of this task have no endpoint."""
    if card.task not in KINDS:
        raise ModelNotFoundError(f"model {card.name!r} is for the task {card.task!r}, which has no endpoint")
    return KINDS[card.task]


def check_offered(card: ModelCard, action: str) -> None:
    """ModelNotFoundError if the model does not have this action, with the nearest that it has."""
    offered = kind_of(card).actions_of(card)
    if action not in offered:
        raise ModelNotFoundError(f"model {card.name!r} has no {action!r}", nearest(action, offered))


def endpoint(
    card: ModelCard, network: nn.Module, settings: ServeSettings, device: torch.device, store: Folder
) -> Endpoint:
    """The endpoint of a loaded model. store: where it is from. ModelError if the network does not fit its card."""
    made = kind_of(card)(card, network, settings, device)
    made.store = store
    return made
