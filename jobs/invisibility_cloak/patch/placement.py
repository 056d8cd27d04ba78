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
    """float32 (2, m x samples): places in it, on the image: x and y from the upper left corner"""
    count: int
    """samples of a pixel"""

    def of(self, pixels: Tensor) -> Tensor:
        """The samples of some of the pixels: int64 (k x samples,). pixels: int64 (k,), places in `pixels`."""
        return (pixels[:, None] * self.count + torch.arange(self.count)).flatten()

    @property
    def boxes_of_samples(self) -> Tensor:
        """int64 (m x samples,): the box of each sample"""
        return self.boxes if self.count == 1 else self.boxes.repeat_interleave(self.count)


def samples_of(
    targets: Targets, size: tuple[int, int], shape: tuple[int, int], params: RenderingParams, drawn: Draws | None
) -> Samples:
    """All pixels in the smallest upright windows that hold the patches.

    size: of the images, shape: of the patch, (height, width) both.
    """
    centres, sides = _placed(targets, shape, params, drawn)
    angles = torch.zeros(len(targets)) if drawn is None else drawn.angles
    cosines, sines = angles.cos().abs(), angles.sin().abs()
    halves = sides / 2
    reach = torch.stack([cosines, sines], 1) * halves[:, :1] + torch.stack([sines, cosines], 1) * halves[:, 1:]
    reach = reach + _rim(sides, shape)
    height, width = size
    limit = torch.tensor([width, height])
    low = torch.minimum((centres - reach).floor().long().clamp(min=0), limit)
    high = torch.minimum((centres + reach).ceil().long().clamp(min=0), limit)
    across = high[:, 0] - low[:, 0]
    counts = across * (high[:, 1] - low[:, 1])
    boxes = torch.repeat_interleave(torch.arange(len(targets)), counts)
    start, wide, left, top, image = _of_each(
        torch.stack([counts.cumsum(0) - counts, across, low[:, 0], low[:, 1], targets.images], 1), boxes
    )
    numbers = torch.arange(len(boxes)) - start
    down = numbers // wide
    columns, rows = left + numbers - down * wide, top + down
    pixels = (image * height + rows) * width + columns
    steps = (torch.arange(params.samples) + 0.5) / params.samples
    offsets = torch.cartesian_prod(steps, steps).view(-1, 2).T
    at = torch.stack([columns, rows])[..., None] + offsets[:, None]  # (2, m, samples)
    return Samples(boxes, pixels, at.flatten(1), len(steps) ** 2)


def windows_of(targets: Targets, count: int, shape: tuple[int, int], params: RenderingParams) -> Tensor:
    """The smallest upright windows that hold all that patches may cover, whatever is drawn: float32 (count, 4).

    count: of images. shape: of the patch, (height, width). Corners in pixels, also beyond the image; of an image
    without targets, zeros.
    """
    centres, sides = _placed(targets, shape, params, None)
    slope = math.sin(math.radians(min(params.rotation, 90.0)))
    reach = (sides + slope * sides.flip(1)) / 2 + _rim(sides, shape)
    low, high = centres - reach, centres + reach
    low[:, 1] -= params.lift * (targets.corners[:, 3] - targets.corners[:, 1])
    windows = torch.tensor([torch.inf, torch.inf, -torch.inf, -torch.inf]).repeat(count, 1)
    images = targets.images[:, None].expand(-1, 2)
    windows[:, :2].scatter_reduce_(0, images, low, "amin")
    windows[:, 2:].scatter_reduce_(0, images, high, "amax")
    return windows.where(windows.isfinite(), 0.0)


def places_on_patch(
    samples: Samples, targets: Targets, shape: tuple[int, int], params: RenderingParams, drawn: Draws | None
) -> Tensor:
    """Where the patch lies under each sample as it is seen: (2, m x samples).

    In units of the sides of the patch, from its upper left corner. Wrinkles move what is on the patch and not its edge,
    so these places say what is covered, and `unwrinkled` of them which colour it has.
    """
    centres, sides = _placed(targets, shape, params, drawn)
    boxes = samples.boxes_of_samples
    at = samples.at - _of_each(centres, boxes)
    if drawn is None:
        return at / _of_each(sides, boxes) + 0.5
    cosines, sines = drawn.angles.cos(), drawn.angles.sin()
    turn = torch.stack([torch.stack([cosines, sines], 1), torch.stack([-sines, cosines], 1)], 1)  # (boxes, 2, 2)
    maps = torch.zeros(len(targets), 3, 3)
    maps[:, :2, :2] = turn / sides[:, :, None]
    maps[:, :2, 2], maps[:, 2, 2] = 0.5, 1.0
    if not params.perspective:
        flat = _of_each(maps[:, :2], boxes)
        return flat[:, 0] * at[0] + flat[:, 1] * at[1] + flat[:, 2]
    corners = torch.tensor(CORNERS).expand(len(targets), -1, -1)
    inward = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    maps = homography(corners + inward * drawn.insets, corners) @ maps
    return projected(_of_each(maps, boxes), at)


def unwrinkled(boxes: Tensor, seen: Tensor, params: RenderingParams, drawn: Draws | None) -> Tensor:
    """The places of the patch that are seen at others, (2, m) each, as in `places_on_patch`. boxes: int64 (m,)."""
    if drawn is None or not params.wrinkle:
        return seen
    controls = torch.tensor(CONTROLS).expand(len(drawn.angles), -1, -1)
    moved = controls + drawn.wrinkles
    return splined(_of_each(spline(moved, controls), boxes), _of_each(moved, boxes), seen)


def _rim(sides: Tensor, shape: tuple[int, int]) -> Tensor:
    """How far beyond its sides a patch fades out, (boxes, 1): over the width of one of its own pixels."""
    return (sides / torch.tensor([shape[1], shape[0]])).amax(1, keepdim=True) + 1


def _of_each(values: Tensor, boxes: Tensor) -> Tensor:
    """What the box of each place has: (..., m). values: (all boxes, ...). boxes: int64 (m,), of each place.

    Places come last, so that sums over a handful of numbers of each are fast.
    """
    table = values.flatten(1).T.contiguous()
    return table.index_select(1, boxes).view(*values.shape[1:], -1)


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
