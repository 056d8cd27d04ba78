"""What a camera adds, simulated: colours, blur, noise, JPEG; and the tilt of a sheet in front of it."""

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from jobs.common.params import StudyParams
from jobs.invisibility_cloak.physical.colour_map import ColourMap
from jobs.invisibility_cloak.physical.views import view, warped


class CameraParams(StudyParams):
    """What is between a scene and its photograph, besides colours."""

    blur: float = Field(0.5, ge=0, le=20, description="standard deviation of the blur, in pixels; 0: none")
    noise: float = Field(0.01, ge=0, le=1, description="standard deviation of the noise of a pixel, of full scale")
    quality: int | None = Field(75, ge=5, le=100, description="of JPEG files; none: not written as such")


@dataclass(frozen=True)
class Reproduction:
    """What is between a patch on the screen and a photograph of people who wear it. Without both parts: nothing."""

    colours: ColourMap | None = None
    """of printer and camera; None: colours stay as they are"""
    camera: CameraParams | None = None
    """None: no blur, no noise, no file"""

    def printed(self, patch: Tensor) -> Tensor:
        """A patch as its colours are seen. patch: (3, height, width) in [0, 1]. Keeps the gradient."""
        return patch if self.colours is None else self.colours(patch)

    def photographed(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Images with patches as a camera keeps them. images: (batch, 3, height, width). Keeps the gradient.

        generator: of the noise; None: the same noise at every call.
        """
        if self.camera is None:
            return images
        return photographed(images, self.camera, generator or torch.Generator().manual_seed(0))


def photographed(images: Tensor, camera: CameraParams, generator: torch.Generator) -> Tensor:
    """Images as a camera keeps them. images: (batch, 3, height, width) in [0, 1]. Returns the same shape.

    The gradient passes blur and noise as it is, and JPEG as if that were not there.
    """
    seen = blurred(images, camera.blur)
    if camera.noise:
        noise = torch.randn(seen.shape, generator=generator, dtype=torch.float32)
        seen = seen + camera.noise * noise.to(seen)
    seen = seen.clamp(0, 1)
    if camera.quality is not None:
        kept = torch.stack([compressed(image, camera.quality) for image in seen.detach().cpu()])
        seen = seen + (kept.to(seen) - seen).detach()
    return seen


def blurred(images: Tensor, deviation: float) -> Tensor:
    """Gaussian blur, the edge pixels continued. images: (batch, channels, height, width). deviation: in pixels."""
    if not deviation:
        return images
    reach = max(1, round(3 * deviation))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1).to(images) / deviation) ** 2)
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, -1)
    padded = functional.pad(images, [reach] * 4, mode="replicate")
    across = functional.conv2d(padded, kernel[:, :, None], groups=images.shape[1])
    return functional.conv2d(across, kernel[..., None], groups=images.shape[1])


def compressed(image: Tensor, quality: int) -> Tensor:
    """An image (3, height, width) in [0, 1] after a JPEG file of a quality from 5 to 100."""
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=quality)
    read = np.asarray(Image.open(content, formats=("JPEG",)).convert("RGB"), np.float32)
    return torch.from_numpy(read).permute(2, 0, 1) / 255


def photographed_sheet(
    sheet: np.ndarray,
    colours: ColourMap | None,
    corners: np.ndarray,
    size: tuple[int, int],
    camera: CameraParams,
    generator: torch.Generator,
    table: float = 0.35,
) -> Image.Image:
    """A sheet that lies on a table, seen from wherever.

    sheet: uint8 (height, width, 3). corners: where its corners are in the picture, clockwise from the upper left one:
    (4, 2), x and y in pixels. size: height and width of the picture. table: its brightness in [0, 1].
    """
    height, width, _ = sheet.shape
    own = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    printed = torch.from_numpy(sheet.astype(np.float32)).permute(2, 0, 1)[None] / 255
    if colours is not None:
        printed = colours(printed)
    scene = warped(printed[0].permute(1, 2, 0).numpy(), view(corners, own), *size, outside=table)
    images = torch.from_numpy(scene).float().permute(2, 0, 1)[None]
    picture = photographed(images, camera, generator)[0]
    return Image.fromarray((picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
