"""Detectors with each of the defences of a spec: further victims of every patch, and further targets of a search."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from jobs.common.detection.base import Detector, frozen
from jobs.invisibility_cloak.defences.filters import GradientSmoothing, MedianFilter
from jobs.invisibility_cloak.defences.occlusion_vote import OcclusionVote
from jobs.invisibility_cloak.defences.params import DefenceParams, MaskingParams
from jobs.invisibility_cloak.defences.patch_mask import PatchMask
from jobs.invisibility_cloak.defences.purified import Purified
from jobs.invisibility_cloak.defences.training import trained
from jobs.invisibility_cloak.patch.search import Problem, State, random_patch, searched
from jobs.invisibility_cloak.patch.search_params import SearchParams
from service.errors import RunFailedError
from service.run import Run, reserved_device

DEFENCES = ("median", "smoothing", "masking", "occlusion_vote")


def defences_in(params: DefenceParams | None) -> tuple[str, ...]:
    """The names of the defences that a spec has."""
    return () if params is None else tuple(name for name in DEFENCES if getattr(params, name) is not None)


def victim_name(detector: str, defence: str) -> str:
    """The name of a detector of the spec with a defence."""
    return f"{detector}_{defence}"


def defended_names(params: DefenceParams | None, detectors: Iterable[str]) -> list[tuple[str, str, str]]:
    """The name of every victim with a defence, that of its detector, and the defence."""
    return [(victim_name(name, each), name, each) for name in detectors for each in defences_in(params)]


def asked(params: DefenceParams | None, defence: str) -> int:
    """How many passes of its detector a defence takes for an image."""
    vote = None if params is None else params.occlusion_vote
    return 1 if vote is None or defence != "occlusion_vote" else 1 + 4 * vote.lines


def defended(
    params: DefenceParams | None, detectors: Iterable[str], problem: Problem, search: SearchParams, run: Run
) -> dict[str, Detector]:
    """Every detector with every defence, by `victim_name`; segmenters are trained here, one for each detector.

    detectors: names of those to defend. problem: all detectors, and the images and the rendering of the study, which
    segmenters learn from. search: how patches to learn from are optimised, but for their iterations.
    """
    if params is None:
        return {}
    names = list(detectors)
    patches = own_patches(params.masking, names, problem, search, run)
    victims: dict[str, Detector] = {}
    for name in names:
        inner = problem.detectors[name]
        every: dict[str, Detector] = {}
        if (median := params.median) is not None:
            every["median"] = Purified(inner, MedianFilter(median.window), "median")
        if (smooth := params.smoothing) is not None:
            filtering = GradientSmoothing(smooth.window, smooth.threshold, smooth.strength)
            every["smoothing"] = Purified(inner, filtering, "smoothing")
        if (masking := params.masking) is not None:
            segmenter = run.reserved(
                trained,
                *(problem.data, problem.places, problem.hidden, problem.rendering, patches[name], masking),
                f"masking_{name}",
            )
            every["masking"] = Purified(inner, PatchMask(segmenter, masking.threshold, masking.closing), "masking")
        if (vote := params.occlusion_vote) is not None:
            every["occlusion_vote"] = OcclusionVote(inner, vote.lines, vote.confidence, vote.explained, vote.alike)
        victims |= {victim_name(name, defence): frozen(each) for defence, each in every.items()}
    return victims


def own_patches(
    params: MaskingParams | None, detectors: Iterable[str], problem: Problem, search: SearchParams, run: Run
) -> dict[str, list[Tensor]]:
    """Patches that segmenters learn from, by detector, each a short search with a seed of its own.

    RunFailedError if one of them failed: a segmenter that learnt from fewer would stay as it is after a resume.
    """
    if params is None:
        return {}
    cells: list[dict[str, Any]] = [
        {"detector": name, "seed": run.seed_for("own patch", name, number)}
        for name in detectors
        for number in range(params.patches)
    ]
    shorter = search.model_copy(update={"iterations": params.iterations, "warm_up": 0})
    results = run.map(own_patch_cell, cells, shared=(problem, shorter), name="own_patches")
    patches: dict[str, list[Tensor]] = {name: [] for name in detectors}
    for cell, result in zip(cells, results, strict=True):
        if result is None:
            raise RunFailedError("a patch failed that the segmenter of params.defences.masking is to learn from")
        patches[cell["detector"]].append(result)
    return patches


def own_patch_cell(cell: dict[str, Any], shared: Any) -> Tensor:
    """A patch against one detector, (3, height, width)."""
    problem, search = shared
    alone = replace(problem, detectors={cell["detector"]: problem.detectors[cell["detector"]]})
    state = State.begin(random_patch(search.size, cell["seed"]), 1)
    done, _ = searched(state, alone, search, cell["seed"], search.iterations, reserved_device())
    return done.patch


def defence_rows(
    table: Iterable[Mapping[str, Any]], params: DefenceParams, detectors: Sequence[str], data: str
) -> list[dict[str, Any]]:
    """Rows of the transfer matrix of detectors with and without defences on one set: for a table and a picture.

    made_against: none of either, the detector, or the detector behind its defence (adaptive).
    """
    whose = {victim: (name, defence) for victim, name, defence in defended_names(params, detectors)}
    whose |= {name: (name, "none") for name in detectors}
    rows = []
    for row in table:
        if row["data"] != data or row["victim"] not in whose:
            continue
        name, defence = whose[row["victim"]]
        against = row["against"].split(", ")
        made = "the defence" if row["victim"] in against and defence != "none" else "other"
        made = "the detector" if made == "other" and name in against else made
        columns = ("ap50", "ap50_low", "ap50_high", "recall", "recall_low", "recall_high", "false_positives")
        rows.append(
            {"detector": name, "defence": defence, "patch": row["patch"], "kind": row["kind"], "made_against": made}
            | {column: row[column] for column in columns}
        )
    order = {name: place for place, name in enumerate(("none", *DEFENCES))}
    return sorted(rows, key=lambda row: (row["detector"], order[row["defence"]]))
