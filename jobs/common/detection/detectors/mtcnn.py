"""MTCNN, which detects faces with three networks, each of which looks closer at what the one before it lets pass.

Zhang, Zhang, Li, Qiao 2016, "Joint Face Detection and Alignment Using Multi-task Cascaded Convolutional Networks"
(arXiv 1604.02878). The weights are those of the package facenet-pytorch. What is attacked are the priors of the first
network, at all sizes: it says of each place whether there is a face, and what it does not let pass is lost.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.data.packages import FACENET
from jobs.common.detection.base import Detector, Priors, frozen
from jobs.common.detection.boxes import Boxes
from jobs.common.detection.letterbox import check_images
from jobs.common.detection.suppression import check, kept, surest
from service.errors import InputError, first_line

SMALLEST_FACE = 20  # pixels
SHRINKING = 0.709  # from one size of the images to the next: half of the pixels
CELL, STRIDE = 12, 2  # pixels that the first network decides on, and between two of its places
WINDOWS = (24, 48)  # pixels that the others are shown
LEAST = (0.6, 0.7)  # scores that the first two let pass
OVERLAP, OVERLAP_OF_A_SIZE = 0.7, 0.5
MOST_CANDIDATES = 2000  # of an image, the surest, that the second network is shown


class Stage(nn.Module):
    """One of the three networks: whether a window is a face, and where its sides are."""

    def __init__(self, layers: Sequence[tuple[str, nn.Module]], head: type[nn.Module], width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(OrderedDict(layers))
        size = (1,) if head is nn.Conv2d else ()
        self.face = head(width, 2, *size)
        self.sides = head(width, 4, *size)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images: (batch, 3, height, width) in [0, 1]. Returns logits (batch, ...), and sides (batch, 4, ...).

        Sides are left, top, right, bottom, from where those of the window are, in its width and height.
        """
        features = self.body((255 * images - 127.5) / 128)
        face: Tensor = self.face(features)
        return face[:, 1] - face[:, 0], self.sides(features)


class Columns(nn.Module):
    """All values of an image, column by column, the channels of a place beside each other."""

    def forward(self, features: Tensor) -> Tensor:
        """features: (batch, channels, height, width). Returns (batch, width x height x channels)."""
        return features.transpose(1, 3).flatten(1)


class Mtcnn(Detector):
    """Priors: all places of the first network on the largest image, row by row, then those of the smaller ones."""

    name = "mtcnn"
    classes = ("face",)
    substitute = None

    def __init__(self) -> None:
        super().__init__()
        self.first = Stage(
            [*_convolution(1, 3, 10, 2), *_convolution(2, 10, 16), *_convolution(3, 16, 32)], nn.Conv2d, 32
        )
        self.second = Stage(
            [
                *_convolution(1, 3, 28, 3),
                *_convolution(2, 28, 48, 3),
                *_convolution(3, 48, 64, 0, 2),
                *_dense(4, 576, 128),
            ],
            nn.Linear,
            128,
        )
        self.third = Stage(
            [
                *(*_convolution(1, 3, 32, 3), *_convolution(2, 32, 64, 3), *_convolution(3, 64, 64, 2)),
                *(*_convolution(4, 64, 128, 0, 2), *_dense(5, 1152, 256)),
            ],
            nn.Linear,
            256,
        )

    def priors(self, images: Tensor) -> Priors:
        check_images(images)
        height, width = images.shape[2:]
        corners, logits = [], []
        for scale in _scales(height, width):
            size = (max(CELL, round(scale * height)), max(CELL, round(scale * width)))
            smaller = functional.interpolate(images, size, mode="area")
            face, sides = self.first(smaller)
            rows, columns = face.shape[1:]
            down, across = torch.meshgrid(
                torch.arange(rows, device=images.device), torch.arange(columns, device=images.device), indexing="ij"
            )
            starts = STRIDE * torch.stack([across, down], 2).view(-1, 2)
            windows = torch.cat([starts, starts + CELL], 1) + CELL * sides.flatten(2).transpose(1, 2)
            corners.append(windows * images.new_tensor([width / size[1], height / size[0]] * 2))
            logits.append(face.flatten(1))
        objectness = torch.cat(logits, 1)
        levels = tuple(level.shape[1] for level in logits)
        return Priors(torch.cat(corners, 1), objectness, torch.ones_like(objectness)[..., None], levels)

    @torch.no_grad()
    def detect(self, images: Tensor, confidence: float = 0.02, overlap: float = 0.45, most: int = 300) -> list[Boxes]:
        """As the interface has it, of what all three networks let pass; scores are those of the last."""
        check(confidence, overlap, most)
        priors = self.priors(images)
        assert priors.objectness is not None
        scores = torch.sigmoid(priors.objectness)
        sizes = torch.repeat_interleave(torch.arange(len(priors.levels)), torch.tensor(priors.levels)).to(images.device)
        found = []
        for image, corners, confident in zip(images, priors.corners, scores, strict=True):
            passed = confident >= LEAST[0]
            corners, confident, of_size = corners[passed], confident[passed], sizes[passed]
            places = kept(corners, confident, of_size, OVERLAP_OF_A_SIZE)[:MOST_CANDIDATES]
            corners = corners[places[kept(corners[places], confident[places], of_size[places] * 0, OVERLAP)]]
            confident, corners = _looked_at(self.second, image, corners, WINDOWS[0])
            passed = confident >= LEAST[1]
            corners, confident = corners[passed], confident[passed]
            corners = corners[kept(corners, confident, torch.zeros_like(confident, dtype=torch.int64), OVERLAP)]
            confident, corners = _looked_at(self.third, image, corners, WINDOWS[1])
            size = (images.shape[2], images.shape[3])
            found += surest(corners[None], confident[None, :, None], size, confidence, overlap, most)
        return found


def load(folder: Path | None = None) -> Mtcnn:
    """With its weights, for attacks. folder: of data; none: the default one. InputError: a file is not there."""
    detector = Mtcnn()
    for stage, name in ((detector.first, "pnet"), (detector.second, "rnet"), (detector.third, "onet")):
        path = FACENET.path(f"{name}.pt", folder)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            named = {_own_name(each): tensor for each, tensor in state.items()}
            stage.load_state_dict({each: tensor for each, tensor in named.items() if each is not None})
        except Exception as error:  # what is no such file makes the reader raise almost anything
            raise InputError(f"{path.name} is no file of weights of MTCNN: {first_line(error)}") from error
    frozen(detector)
    return detector


def _own_name(name: str) -> str | None:
    """Of a weight: of two or three heads there, the last, which knows eyes and mouth, is not needed."""
    layer, _, rest = name.partition(".")
    if "_" not in layer:
        return f"body.{layer}.{rest}"
    head = {"1": "face", "2": "sides"}.get(layer[-1])
    return None if head is None else f"{head}.{rest}"


def _convolution(
    number: int, before: int, channels: int, pool: int = 0, kernel: int = 3
) -> list[tuple[str, nn.Module]]:
    """A convolution without padding, its ReLU with a slope for each channel, and its pooling to half of the size."""
    layers: list[tuple[str, nn.Module]] = [
        (f"conv{number}", nn.Conv2d(before, channels, kernel)),
        (f"prelu{number}", nn.PReLU(channels)),
    ]
    return layers + ([(f"pool{number}", nn.MaxPool2d(pool, 2, ceil_mode=True))] if pool else [])


def _dense(number: int, before: int, width: int) -> list[tuple[str, nn.Module]]:
    return [
        ("columns", Columns()),
        (f"dense{number}", nn.Linear(before, width)),
        (f"prelu{number}", nn.PReLU(width)),
    ]


def _scales(height: int, width: int) -> list[float]:
    """Of the sizes at which the first network sees the images: faces of 20 pixels to the shorter side are its cell."""
    scales = [CELL / min(SMALLEST_FACE, height, width)]
    while scales[-1] * SHRINKING * min(height, width) >= CELL:
        scales.append(scales[-1] * SHRINKING)
    return scales


def _looked_at(stage: Stage, image: Tensor, corners: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Scores (n,), and corners (n, 4) as a network moves them.

    image: (3, height, width). corners: (n, 4). window: pixels that the network is shown of each, made square.
    """
    from torchvision.ops import roi_align  # takes a second to load

    middles = (corners[:, :2] + corners[:, 2:]) / 2
    half = (corners[:, 2:] - corners[:, :2]).amax(1, keepdim=True) / 2
    squares = torch.cat([middles - half, middles + half], 1)
    most = image.new_tensor([image.shape[2], image.shape[1]] * 2)
    inside = torch.minimum(squares.clamp_min(0), most)
    inside, squares = (each[(inside[:, 2:] - inside[:, :2]).amin(1) >= 1] for each in (inside, squares))
    logits, sides = stage(roi_align(image[None], [inside], window, aligned=True))
    lengths = (squares[:, 2:] - squares[:, :2]).repeat(1, 2)
    return torch.sigmoid(logits), squares + lengths * sides
