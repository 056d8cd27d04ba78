"""Where on an image each pixel of a patch lies: wrinkled, seen from aside, turned, scaled and moved, at random.

Source: Wu et al. 2020, section 3.1 and the released code. Each map is applied to places, and the patch is sampled once.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.invisibility_cloak.patch.perspective import homography, projected
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from jobs.invisibility_cloak.patch.targets import Targets
from jobs.invisibility_cloak.patch.thin_plate_spline import spline, splined

CORNERS = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
CONTROLS = (*CORNERS, (0.2, 0.3), (0.6, 0.7))
"""of the spline, in units of the sides of the patch"""


@dataclass(frozen=True)
class Draws:
    """What is random about the patch on each box; the boxes come first in all shapes."""

    contrast: Tensor
    """(boxes, 1): what colours are multiplied with"""
    brightness: Tensor
    """(boxes, 1): what is added then"""
    angles: Tensor
    """(boxes,) in radians, clockwise as one sees it"""
    lifts: Tensor
    """(boxes,): by how much of the height of the box the patch is moved down; negative: up"""
    wrinkles: Tensor
    """(boxes, 6, 2): by how much the control points move, in units of the sides of the patch"""
    insets: Tensor
    """(boxes, 4, 2): how far the corners move inward, in the same units"""


def draws(count: int, params: RenderingParams, generator: torch.Generator) -> Draws:
    """Random draws for some boxes, on the CPU. The number of values of a box does not depend on the parameters."""
    values = torch.rand(count, 25, generator=generator)
    both = 2 * values - 1
    low, high = params.contrast
    distortion = params.perspective * values[:, 4].view(-1, 1, 1)
    return Draws(
        contrast=low + (high - low) * values[:, :1],
        brightness=params.brightness * both[:, 1:2],
        angles=math.radians(params.rotation) * both[:, 2],
        lifts=-params.lift * values[:, 3],
        wrinkles=params.wrinkle * both[:, 5:17].view(-1, 6, 2),
        insets=0.5 * distortion * values[:, 17:].view(-1, 4, 2),
    )


def turned(count: int, degrees: float) -> Draws:
    """Draws of which nothing is random: upright but for an angle, clockwise."""
    return Draws(
        contrast=torch.ones(count, 1),
        brightness=torch.zeros(count, 1),
        angles=torch.full((count,), math.radians(degrees)),
        lifts=torch.zeros(count),
        wrinkles=torch.zeros(count, 6, 2),
        insets=torch.zeros(count, 4, 2),
    )


@dataclass(frozen=True)
class Samples:
    """The pixels of images that patches may cover, in the order of drawing."""

    boxes: Tensor
    """int64 (m,): the box of each"""
    pixels: Tensor
    """int64 (m,): its number among all pixels of the batch, image by image, row by row"""
    at: Tensor
    """float32 (m, samples, 2): places in it, on the image: x and y from the upper left corner"""


def samples_of(
    targets: Targets, size: tuple[int, int], shape: tuple[int, int], params: RenderingParams, drawn: Draws | None
) -> Samples:
    """All pixels in the smallest upright windows that hold the patches.

    size: of the images, shape: of the patch, (height, width) both.
    """
    centres, sides = _placed(targets, shape, params, drawn)
    angles = torch.zeros(len(targets)) if drawn is None else drawn.angles
    cosines, sines = angles.cos().abs(), angles.sin().abs()
    wide, tall = (sides / 2).unbind(1)
    reach = torch.stack([wide * cosines + tall * sines, wide * sines + tall * cosines], 1)
    # a pixel of the patch fades out over its own width
    reach = reach + (sides / torch.tensor([shape[1], shape[0]])).amax(1, keepdim=True) + 1
    height, width = size
    limit = torch.tensor([width, height])
    low = torch.minimum((centres - reach).floor().long().clamp(min=0), limit)
    high = torch.minimum((centres + reach).ceil().long().clamp(min=0), limit)
    across, down = (high - low).unbind(1)
    counts = across * down
    boxes = torch.repeat_interleave(torch.arange(len(targets)), counts)
    numbers = torch.arange(len(boxes)) - (counts.cumsum(0) - counts)[boxes]
    columns, rows = low[boxes, 0] + numbers % across[boxes], low[boxes, 1] + numbers // across[boxes]
    pixels = (targets.images[boxes] * height + rows) * width + columns
    steps = (torch.arange(params.samples) + 0.5) / params.samples
    offsets = torch.cartesian_prod(steps, steps).view(-1, 2)
    return Samples(boxes, pixels, torch.stack([columns, rows], 1)[:, None] + offsets)


def places_on_patch(
    samples: Samples, targets: Targets, shape: tuple[int, int], params: RenderingParams, drawn: Draws | None
) -> Tensor:
    """Where the patch lies under each sample as it is seen: (m x samples, 2).

    In units of the sides of the patch, from its upper left corner. Wrinkles move what is on the patch and not its edge,
    so these places say what is covered, and `unwrinkled` of them which colour it has.
    """
    centres, sides = _placed(targets, shape, params, drawn)
    at = (samples.at - centres[samples.boxes, None]).flatten(0, 1)
    if drawn is None:
        return at / _repeated(samples, sides) + 0.5
    cosines, sines = drawn.angles.cos(), drawn.angles.sin()
    turn = torch.stack([torch.stack([cosines, sines], 1), torch.stack([-sines, cosines], 1)], 1)  # (boxes, 2, 2)
    maps = torch.zeros(len(targets), 3, 3)
    maps[:, :2, :2] = turn / sides[:, :, None]
    maps[:, :2, 2], maps[:, 2, 2] = 0.5, 1.0
    if not params.perspective:
        flat = _repeated(samples, maps[:, :2])
        return (flat[:, :, :2] * at[:, None]).sum(2) + flat[:, :, 2]
    corners = torch.tensor(CORNERS).expand(len(targets), -1, -1)
    inward = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    maps = homography(corners + inward * drawn.insets, corners) @ maps
    return projected(_repeated(samples, maps), at)


def unwrinkled(boxes: Tensor, seen: Tensor, params: RenderingParams, drawn: Draws | None) -> Tensor:
    """The places of the patch that are seen at others, (m, 2) each, as in `places_on_patch`. boxes: int64 (m,)."""
    if drawn is None or not params.wrinkle:
        return seen
    controls = torch.tensor(CONTROLS).expand(len(drawn.angles), -1, -1)
    moved = controls + drawn.wrinkles
    return splined(spline(moved, controls)[boxes], moved[boxes], seen)


def _repeated(samples: Samples, values: Tensor) -> Tensor:
    """What each box has, for each of its samples: (m x samples, ...). values: (boxes, ...)."""
    return values[samples.boxes].repeat_interleave(samples.at.shape[1], 0)


def _placed(
    targets: Targets, shape: tuple[int, int], params: RenderingParams, drawn: Draws | None
) -> tuple[Tensor, Tensor]:
    """Centres of the patches, and their width and height: (boxes, 2) each, in pixels of the images."""
    corners = targets.corners
    spans = corners[:, 2:] - corners[:, :2]
    centres = 0.5 * (corners[:, :2] + corners[:, 2:])
    if drawn is not None:
        centres = torch.stack([centres[:, 0], centres[:, 1] + drawn.lifts * spans[:, 1]], 1)
    widths = params.scale * torch.hypot(spans[:, 0], spans[:, 1])
    return centres, torch.stack([widths, widths * shape[0] / shape[1]], 1)
