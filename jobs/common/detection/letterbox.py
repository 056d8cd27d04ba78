"""Images of any size as a network needs them: scaled into a fixed frame, grey beside them; and boxes back again."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from service.errors import InputError

GREY = 0.5


@dataclass(frozen=True)
class Placement:
    """Where an image lies in its frame."""

    across: float
    """pixels of the frame for a pixel of the image"""
    down: float
    left: float
    """of the image, in pixels of the frame"""
    top: float

    def back(self, corners: Tensor) -> Tensor:
        """Corners (..., 4) in pixels of the image, of corners in pixels of the frame."""
        start = corners.new_tensor([self.left, self.top, self.left, self.top])
        return (corners - start) / corners.new_tensor([self.across, self.down, self.across, self.down])

    def into(self, corners: Tensor) -> Tensor:
        """Corners (..., 4) in pixels of the frame, of corners in pixels of the image: undoes `back`."""
        start = corners.new_tensor([self.left, self.top, self.left, self.top])
        return corners * corners.new_tensor([self.across, self.down, self.across, self.down]) + start


def placed(given: tuple[int, int], frame: tuple[int, int]) -> tuple[Placement, tuple[int, int]]:
    """Where an image lies in its frame, and its size there: in the middle, as large as the frame holds it.

    given, frame: height and width each.
    """
    scale = min(frame[0] / given[0], frame[1] / given[1])
    height, width = (max(1, round(scale * side)) for side in given)
    left, top = (frame[1] - width) // 2, (frame[0] - height) // 2
    return Placement(width / given[1], height / given[0], left, top), (height, width)


def letterbox(images: Tensor, height: int, width: int, fill: float = GREY) -> tuple[Tensor, Placement]:
    """Images in the middle of a frame, as large as it holds them, and where they lie. Differentiable.

    images: (batch, 3, height, width), all of one size. height, width: of the frame. fill: beside the image. Images of
    the size of the frame stay as they are. InputError if they are no such batch.
    """
    check_images(images)
    placement, size = placed((images.shape[2], images.shape[3]), (height, width))
    if size != images.shape[2:]:
        # antialiased: a smaller image still shows all pixels, and all of them have a gradient
        images = functional.interpolate(images, size, mode="bilinear", antialias=True)
    if size != (height, width):
        left, top = int(placement.left), int(placement.top)
        sides = (left, width - size[1] - left, top, height - size[0] - top)
        images = functional.pad(images, sides, value=fill)
    return images, placement


def check_images(images: Tensor) -> None:
    """InputError unless a detector can look at them."""
    form = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point() or 0 in images.shape[2:]:
        raise InputError(f"images must be floats (batch, 3, height, width) in [0, 1]; they are {form}")
