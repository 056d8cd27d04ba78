"""Patches that are there: of the model store by name, where a study has put them, or as a request brings them."""

from dataclasses import dataclass

from pydantic import ValidationError
from torch import Tensor

from jobs.invisibility_cloak.patch.model import TASK, StoredPatch
from jobs.invisibility_cloak.patch.rendering import check_patch
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from service import models
from service.errors import InputError, ModelError, StoreError
from service.store import Folder
from serving.http.store_errors import unreadable

LARGEST_FILE = 16 << 20  # bytes of the weights: more than 1,024 pixels a side


@dataclass(frozen=True)
class DrawnPatch:
    """A patch and how it is drawn. pixels: (3, height, width) in [0, 1], on the CPU."""

    pixels: Tensor
    rendering: RenderingParams


def find_patch(store: Folder | None, reference: str) -> DrawnPatch:
    """A patch of the store. reference: NAME or NAME/VERSION. InputError, one sentence, if there is none.

    StoreError, which does not say where the store is, if it cannot be read.
    """
    if store is None:
        raise InputError("parameter 'patch' names a patch of the model store, which this server does not read")
    try:
        card = models.find(store, *models.parse_reference(reference))
        if card.task != TASK:
            raise InputError(f"the task of model {card.name!r} must be {TASK}; it is {card.task}")
        if card.bytes > LARGEST_FILE:
            raise InputError(f"a patch must have at most {LARGEST_FILE:,} bytes; {card.name!r} has {card.bytes:,}")
        network = models.load(store, card)
        rendering = RenderingParams.model_validate(card.settings.get("rendering", {}), strict=False)
    except (ModelError, InputError) as error:
        raise InputError(f"parameter 'patch': {error.message}", error.hint) from error
    except StoreError as error:
        raise unreadable(error, "parameter 'patch'") from error
    except ValidationError as error:
        raise InputError(
            f"parameter 'patch': the card does not say how it is drawn: {error.errors()[0]['msg']}"
        ) from error
    if not isinstance(network, StoredPatch):
        raise InputError(f"parameter 'patch': model {card.name!r} is a {type(network).__name__}")
    pixels = network()
    check_patch(pixels, f"patch {card.name!r}")
    return DrawnPatch(pixels, rendering)
