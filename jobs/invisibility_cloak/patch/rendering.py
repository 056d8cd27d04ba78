"""The rendering function of the paper: a patch on every box of a batch of images, at the same time, differentiable.

Order: median filter; contrast, brightness, noise; thin-plate spline; perspective; rotation, scale and shift; drawn with
an alpha channel that goes through the same maps, so that no dark rim remains; later boxes over earlier ones. The
geometry is composed before the patch is sampled, so that it is interpolated once and not three times.

Source: Wu et al. 2020, "Making an Invisibility Cloak", section 3.1; numbers of its released code.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from jobs.invisibility_cloak.patch.compositing import visible
from jobs.invisibility_cloak.patch.median import median_filtered
from jobs.invisibility_cloak.patch.placement import Draws, draws, places_on_patch, samples_of, unwrinkled
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from jobs.invisibility_cloak.patch.sampling import bilinear, coverage
from jobs.invisibility_cloak.patch.targets import Targets
from service.errors import InputError

DARKEST, BRIGHTEST = 1e-6, 0.99999


def render(
    patch: Tensor,
    images: Tensor,
    targets: Targets,
    params: RenderingParams,
    random: torch.Generator | Draws | None = None,
) -> Tensor:
    """Images with a patch on each target: float32 (batch, 3, height, width) in [0, 1].

    patch: float32 (3, height, width); gradients reach it, and the images. images: (batch, 3, height, width) in [0, 1].
    random: a generator on the CPU of all that is random, or what was drawn before; none: the patch upright and as it
    is, but for its median filter.
    """
    filtered = median_filtered(patch, params.median)
    if not len(targets):
        return images
    shape = (patch.shape[1], patch.shape[2])
    with torch.no_grad():
        drawn = draws(len(targets), params, random) if isinstance(random, torch.Generator) else random
        size = (images.shape[2], images.shape[3])
        samples = samples_of(targets, size, shape, params, drawn)
        seen = places_on_patch(samples, targets, shape, params, drawn)
        covering = coverage(seen, *shape).view(-1, samples.count)  # (pixels, samples)
        covered = (covering.amax(1) > 0).nonzero()[:, 0]
        covering, pixels, every = covering[covered], samples.pixels[covered], samples.of(covered)
        # on the CPU, where places are: how many layers lie on each other decides how often it loops
        reaching, ground = visible(pixels, covering.mean(1), images.shape[0] * size[0] * size[1])
        covering, pixels, reaching, ground = (each.to(images.device) for each in (covering, pixels, reaching, ground))
        boxes = samples.boxes_of_samples[every]
        before = unwrinkled(boxes, seen.index_select(1, every), params, drawn)
    noise = None
    if isinstance(random, torch.Generator) and params.noise:
        noise = params.noise * (2 * torch.rand(len(targets), shape[0] * shape[1], 3, generator=random) - 1)
    colours = _colours(filtered, before.to(patch.device), boxes.to(patch.device), drawn, noise)

    painted = (covering * colours.view(3, *covering.shape)).mean(2)  # (3, pixels)
    area = size[0] * size[1]
    first = (pixels // area) * 3 * area + pixels % area  # of the three numbers of each pixel, a plane apart
    numbers = (first + area * torch.arange(3, device=images.device)[:, None]).flatten()
    rendered: Tensor = _Composited.apply(images, reaching * painted, ground.view(-1, 1, *size), numbers)
    return rendered


class _Composited(torch.autograd.Function):
    """images * ground, and colours added at some of their numbers; it makes one new batch, and not several.

    images: (batch, 3, height, width). colours: (3, pixels). ground: (batch, 1, height, width). numbers: int64
    (3 x pixels,), places in the flat images.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, colours: Tensor, ground: Tensor, numbers: Tensor) -> Tensor:
        ctx.save_for_backward(ground, numbers)
        drawn = (images * ground).contiguous()
        drawn.view(-1).index_add_(0, numbers, colours.flatten())
        return drawn

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        ground, numbers = ctx.saved_tensors
        of_colours = slopes.reshape(-1).index_select(0, numbers).view(3, -1)
        return slopes * ground if ctx.needs_input_grad[0] else None, of_colours, None, None


def _colours(patch: Tensor, at: Tensor, boxes: Tensor, drawn: Draws | None, noise: Tensor | None) -> Tensor:
    """Colours at places of the patch on each box, (3, m): changed and cut off before they are interpolated."""
    if drawn is None:
        return bilinear(patch.clamp(DARKEST, BRIGHTEST), at)
    contrast, brightness = drawn.contrast.to(patch.device)[boxes, 0], drawn.brightness.to(patch.device)[boxes, 0]

    def changed(values: Tensor, numbers: Tensor) -> Tensor:
        added = brightness if noise is None else brightness + noise.to(values.device)[boxes, numbers].permute(2, 0, 1)
        return (contrast * values + added).clamp(DARKEST, BRIGHTEST)

    return bilinear(patch, at, changed)


def check_patch(patch: Tensor, name: str = "the patch") -> None:
    """InputError, in one sentence, about a patch that cannot be drawn or printed."""
    if patch.ndim != 3 or patch.shape[0] != 3 or not patch.is_floating_point() or not patch.numel():
        raise InputError(f"{name} must be float (3, height, width); it is {patch.dtype} {tuple(patch.shape)}")
    if not bool(patch.isfinite().all()):
        raise InputError(f"the values of {name} must be finite numbers; some are not")
    if float(patch.min()) < 0 or float(patch.max()) > 1:
        low, high = float(patch.min()), float(patch.max())
        raise InputError(f"the values of {name} must be within [0, 1]; they are from {low:.3g} to {high:.3g}")
