"""The peak of a density after uniform noise: the remedy for classes that have none."""

import math

from jobs.inevitability.density.estimate import DensityEstimate, estimate_of
from service.errors import FieldError


def noise_expanded(n: int, amplitude: float) -> DensityEstimate:
    """-n log(2 amplitude): no density of any class of images is larger once this noise is added.

    Each pixel moves to a uniform point of the interval of length 2 amplitude in [0, 1] around it; at the borders of [0,
    1], where the interval has no room, of the nearest one that holds the pixel. What holds then within epsilon holds
    for the images themselves within epsilon and the noise, at most 2 amplitude a pixel. amplitude: above 0, at most
    1/2.
    Source: Shafahi et al. 2019 ("Are adversarial examples inevitable?"), on low-dimensional manifolds.
    """
    if n < 1:
        raise FieldError("n", "be at least 1", n)
    if not 0 < amplitude <= 0.5:
        raise FieldError("amplitude", "be above 0 and at most 0.5, the noise that fills [0, 1]", amplitude)
    value = max(0.0, -n * math.log(2 * amplitude))
    setting = f"uniform noise of amplitude {amplitude:g}"
    return estimate_of("noise", "upper bound", value, setting, n, reach=2 * amplitude)
