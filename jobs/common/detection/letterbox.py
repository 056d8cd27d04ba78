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


def letterbox(images: Tensor, height: int, width: int, fill: float = GREY) -> tuple[Tensor, Placement]:
    """Images in the middle of a frame, as large as it holds them, and where they lie. Differentiable.

    images: (batch, 3, height, width), all of one size. height, width: of the frame. fill: beside the image. Images of
    the size of the frame stay as they are. InputError if they are no such batch.
    """
    check_images(images)
    given_height, given_width = images.shape[2:]
    scale = min(height / given_height, width / given_width)
    inner_height, inner_width = (max(1, round(scale * side)) for side in (given_height, given_width))
    if (inner_height, inner_width) != (given_height, given_width):
        # antialiased: a smaller image still shows all pixels, and all of them have a gradient
        images = functional.interpolate(images, (inner_height, inner_width), mode="bilinear", antialias=True)
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    if (inner_height, inner_width) != (height, width):
        sides = (left, width - inner_width - left, top, height - inner_height - top)
        images = functional.pad(images, sides, value=fill)
    return images, Placement(inner_width / given_width, inner_height / given_height, left, top)


def check_images(images: Tensor) -> None:
    """InputError unless a detector can look at them."""
    form = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point() or 0 in images.shape[2:]:
        raise InputError(f"images must be floats (batch, 3, height, width) in [0, 1]; they are {form}")
