"""What the bounds say of the data of a run: densities of classes, shares of the cube, verdicts, and a ceiling."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from jobs.common.attacks import Norm
from jobs.common.data.images.base import ImageSet
from jobs.inevitability.bounds.base import DensityBound, Verdict
from jobs.inevitability.bounds.cube import CubeBound
from jobs.inevitability.bounds.facts import facts
from jobs.inevitability.bounds.shares import ClassShare, class_shares
from jobs.inevitability.bounds.sparse import SparseBound
from jobs.inevitability.ceilings.bound_params import BoundParams
from jobs.inevitability.ceilings.ceiling import Ceiling
from jobs.inevitability.ceilings.density_params import DensityParams
from jobs.inevitability.density.estimate import DensityEstimate, Fixed
from jobs.inevitability.networks import Variant
from jobs.inevitability.resolutions import ORDERS
from service.run import Run, reserved_device

Shares = Mapping[Fixed, Mapping[str, Sequence[ClassShare]]]
"""of the cube, (), and of faces, by the label of the network: of each class"""


@dataclass(frozen=True)
class ClassDensity:
    """An estimate for one class."""

    label: int
    estimate: DensityEstimate
    place: int = 0
    """of the way to it among `densities` of the spec"""


def densities(params: BoundParams, train: ImageSet, test: ImageSet, run: Run) -> list[ClassDensity]:
    """Every estimate for every class that has images. InputError if one cannot be made, as of too few images."""
    images = train if params.split == "train" else test
    labels, places = sorted(set(images.labels.tolist())), range(len(params.densities))
    cells = [
        {"class": label, "density": params.densities[place].model_dump_json(), "seed": run.seed_for("density", label)}
        for label in labels
        for place in places
    ]
    results = run.map_across_trials(estimate_density, cells, images, name="densities")
    return [
        ClassDensity(label, TypeAdapter(DensityEstimate).validate_python(each), place)
        for (label, place), result in zip(product(labels, places), results, strict=True)
        if result is not None
        for each in result
    ]


def estimate_density(cell: dict[str, Any], images: ImageSet) -> list[dict[str, Any]]:
    """A cell: class, density and seed. Returns the estimates as dictionaries."""
    rows = (images.labels == cell["class"]).nonzero().flatten()
    density = TypeAdapter(DensityParams).validate_json(cell["density"])
    points = images.images(rows).flatten(1).double().numpy()
    return [
        {**vars(each), "notes": list(each.notes), "dropped": [list(pixel) for pixel in each.dropped]}
        for each in density.estimates(points, cell["seed"])
    ]


def shares(
    params: BoundParams,
    estimates: Sequence[ClassDensity],
    classes: Sequence[str],
    variants: Sequence[Variant],
    run: Run,
) -> Shares:
    """How much each network gives to each of the classes, of the cube and of the faces that estimates are about. At
    resolution 1.

    classes: of the data, in their order; a network may number them in another. One that it has not gets nothing.
    """
    faces = list(dict.fromkeys([(), *(each.estimate.dropped for each in estimates)]))
    chosen = [each for each in variants if each.resolution == 1 and params.samples]
    cells = [
        {
            "network": each.label,
            "fixed": [list(pixel) for pixel in face],
            "samples": params.samples,
            "seed": run.seed_for("uniform points"),
        }
        for face, each in product(faces, chosen)
    ]
    results = run.map(count_shares, cells, {each.label: each for each in chosen}, name="shares")
    counted: dict[Fixed, dict[str, tuple[ClassShare, ...]]] = {face: {} for face in faces}
    for (face, each), hits in zip(product(faces, chosen), results, strict=True):
        if hits is not None:
            counted[face][each.label] = tuple(
                ClassShare(_hits(name, each.images.classes, hits), params.samples) for name in classes
            )
    return counted


def count_shares(cell: dict[str, Any], variants: Mapping[str, Variant]) -> list[int]:
    """A cell: network, fixed pixels, samples and seed. How many uniform points the network gives to each class."""
    variant, device = variants[cell["network"]], reserved_device()
    generator = torch.Generator(device).manual_seed(cell["seed"])
    network = variant.network.to(device)
    places = torch.tensor([place for place, _ in cell["fixed"]], dtype=torch.int64, device=device)
    values = torch.tensor([value for _, value in cell["fixed"]], dtype=torch.float32, device=device)

    def classify(points: Tensor) -> Tensor:
        fixed = points.flatten(1).index_copy(1, places, values.expand(len(points), -1))
        logits: Tensor = network(fixed.view_as(points))
        return logits

    counted = class_shares(classify, variant.images.shape, cell["samples"], generator)
    return [each.hits for each in counted]


def _hits(name: str, classes: Sequence[str], hits: Sequence[int]) -> int:
    """Of one class. hits: of each output of a network, which may have more than it has classes."""
    return hits[classes.index(name)] if name in classes else 0


def share_rows(counted: Mapping[str, Sequence[ClassShare]], classes: Sequence[str]) -> list[dict[str, Any]]:
    """A row of a table for each network and class."""
    return [
        {
            "network": network,
            "class": name,
            "share": each.estimate,
            "low": each.interval[0],
            "high": each.interval[1],
            "sentence": each.sentence,
        }
        for network, own in counted.items()
        for name, each in zip(classes, own, strict=True)
    ]


@dataclass(frozen=True)
class ClassBound:
    """A bound for one class in one norm, from one estimate of its density."""

    label: int
    norm: Norm
    estimate: DensityEstimate
    bound: DensityBound
    shift: float
    """distance that is lost because the density is about images with noise"""
    place: int
    """as that of the density"""

    @property
    def first_useful(self) -> float:
        """Beyond which it says something about the images themselves."""
        return self.bound.first_useful + self.shift

    @property
    def useful(self) -> bool:
        """Whether it says something about the images at any distance that two of them may have."""
        return self.first_useful < self.bound.diameter

    @property
    def verdict(self) -> Verdict:
        """That of the bound, of the images themselves where the density is about images with noise."""
        verdict = self.bound.verdict()
        if verdict.kind != "useful" or not self.shift:
            return verdict
        start = f"the noise of the density included, it says something from {self.first_useful:.6g} on"
        space = f"{self.bound.space}, whose diameter is {self.bound.diameter:.6g}"
        if self.useful:
            return Verdict("useful", self.first_useful, f"useful in {space}: {start}")
        return Verdict("vacuous", self.first_useful, f"vacuous at every epsilon in {space}: {start}")

    def ceiling(self, epsilons: Sequence[float]) -> np.ndarray:
        """The largest robust accuracy on the class at each epsilon, in [0, 1]."""
        reached = np.asarray(epsilons, dtype=np.float64) - self.shift
        inside = np.clip(reached, 0.0, self.bound.diameter)
        return np.where(reached >= 0, self.bound.ceiling(inside), 1.0)

    def row(self, classes: Sequence[str]) -> dict[str, Any]:
        """A row of a table."""
        verdict = self.verdict
        return {
            "class": classes[self.label],
            "norm": self.norm,
            "density": self.estimate.method,
            "density_is": self.estimate.kind,
            "log_density": self.estimate.log_density,
            "share": self.bound.share,
            "first_useful": self.first_useful,
            "diameter": self.bound.diameter,
            "verdict": verdict.kind,
            "sentence": verdict.sentence,
            "conclusion": self.estimate.conclusion(verdict.kind),
            "setting": "; ".join((self.estimate.setting, *self.estimate.notes)),
        }


def bounds(
    params: BoundParams,
    norms: Sequence[Norm],
    estimates: Sequence[ClassDensity],
    counted: Shares,
) -> list[ClassBound]:
    """A bound for every class, norm and estimate. The share of a class is the largest that any network may give it."""
    return [_bound(params, norm, each, counted) for norm in norms for each in estimates]


def _bound(params: BoundParams, norm: Norm, density: ClassDensity, counted: Shares) -> ClassBound:
    n = density.estimate.dimension
    uppers = [own[density.label].upper for own in counted.get(density.estimate.dropped, {}).values()]
    share, order = max(uppers, default=0.5), ORDERS[norm]
    common = {"n": n, "log_density": density.estimate.log_density, "share": share, "form": params.form}
    bound = CubeBound(**common, p=order) if order else SparseBound(**common)  # type: ignore[arg-type]
    moved = math.pow(n, 1 / order if order else 1.0)  # of a vector of ones
    reach = density.estimate.reach
    shift = (reach * moved if order else n) if reach else 0.0
    return ClassBound(density.label, norm, density.estimate, bound, shift, density.place)


def ceilings(
    each_class: Sequence[ClassBound], epsilons: Mapping[Norm, Sequence[float]], images: ImageSet
) -> list[Ceiling]:
    """A ceiling for the test images in every norm, from every way to a density: the mean over classes, as frequent as
    among the images.
    """
    counts = np.bincount(images.labels.numpy(), minlength=len(images.classes))
    ways = dict.fromkeys((each.norm, each.estimate.method, each.place) for each in each_class)
    result = []
    for norm, method, place in ways:
        own = [each for each in each_class if (each.norm, each.estimate.method, each.place) == (norm, method, place)]
        several = sum((way[0], way[1]) == (norm, method) for way in ways) > 1
        missing = counts.sum() - sum(counts[each.label] for each in own)  # of these classes nothing is known
        total = sum(counts[each.label] * each.ceiling(epsilons[norm]) for each in own) + missing
        first = min(each.first_useful if each.useful else math.inf for each in own)
        certain = all(each.estimate.kind == "upper bound" for each in own)
        result.append(
            Ceiling(
                "bound",
                f"bound, density {method}" + (f" (densities.{place})" if several else ""),
                norm,
                tuple(epsilons[norm]),
                tuple(float(value) for value in total / counts.sum()),
                certain,
                first_useful=first,
            )
        )
    return result


def fact_rows(each_class: Sequence[ClassBound]) -> list[dict[str, Any]]:
    """What the bounds cannot say of a class with a half of the cube: a row of a table for each sentence."""
    rows: dict[tuple[str, str], None] = {}
    for each in each_class:
        for sentence in facts(replace(each.bound, share=0.5)):
            rows[each.norm, sentence] = None
    return [{"norm": norm, "fact": sentence} for norm, sentence in rows]
