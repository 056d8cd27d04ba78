"""What the concentration of the data says: how robust a network with a share of errors can be, by the best region."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from jobs.common.attacks import Norm
from jobs.common.data.images.base import ImageSet
from jobs.common.data.sets import Split
from jobs.common.imports import resolve
from jobs.common.metrics.intervals import clopper_pearson
from jobs.inevitability.ceilings.ceiling import Ceiling
from jobs.inevitability.ceilings.concentration_params import ConcentrationParams, gamma_of
from jobs.inevitability.concentration import Measurement, MethodParams, Sample, half, halves, label_uncertainty, measure
from jobs.inevitability.resolutions import ORDERS
from service.errors import within
from service.run import Run


def search_cells(params: ConcentrationParams, epsilons: Mapping[Norm, Sequence[float]]) -> list[dict[str, Any]]:
    """One for each search, norm that it knows, and seed; it answers for all epsilons."""
    return [
        {
            "name": name,
            "method": method.model_dump_json(),
            "gamma": gamma_of(method),
            "norm": norm,
            "epsilons": list(own),
            "alpha": params.alpha,
            "parts": params.parts,
            "seed": seed,
        }
        for norm, own in epsilons.items()
        for name, method in params.methods.items()
        if method.knows(ORDERS[norm])
        for seed in params.seeds
    ]


@dataclass(frozen=True)
class Images:
    """The images of both splits, with how uncertain their labels are, if it is known."""

    sets: tuple[ImageSet, ImageSet]
    uncertainty: tuple[Tensor, Tensor] | None

    def parts(self, cell: Mapping[str, Any]) -> tuple[Sample, Sample]:
        """The points to fit to, and those to measure on."""
        points = [images.images(torch.arange(len(images))).flatten(1) for images in self.sets]
        uncertainty = self.uncertainty or (None, None)
        if cell["parts"] == "splits":
            first, second = (Sample(*each) for each in zip(points, uncertainty, strict=True))
            return first, second
        joined = None if self.uncertainty is None else torch.cat(self.uncertainty)
        return halves(Sample(torch.cat(points), joined), cell["seed"])


def prepared(
    params: ConcentrationParams, epsilons: Mapping[Norm, Sequence[float]], train: ImageSet, test: ImageSet
) -> Images:
    """The images with their soft labels. FieldError or InputError if these do not fit, or a search cannot be made."""
    sets: dict[Split, ImageSet] = {"train": train, "test": test}
    uncertainty = None
    if params.soft_labels is not None:
        probabilities: Callable[[Split, ImageSet], Tensor] = resolve(params.soft_labels, {}, "soft labels")
        with within("concentration"):
            first, second = (
                label_uncertainty(torch.as_tensor(probabilities(split, images)), images.labels)
                for split, images in sets.items()
            )
        uncertainty = first, second
    fitted = len(train) if params.parts == "splits" else half(len(train) + len(test))
    for cell in search_cells(params, epsilons):
        with within(f"concentration.methods.{cell['name']}"):
            _method(cell).check(fitted, ORDERS[cell["norm"]], params.alpha, cell["epsilons"])
    return Images((train, test), uncertainty)


def measured(
    params: ConcentrationParams, epsilons: Mapping[Norm, Sequence[float]], images: Images, run: Run
) -> list[dict[str, Any]]:
    """A row of a table for each search, norm, seed and epsilon that ended with a region."""
    cells = search_cells(params, epsilons)
    results = run.map_across_trials(concentration, cells, images, name="concentration")
    return [row for result in results if result is not None for row in result]


def concentration(cell: dict[str, Any], images: Images) -> list[dict[str, Any]]:
    """A cell: one search in one norm with one seed, for all epsilons."""
    fitted, others = images.parts(cell)
    norm: Norm = cell["norm"]
    measurements = measure(_method(cell), fitted, others, ORDERS[norm], cell["alpha"], cell["epsilons"], cell["seed"])
    first = {"search": cell["name"], "gamma": cell["gamma"]}
    return [first | _row(each) | {"norm": norm} for each in measurements if each]


def _method(cell: Mapping[str, Any]) -> MethodParams:
    method: MethodParams = TypeAdapter(MethodParams).validate_json(cell["method"])
    return method


def _row(measurement: Measurement) -> dict[str, Any]:
    """A row of a table; what the methods have details of is one text, so that all rows have the same columns.

    holds: whether the region has a mass of alpha on the points not fitted to, as far as its 95 % interval tells.
    """
    details = ", ".join(f"{name} {value}" for name, value in measurement.details.items())
    row = {name: value for name, value in measurement.row().items() if name not in measurement.details}
    test = measurement.test
    _, upper = clopper_pearson(test.errors, test.points)
    return row | {"holds": upper >= measurement.alpha, "region": details}


def ceilings(params: ConcentrationParams, rows: Sequence[Mapping[str, Any]]) -> list[Ceiling]:
    """A ceiling in every norm: that of the search with the highest one at each epsilon, in the mean over seeds.

    Searches with gamma have a ceiling of their own for each gamma: it is about fewer networks, and lower.
    Regions that lose their mass on the points not fitted to are left out: they are no error region of that size.
    Where another region was found for a larger epsilon that is higher still, its ceiling holds: a network does not
    become less robust to a smaller perturbation.
    """
    result = []
    rows = [row for row in rows if row["holds"]]
    for norm, gamma in dict.fromkeys((row["norm"], row["gamma"]) for row in rows):
        own = [row for row in rows if (row["norm"], row["gamma"]) == (norm, gamma)]
        epsilons = sorted({row["epsilon"] for row in own})
        values = [
            max(
                float(np.mean([row["ceiling"] for row in own if (row["search"], row["epsilon"]) == (search, epsilon)]))
                for search in dict.fromkeys(row["search"] for row in own if row["epsilon"] == epsilon)
            )
            for epsilon in epsilons
        ]
        falling = np.maximum.accumulate(values[::-1])[::-1]
        label = f"concentration, for errors of {params.alpha:.3g} or more"
        if gamma is not None:
            label += f" with label uncertainty of {gamma:.3g} or more"
        values_of = tuple(float(value) for value in falling)
        result.append(Ceiling("concentration", label, norm, tuple(epsilons), values_of, False, params.alpha, gamma))
    return result
