"""What is seen where things with an alpha channel lie on each other: later ones cover earlier ones."""

import torch
from torch import Tensor


def visible(pixels: Tensor, alphas: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """How much of each layer is seen through those above it, and how much of what is below all of them.

    pixels: int64 (m,), the pixel of each sample, in the order of drawing. alphas: (m,) in [0, 1]. count: of pixels.
    Returns the light that reaches each sample through the later ones, (m,), and that which reaches each pixel's
    ground, (count,): products of 1 - alpha.
    """
    last = torch.empty(count, dtype=torch.int64, device=pixels.device)
    numbers = torch.arange(len(pixels), device=pixels.device)
    last[pixels] = numbers
    if bool((last[pixels] == numbers).all()):  # no pixel has two
        light = torch.ones(count, dtype=alphas.dtype, device=alphas.device)
        light[pixels] = 1 - alphas
        return torch.ones_like(alphas), light
    latest_first = torch.arange(len(pixels) - 1, -1, -1, device=pixels.device)
    order = latest_first[torch.argsort(pixels[latest_first], stable=True)]
    ordered = pixels[order]
    depths = torch.arange(len(pixels), device=pixels.device) - torch.searchsorted(ordered, ordered)
    light = torch.ones(count, dtype=alphas.dtype, device=alphas.device)
    reaching = torch.ones_like(alphas)
    for depth in range(int(depths.max()) + 1 if len(depths) else 0):
        layer = order[depths == depth]  # at most one sample of a pixel
        reaching[layer] = light[pixels[layer]]
        light[pixels[layer]] *= 1 - alphas[layer]
    return reaching, light
