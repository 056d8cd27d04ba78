"""What is measured of networks for concentric spheres: errors, distances to them, and how far these could be."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobs.common.metrics.intervals import clopper_pearson
from jobs.inevitability.bounds.adversarial_spheres import INNER, mean_distance_ceiling, points
from jobs.inevitability.bounds.sphere import SphereBound
from jobs.inevitability.spheres.nearest import nearest_errors
from jobs.inevitability.spheres.networks import train
from jobs.inevitability.spheres.sphere_params import SpheresParams
from service.run import Run, reserved_device

DRAWN = 10_000
"""points at once, of those by which errors are counted"""
ANGLES = np.linspace(0, math.pi / 2, 91)
"""at which curves are told, in radians"""


@dataclass(frozen=True)
class Robustness:
    """Of one network on one of its spheres."""

    dimension: int
    seed: int
    sphere: Literal["inner", "outer"]
    radius: float
    errors: int
    samples: int
    angles: NDArray[np.float64]
    """of points to the nearest error that was found, which may not be the nearest; infinity: none was"""

    @property
    def share(self) -> float:
        """Of the sphere that is misclassified."""
        return self.errors / self.samples

    @property
    def interval(self) -> tuple[float, float]:
        """Of the share, with 95 % certainty."""
        return clopper_pearson(self.errors, self.samples)

    @property
    def curve(self) -> NDArray[np.float64]:
        """The share of points for which no error was found within each of ANGLES."""
        return np.asarray((self.angles[:, None] > ANGLES).mean(0))

    def ceiling(self, share: float) -> NDArray[np.float64]:
        """What `curve` does not exceed for any classifier with so many errors, by the theorem on the sphere."""
        return SphereBound(n=self.dimension, share=1 - share).ceiling(ANGLES) if share else np.ones(len(ANGLES))

    def row(self) -> dict[str, Any]:
        """A row of a table: shares of errors, mean distances, and the ceiling of these by the share.

        Distances are straight lines, in the units of the space. mean_distance: NaN if no error was found for a point.
        ceiling: of the share of errors that was counted; highest_ceiling: of the lower end of its 95 % interval; NaN
        where that share is 0, as there is none then.
        """
        chords = 2 * self.radius * np.sin(self.angles / 2) if np.isfinite(self.angles).all() else np.full(1, np.nan)
        low, high = self.interval
        ceiling, highest = (
            mean_distance_ceiling(share, self.dimension, self.radius) if 0 < share < 1 else math.nan
            for share in (self.share, low)
        )
        return {
            "dimension": self.dimension,
            "seed": self.seed,
            "sphere": self.sphere,
            "radius": self.radius,
            "errors": self.errors,
            "samples": self.samples,
            "error": self.share,
            "low": low,
            "high": high,
            "attacked": len(self.angles),
            "unreached": int(np.isinf(self.angles).sum()),
            "mean_distance": float(chords.mean()),
            "standard_error": float(chords.std() / math.sqrt(len(chords))),
            "ceiling": ceiling,
            "highest_ceiling": highest,
            "share_of_ceiling": float(chords.mean()) / ceiling,
        }

    def curve_rows(self) -> list[dict[str, Any]]:
        """A row of a table for each angle."""
        columns = {"dimension": self.dimension, "seed": self.seed, "sphere": self.sphere}
        values = zip(ANGLES.tolist(), self.curve.tolist(), self.ceiling(self.share).tolist(), strict=True)
        return [columns | {"angle": angle, "robust": robust, "ceiling": ceiling} for angle, robust, ceiling in values]


def measured(params: SpheresParams, run: Run) -> list[Robustness]:
    """Train every network and measure it on both spheres."""
    cells: list[dict[str, Any]] = [
        {"dimension": n, "seed": seed, "stream": run.seed_for("spheres", n, seed), "spheres": params.model_dump_json()}
        for n in params.dimensions
        for seed in params.seeds
    ]
    results = run.map_across_trials(measure, cells, name="spheres")
    return [
        Robustness(cell["dimension"], cell["seed"], **{**each, "angles": np.asarray(each["angles"])})
        for cell, result in zip(cells, results, strict=True)
        if result is not None
        for each in result
    ]


def measure(cell: dict[str, Any], shared: None) -> list[dict[str, Any]]:
    """A cell: a dimension and a seed. Errors among new points of each sphere, and angles to the nearest error found."""
    params, n, device = SpheresParams.model_validate_json(cell["spheres"]), cell["dimension"], reserved_device()
    network = train(params, n, cell["stream"], device)
    stream = torch.Generator().manual_seed(cell["stream"] + 1)
    result = []
    for label, (sphere, radius) in enumerate((("inner", INNER), ("outer", params.radius))):
        errors = count_errors(network, n, radius, label, params.samples, stream, device)
        attacked = points(params.attacked, n, radius, stream).to(device)
        angles = nearest_errors(network, attacked, label, params.steps, stream).cpu()
        counted = {"errors": errors, "samples": params.samples}
        result.append({"sphere": sphere, "radius": radius, **counted, "angles": angles})
    return result


@torch.no_grad()
def count_errors(
    network: Callable[[Tensor], Tensor],
    n: int,
    radius: float,
    label: int,
    samples: int,
    stream: torch.Generator,
    device: torch.device,
) -> int:
    """How many of so many uniform points of a sphere get the other label."""
    errors = 0
    for start in range(0, samples, DRAWN):
        drawn = points(min(DRAWN, samples - start), n, radius, stream).to(device)
        errors += int((network(drawn).argmax(1) != label).sum())
    return errors


def alarms(results: Sequence[Robustness]) -> list[str]:
    """Where fewer points have an error near them than every classifier with so many errors must have."""
    sentences = []
    for each in results:
        count = len(each.angles)
        for angle, robust, value in zip(ANGLES, each.curve, each.ceiling(each.interval[0]), strict=True):
            if clopper_pearson(round(robust * count), count)[0] > value:
                sentences.append(
                    f"of the {each.sphere} sphere in {each.dimension} dimensions {robust:.1%} have no error within an "
                    f"angle of {angle:.3g}, and the theorem allows {value:.1%}: the search for errors is too short"
                )
                break
    return sentences
