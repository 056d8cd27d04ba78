"""A detector that needs no training: it finds red squares, which it calls persons, and green ones, trees."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from jobs.common.detection.base import Detector, Priors
from jobs.common.detection.boxes import Boxes
from jobs.common.detection.suppression import surest
from jobs.invisibility_cloak.patch.model import patch_card, stored
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from service.models import CardDraft, ModelCard, TensorSpec, publish
from service.store import Folder

SIDE, STRIDE = 32, 4
"""of the squares in pixels, and of the places where it looks"""
CLASSES = ("person", "tree")
RED, GREEN = (0.9, 0.1, 0.1), (0.1, 0.9, 0.1)


class Squares(Detector):
    """At each place the mean over a square of how red, and how green it is. It never scales an image."""

    name = "squares"
    classes = CLASSES
    substitute = None

    def __init__(self) -> None:
        super().__init__()
        colours = torch.tensor([[1, -0.5, -0.5], [-0.5, 1, -0.5]])
        self.colours = nn.Parameter(colours[:, :, None, None])

    def priors(self, images: Tensor) -> Priors:
        means = avg_pool2d(
            nn.functional.conv2d(images, self.colours), SIDE, STRIDE, SIDE // 2
        )  # (batch, 2, rows, columns)
        rows, columns = means.shape[2:]
        y, x = torch.meshgrid(STRIDE * torch.arange(rows), STRIDE * torch.arange(columns), indexing="ij")
        centres = torch.stack([x, y], 2).flatten(0, 1).to(images)
        corners = torch.cat([centres - SIDE / 2, centres + SIDE / 2], 1)
        means = means.flatten(2)  # (batch, 2, priors)
        return Priors(
            corners.expand(len(images), -1, -1), 20 * (means.amax(1) - 0.5), (20 * means).softmax(1).transpose(1, 2)
        )

    def detect(self, images: Tensor, confidence: float = 0.02, overlap: float = 0.45, most: int = 300) -> list[Boxes]:
        with torch.no_grad():
            priors = self.priors(images)
            size = images.shape[2], images.shape[3]
            return surest(priors.corners, priors.scores(), size, confidence, overlap, most)


def draft(**changes: Any) -> CardDraft:
    """Its card. The settings of a server that is to build it trust the package of the tests."""
    fields: dict[str, Any] = {
        "architecture": "tests.serving.squares:Squares",
        "arguments": {},
        "study": "invisibility_cloak",
        "task": "object_detection",
        "inputs": (TensorSpec(name="images", datatype="FP32", shape=(-1, 3, -1, -1)),),
        "outputs": (),
        "settings": {"classes": list(CLASSES)},
        "metrics": {},
        "description": "finds red and green squares",
    }
    return CardDraft(**{**fields, **changes})


def put_squares(store: Folder, name: str, **changes: Any) -> ModelCard:
    """Publish the next version of the detector."""
    return publish(store, name, Squares().state_dict(), draft(**changes))


def blue_patch() -> Tensor:
    """A patch that hides red squares and green ones: (3, 50, 30)."""
    patch = torch.zeros(3, 50, 30)
    patch[2] = 1
    return patch


def put_patch(store: Folder, name: str, patch: Tensor, **rendering: Any) -> ModelCard:
    """Publish a patch, as the study does. rendering: how it is drawn; 0.7 diagonals wide if that is not said."""
    card = patch_card(patch, "person", ["squares"], RenderingParams(**{"scale": 0.7, **rendering}), {})
    return publish(store, name, stored(patch).state_dict(), card)


def scene(
    height: int, width: int, persons: list[tuple[int, int]] | None = None, trees: list[tuple[int, int]] | None = None
) -> Tensor:
    """A grey picture (3, height, width) with squares, given by their left and top; its pixels are of 8 bits."""
    image = torch.full((3, height, width), 0.5)
    for colour, places in ((RED, persons or []), (GREEN, trees or [])):
        for left, top in places:
            image[:, top : top + SIDE, left : left + SIDE] = torch.tensor(colour)[:, None, None]
    return (image * 255).round() / 255


def corners_of(places: list[tuple[int, int]]) -> list[list[float]]:
    """Of squares, in order of their left and top."""
    return [[left, top, left + SIDE, top + SIDE] for left, top in sorted(places)]
