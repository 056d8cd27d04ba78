"""A patch in the model store: its pixels as the weights of a network that has nothing else, and its card."""

from collections.abc import Sequence

import torch
from pydantic import ValidationError
from pydantic_core import to_json
from torch import Tensor, nn

from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from service.errors import FieldError, ModelError
from service.models import CardDraft, ModelCard, TensorSpec

TASK = "patch"
LARGEST = 4096


class StoredPatch(nn.Module):
    """A patch. Called without arguments it gives its pixels: float32 (3, height, width), red green blue in [0, 1]."""

    def __init__(self, height: int, width: int) -> None:
        """FieldError if a side is out of range: a stranger's card may say anything."""
        super().__init__()
        for name, side in (("height", height), ("width", width)):
            if not isinstance(side, int) or not 1 <= side <= LARGEST:
                raise FieldError(name, f"be a whole number from 1 to {LARGEST:,}", side)
        self.pixels = nn.Parameter(torch.full((3, height, width), 0.5), requires_grad=False)

    def forward(self) -> Tensor:
        return self.pixels.detach()


ARCHITECTURES = {"patch": StoredPatch}
"""what cards may name"""


def stored(patch: Tensor) -> StoredPatch:
    """A patch as what is saved. patch: (3, height, width)."""
    module = StoredPatch(patch.shape[1], patch.shape[2])
    with torch.no_grad():
        module.pixels.copy_(patch)
    return module


def patch_card(
    patch: Tensor, hidden: str, detectors: Sequence[str], rendering: RenderingParams, metrics: dict[str, float]
) -> CardDraft:
    """What is known of a patch. hidden: the class that it hides. detectors: names of those that it was made against.

    settings holds `hidden`, `detectors`, and `rendering`: the parameters with which it was drawn, as JSON.
    """
    height, width = patch.shape[1:]
    return CardDraft(
        architecture="jobs.invisibility_cloak.patch.model:patch",
        arguments={"height": height, "width": width},
        study="invisibility_cloak",
        task=TASK,
        inputs=(),
        outputs=(TensorSpec(name="pixels", datatype="FP32", shape=(3, height, width)),),
        settings={"hidden": hidden, "detectors": list(detectors), "rendering": rendering.model_dump(mode="json")},
        metrics=metrics,
        description=f"a patch that hides the class {hidden} from {', '.join(detectors)}",
    )


def rendering_of(card: ModelCard) -> RenderingParams:
    """How a stored patch is drawn. ModelError if its card does not say so."""
    try:
        return RenderingParams.model_validate_json(to_json(card.settings.get("rendering", {})))
    except ValidationError as error:
        raise ModelError(f"model {card.name!r} version {card.version}: its rendering is damaged: {error}") from error
