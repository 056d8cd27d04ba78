"""How a model is served: by the task that its card names. A new kind is a module of this package and a line here."""

from collections.abc import Mapping

from service.errors import ModelNotFoundError, nearest
from service.models import ModelCard
from serving.kinds.classification import Classification
from serving.kinds.segmentation import Segmentation
from serving.kinds.thinking import DeepThinking

Kind = type[DeepThinking] | type[Classification] | type[Segmentation]

KINDS: Mapping[str, Kind] = {
    "thinking": DeepThinking,
    "classification": Classification,
    "segmentation": Segmentation,
}
ACTIONS = sorted({action for kind in KINDS.values() for action in kind.actions})


def kind_of(card: ModelCard) -> Kind:
    """ModelNotFoundError if models of this task have no endpoint."""
    if card.task not in KINDS:
        raise ModelNotFoundError(f"model {card.name!r} is for the task {card.task!r}, which has no endpoint")
    return KINDS[card.task]


def check_offered(card: ModelCard, action: str) -> None:
    """ModelNotFoundError if the model does not do this, with what it does."""
    offered = kind_of(card).actions
    if action not in offered:
        raise ModelNotFoundError(f"model {card.name!r} has no {action!r}", nearest(action, offered))
