"""A patch under one condition that is not as it was made for: its size, its angle, its light, what covers it."""

import torch
from torch import Tensor

from jobs.invisibility_cloak.patch.placement import turned
from jobs.invisibility_cloak.patch.rendering import render
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from jobs.invisibility_cloak.patch.targets import Targets

COVER = 0.5  # the grey of what covers a patch


def drawn_under(
    axis: str,
    value: float,
    patch: Tensor,
    images: Tensor,
    targets: Targets,
    rendering: RenderingParams,
    generator: torch.Generator,
) -> Tensor:
    """Images with an upright patch on each target: (batch, 3, height, width).

    axis: scale, angle, brightness or occlusion, and its value as `CurveParams` says. patch: (3, height, width).
    generator: on the CPU, of the place of what covers the patch, which is another one on each image.
    """
    match axis:
        case "scale":
            return render(patch, images, targets, rendering.model_copy(update={"scale": value}))
        case "angle":
            return render(patch, images, targets, rendering, turned(len(targets), value))
        case "brightness":
            return render((patch + value).clamp(0, 1), images, targets, rendering)
    drawn = []
    for number, image in enumerate(images):
        own = targets.images == number
        alone = Targets(targets.corners[own], torch.zeros(int(own.sum()), dtype=torch.int64), targets.skipped)
        drawn.append(render(covered(patch, value, generator), image[None], alone, rendering))
    return torch.cat(drawn)


def covered(patch: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A patch with a grey rectangle of its own shape somewhere on it. share: of its area, in [0, 1)."""
    _, height, width = patch.shape
    down, across = torch.rand(2, generator=generator).tolist()
    rows, columns = round(share**0.5 * height), round(share**0.5 * width)
    top, left = round(down * (height - rows)), round(across * (width - columns))
    result = patch.clone()
    result[:, top : top + rows, left : left + columns] = COVER
    return result
