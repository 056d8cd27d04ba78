"""What the concentration of the data says: how robust a network with a share of errors can be, by the best region."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from jobs.common.attacks import Norm
from jobs.common.data.images.base import ImageSet
from jobs.common.metrics.intervals import clopper_pearson
from jobs.inevitability.ceilings.ceiling import Ceiling
from jobs.inevitability.ceilings.concentration_params import ConcentrationParams
from jobs.inevitability.concentration import Measurement, MethodParams, Sample, halves, measure
from jobs.inevitability.resolutions import ORDERS
from service.run import Run


def search_cells(params: ConcentrationParams, epsilons: Mapping[Norm, Sequence[float]]) -> list[dict[str, Any]]:
    """One for each search, norm that it knows, and seed; it answers for all epsilons."""
    return [
        {
            "name": name,
            "method": method.model_dump_json(),
            "norm": norm,
            "epsilons": list(own),
            "alpha": params.alpha,
            "parts": params.parts,
            "seed": seed,
        }
        for norm, own in epsilons.items()
        if ORDERS[norm] >= 1
        for name, method in params.methods.items()
        if not method.norms or ORDERS[norm] in method.norms
        for seed in params.seeds
    ]


def measured(
    params: ConcentrationParams, epsilons: Mapping[Norm, Sequence[float]], train: ImageSet, test: ImageSet, run: Run
) -> list[dict[str, Any]]:
    """A row of a table for each search, norm, seed and epsilon that ended with a region."""
    cells = search_cells(params, epsilons)
    results = run.map_across_trials(concentration, cells, (train, test), name="concentration")
    return [row for result in results if result is not None for row in result]


def concentration(cell: dict[str, Any], sets: tuple[ImageSet, ImageSet]) -> list[dict[str, Any]]:
    """A cell: one search in one norm with one seed, for all epsilons."""
    method = TypeAdapter(MethodParams).validate_json(cell["method"])
    points = [images.images(torch.arange(len(images))).flatten(1) for images in sets]
    if cell["parts"] == "halves":
        fitted, others = halves(Sample(torch.cat(points)), cell["seed"])
    else:
        fitted, others = (Sample(each) for each in points)
    norm: Norm = cell["norm"]
    found = measure(method, fitted, others, ORDERS[norm], cell["alpha"], cell["epsilons"], cell["seed"])
    return [{"search": cell["name"]} | _row(each) | {"norm": norm} for each in found if each]


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

    Regions that lose their mass on the points not fitted to are left out: they are no error region of that size.
    Where another region was found for a larger epsilon that is higher still, its ceiling holds: a network does not
    become less robust to a smaller perturbation.
    """
    result = []
    rows = [row for row in rows if row["holds"]]
    for norm in dict.fromkeys(row["norm"] for row in rows):
        own = [row for row in rows if row["norm"] == norm]
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
        values_of = tuple(float(value) for value in falling)
        result.append(Ceiling("concentration", label, norm, tuple(epsilons), values_of, False, params.alpha))
    return result
