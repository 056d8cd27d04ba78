"""Generators: a Gaussian along principal components against numpy, own ones, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch

from jobs.inevitability.generated.generator_params import GeneratedParams
from jobs.inevitability.generated.generators import built, linear_images
from service.errors import AssayError
from service.planning.validation import validate
from tests.jobs.inevitability.small import HERE
from tests.jobs.inevitability.subjects import digits

DIGITS = digits("train", None)  # type: ignore[arg-type]


def section(**generator: Any) -> GeneratedParams:
    return validate(GeneratedParams, {"generator": generator, "images": 20}, "generated")


def test_a_gaussian_along_principal_components() -> None:
    """Its moments are those of the images, of which numpy keeps the first components by itself."""
    network = linear_images(DIGITS, 5)
    points = DIGITS.images(torch.arange(len(DIGITS))).flatten(1).double().numpy()
    variances, directions = np.linalg.eigh(np.cov(points.T, bias=True))
    kept = (directions[:, -5:] * variances[-5:]) @ directions[:, -5:].T
    axes = network.axes.double().numpy()
    assert axes.T @ axes == pytest.approx(kept, abs=1e-6)
    assert network.mean.numpy() == pytest.approx(points.mean(0), abs=1e-6)
    assert network.lipschitz == pytest.approx(float(np.sqrt(variances[-1])), rel=1e-6)


def test_no_two_images_are_farther_apart_than_the_constant_says(make_run: Any) -> None:
    generator = built(section(kind="linear", components=8), DIGITS, make_run())
    latents = generator.latents(400, 0)
    images = generator.network(latents).flatten(1)
    stretched = (images[:200] - images[200:]).norm(dim=1) / (latents[:200] - latents[200:]).norm(dim=1)
    assert generator.certain and float(stretched.max()) <= generator.lipschitz * (1 + 1e-5)
    assert float(images.min()) == 0 and float(images.max()) == 1, "cut to the cube"


@pytest.mark.parametrize("way", ["layers", "estimate"])
def test_own_generators(make_run: Any, way: str) -> None:
    chosen = section(kind="model", name=f"{HERE}:noise_images", latent=[64], lipschitz=way, points=5)
    generator = built(chosen, DIGITS, make_run())
    assert generator.lipschitz == pytest.approx(0.05, rel=1e-5) and generator.certain == (way == "layers")
    assert generator.images(300, 0).shape == (300, 1, 8, 8)
    assert torch.equal(generator.images(300, 0), generator.images(300, 0))


@pytest.mark.parametrize(
    ("generator", "sentence"),
    [
        ({"kind": "linear", "components": 60}, "components must be at most .*, the number of principal components"),
        ({"kind": "model", "name": f"{HERE}:noise_images", "latent": [9]}, r"takes no latent vectors of shape \(9,\)"),
        ({"kind": "model", "name": f"{HERE}:linear", "latent": [1, 8, 8]}, r"must make images \(1, 8, 8\), .* \(10,\)"),
        (
            {"kind": "model", "name": f"{HERE}:noise_images", "latent": [64], "options": {"spread": 3.0}},
            "must make pixels from 0 to 1; they are from -",
        ),
        (
            {"kind": "model", "name": f"{HERE}:noise_images", "latent": [64], "options": {"spread": 0.0}},
            "the Lipschitz constant of .* must be above 0 and finite; it is 0",
        ),
    ],
)
def test_what_makes_no_images_is_refused(make_run: Any, generator: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AssayError, match=sentence) as refused:
        built(section(**generator), DIGITS, make_run())
    assert "\n" not in str(refused.value)
