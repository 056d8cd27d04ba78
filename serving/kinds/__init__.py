"""How a model is served: by the task that its card names. A new kind is a module here and a line in KINDS."""

import torch
from torch import nn

from service.errors import ModelNotFoundError, nearest
from service.models import ModelCard
from serving.http.metadata import Offer
from serving.http.settings import ServeSettings
from serving.kinds.base import Endpoint
from serving.kinds.classification import Classification
from serving.kinds.segmentation import Segmentation
from serving.kinds.sound_classification import SoundClassification
from serving.kinds.thinking import DeepThinking

ATTACK = "attack"  # the action that a server may have switched off

KINDS: dict[str, type[Endpoint]] = {
    kind.task: kind
    for kind in (
        Classification,
        DeepThinking,
        Segmentation,
        SoundClassification,
    )
}


def actions() -> list[str]:
    """All actions that some kind of model has."""
    return sorted({action for kind in KINDS.values() for action in kind.actions})


def actions_by_task(with_attacks: bool) -> dict[str, tuple[str, ...]]:
    """What can be asked of the models of each task that is served."""
    return {task: _actions(kind, with_attacks) for task, kind in KINDS.items()}


def offer(card: ModelCard, with_attacks: bool) -> Offer:
    """How models with such a card are served. ModelNotFoundError if they are not."""
    kind = kind_of(card)
    attacks = kind.attacks if with_attacks else {}
    return Offer(kind.outputs_of(card), _actions(kind, with_attacks), attacks, kind.panel)


def _actions(kind: type[Endpoint], with_attacks: bool) -> tuple[str, ...]:
    return tuple(action for action in kind.actions if with_attacks or action != ATTACK)


def kind_of(card: ModelCard) -> type[Endpoint]:
    """ModelNotFoundError if models of this task have no endpoint."""
    if card.task not in KINDS:
        raise ModelNotFoundError(f"model {card.name!r} is for the task {card.task!r}, which has no endpoint")
    return KINDS[card.task]


def check_offered(card: ModelCard, action: str) -> None:
    """ModelNotFoundError if the model does not have this action, with the nearest that it has."""
    offered = kind_of(card).actions
    if action not in offered:
        raise ModelNotFoundError(f"model {card.name!r} has no {action!r}", nearest(action, offered))


def endpoint(card: ModelCard, network: nn.Module, settings: ServeSettings, device: torch.device) -> Endpoint:
    """The endpoint of a loaded model. ModelError if the network does not fit its card."""
    return kind_of(card)(card, network, settings, device)
