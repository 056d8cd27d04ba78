"""Generators as they are used: a network of latent vectors, and how far it stretches distances at most."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jobs.common.data.images.base import ImageSet
from jobs.common.passes import outputs
from jobs.inevitability.bounds.lipschitz import estimate, upper_limit
from jobs.inevitability.concentration.half_spaces import principal_components
from jobs.inevitability.generated.generator_params import GeneratedParams, LinearGenerator, OwnGenerator
from service.errors import FieldError, InputError, within
from service.run import Run

BATCH = 256
"""images that are made at once on a CPU, and drawn at once anywhere"""


@dataclass(frozen=True)
class Generator:
    """A network in evaluation mode on the CPU: float32 (batch, *latent) -> images (batch, channels, height, width)."""

    name: str
    network: nn.Module
    latent: tuple[int, ...]
    lipschitz: float
    certain: bool
    """whether the constant is sound, not an estimate from below"""

    def latents(self, count: int, seed: int) -> Tensor:
        """Standard normal: float32 (count, *latent)."""
        return torch.randn(count, *self.latent, generator=torch.Generator().manual_seed(seed))

    def images(self, count: int, seed: int) -> Tensor:
        """So many: float32 (count, channels, height, width) in [0, 1]."""
        return outputs(self.network, self.latents(count, seed), on_cpu=BATCH, purpose="images")


class LinearImages(nn.Module):
    """x = mean + z A, cut to [0, 1], which brings no two points farther apart."""

    mean: Tensor
    axes: Tensor

    def __init__(self, mean: Tensor, axes: Tensor, shape: tuple[int, int, int]) -> None:
        """mean: float (n,); axes: float (latent, n); shape: of an image, n numbers."""
        super().__init__()
        self.register_buffer("mean", mean.float())
        self.register_buffer("axes", axes.float())
        self.shape = shape

    def forward(self, latents: Tensor) -> Tensor:
        return torch.addmm(self.mean, latents, self.axes).clamp(0, 1).view(-1, *self.shape)

    @property
    def lipschitz(self) -> float:
        """The largest singular value of A."""
        return float(torch.linalg.matrix_norm(self.axes.double(), ord=2))


def linear_images(images: ImageSet, components: int) -> LinearImages:
    """Fitted to a set. FieldError: it has fewer principal components."""
    points = images.images(torch.arange(len(images))).flatten(1)
    known = principal_components(points)
    if components > len(known):
        requirement = f"be at most {len(known)}, the number of principal components of {images.name}"
        raise FieldError("components", requirement, components)
    first = known.first(components)
    return LinearImages(points.double().mean(0), (first.directions * first.variances.sqrt()).T, images.shape)


def built(params: GeneratedParams, train: ImageSet, run: Run) -> Generator:
    """The generator of a spec. InputError or FieldError: it does not make images of the shape of those to train."""
    with within("generated.generator"):
        section = params.generator
        if isinstance(section, LinearGenerator):
            network = linear_images(train, section.components)
            return Generator("linear", network.eval(), (section.components,), network.lipschitz, True)
        return _own(section, params.images, train, run)


def _own(section: OwnGenerator, count: int, train: ImageSet, run: Run) -> Generator:
    """count: of the images that are attacked, which are looked at first."""
    model = section.load(run)
    generator = Generator(model.name, model.network, section.latent, math.nan, section.lipschitz == "layers")
    _check(generator, count, train, run)
    if generator.certain:
        constant = upper_limit(model.network, section.latent)
    else:
        latents = generator.latents(section.points, run.seed_for("lipschitz"))
        constant = estimate(model.network, latents)
    if not (constant > 0 and math.isfinite(constant)):
        raise InputError(f"the Lipschitz constant of {model.name!r} must be above 0 and finite; it is {constant:g}")
    return Generator(model.name, model.network, section.latent, constant, generator.certain)


def _check(generator: Generator, count: int, train: ImageSet, run: Run) -> None:
    """InputError, one sentence: it takes no such latent vectors, or makes no images in [0, 1] of the shape of a set."""
    try:
        images = generator.images(count, run.seed_for("generated images"))
    except (RuntimeError, TypeError) as error:
        sentence = str(error).splitlines()[0]
        raise InputError(
            f"{generator.name!r} takes no latent vectors of shape {generator.latent}: {sentence}"
        ) from error
    if images.shape[1:] != train.shape:
        shape = tuple(images.shape[1:])
        raise InputError(f"{generator.name!r} must make images {train.shape}, as of {train.name}; it makes {shape}")
    if not bool(images.isfinite().all()):
        raise InputError(f"{generator.name!r} must make finite images; some pixels are NaN or infinite")
    least, most = float(images.amin()), float(images.amax())
    if least < 0 or most > 1:
        raise InputError(f"{generator.name!r} must make pixels from 0 to 1; they are from {least:g} to {most:g}")
