"""The patches of a run: searched for in pieces that all workers share, and the controls beside them.

A search is cut into pieces of `checkpoint_every` iterations. The pieces of all patches that are at the same place run
at the same time, and each that is done is kept: a kill costs one piece, and what comes out is the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.common.data.boxes.base import BoxSet
from jobs.common.data.image_files import decode
from jobs.common.detection.base import Detector
from jobs.invisibility_cloak.params import CLEAN, Params
from jobs.invisibility_cloak.patch import controls
from jobs.invisibility_cloak.patch.model import TASK
from jobs.invisibility_cloak.patch.objectives import HingeObjective
from jobs.invisibility_cloak.patch.rendering import check_patch, render
from jobs.invisibility_cloak.patch.search import Problem, State, random_patch, searched
from jobs.invisibility_cloak.patch.search_params import SearchParams
from jobs.invisibility_cloak.patch.targets import REASONS, targets_of
from jobs.invisibility_cloak.physical.params import reproduction_of
from service.errors import FieldError, InputError, unknown
from service.run import Run, reserved_device

PATCH, CONTROL = "patch", "control"


@dataclass(frozen=True)
class MatrixRow:
    """Something that is drawn on people: a row of the matrix."""

    name: str
    kind: str
    """clean, control or patch"""
    pixels: Tensor | None
    """(3, height, width); None: nothing is drawn"""
    against: tuple[str, ...] = ()
    """the detectors that it was optimised against"""


def places_of(params: Params, data: BoxSet) -> Tensor:
    """The images of a set on which patches are drawn: int64 (images,). InputError if there are none."""
    if params.hidden not in data.classes:
        raise unknown(f"class of {data.name}", params.hidden, data.classes)
    label = data.classes.index(params.hidden)
    boxes = [data.boxes(place) for place in range(len(data))]
    targets = targets_of(boxes, label, (data.side, data.side), params.rendering.smallest)
    if not len(targets):
        counts = ", ".join(f"{count} {reason}" for count, reason in zip(targets.skipped, REASONS, strict=True))
        raise InputError(
            f"no image of {data.name} has a box of class {params.hidden!r} that a patch can be drawn on; boxes of it "
            f"that cannot: {counts}"
        )
    return torch.tensor(sorted(set(targets.images.tolist())))


def starts_of(params: Params, run: Run) -> dict[str, Tensor]:
    """What the search for each patch begins with, but for those that begin with another patch: (3, height, width).

    InputError about a model or a file that is no patch.
    """
    starts: dict[str, Tensor] = {}
    for name, patch in params.patches.items():
        size = params.search_of(name).size
        if patch.stored is not None:
            module, card = run.load_model(patch.stored)
            if card.task != TASK:
                raise FieldError(f"patches.{name}.stored", f"be a model of the task {TASK}", card.task)
            starts[name] = module()
        elif patch.file is not None:
            image = decode(Path(patch.file).expanduser(), f"patches.{name}.file: {patch.file!r}")
            starts[name] = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        elif patch.start == "grey":
            starts[name] = controls.plain((controls.GREY,) * 3, size)
        elif patch.start == "noise":
            starts[name] = random_patch(size, run.seed_for("start", name))
        if name in starts:
            check_patch(starts[name], f"patch {name!r}")
            needed, sides = params.rendering.median // 2, tuple(starts[name].shape[1:])
            if min(sides) <= needed:
                raise InputError(
                    f"patch {name!r} must have more than {needed} pixels each way, which rendering.median looks at; it "
                    f"has {sides[0]}x{sides[1]}"
                )
    return starts


def made(
    params: Params, detectors: Mapping[str, Detector], data: BoxSet, places: Tensor, run: Run
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """All patches, and the losses of their searches, (iterations, detectors) each. Without those whose cells failed."""
    patches: dict[str, Tensor] = {}
    losses: dict[str, Tensor] = {}
    starts = starts_of(params, run)
    while starts:
        done = _searches(params, detectors, data, places, starts, run)
        for name, (state, trace) in done.items():
            patches[name], losses[name] = state.patch, trace
        starts = {
            name: patches[patch.start]
            for name, patch in params.patches.items()
            if name not in patches and patch.start in done
        }
    return {name: patches[name] for name in params.patches if name in patches}, losses


def _searches(
    params: Params,
    detectors: Mapping[str, Detector],
    data: BoxSet,
    places: Tensor,
    starts: Mapping[str, Tensor],
    run: Run,
) -> dict[str, tuple[State, Tensor]]:
    """The searches for some patches, side by side, piece after piece."""
    problems = {
        name: Problem(
            {each: detectors[each] for each in params.against(name)},
            *(data, places, params.hidden, params.rendering, reproduction_of(params.physical)),
        )
        for name in starts
    }
    searches = {name: params.search_of(name) for name in starts}
    states = {name: State.begin(patch, len(params.against(name))) for name, patch in starts.items()}
    traces: dict[str, list[Tensor]] = {name: [] for name in starts}
    while at_work := [name for name in states if states[name].iteration < searches[name].iterations]:
        ends = [states[name].iteration + searches[name].checkpoint_every for name in at_work]
        cells = [
            {"patch": name, "until": min(searches[name].iterations, end), "seed": run.seed_for("search", name)}
            for name, end in zip(at_work, ends, strict=True)
        ]
        # of finished searches nothing is sent: what the cells are is what has to be computed
        shared = tuple({name: every[name] for name in at_work} for every in (problems, searches, states))
        results = run.map(search_cell, cells, shared=shared, name="search")
        for name, result in zip(at_work, results, strict=True):
            if result is None:
                del states[name]
                continue
            states[name] = State(**result["state"])
            traces[name].append(result["losses"])
        means = {f"loss_{name}": float(traces[name][-1].sum(1).mean()) for name in at_work if name in states}
        if means:
            run.log(step=run.step + max(len(traces[name][-1]) for name in at_work if name in states), **means)
    return {
        name: (state, torch.cat([torch.empty(0, len(params.against(name))), *traces[name]]))
        for name, state in states.items()
    }


def search_cell(cell: dict[str, Any], shared: Any) -> dict[str, Any]:
    """One piece of the search for one patch."""
    problems, searches, states = shared
    name = cell["patch"]
    search: SearchParams = searches[name]
    state, losses = searched(states[name], problems[name], search, cell["seed"], cell["until"], reserved_device())
    return {"state": vars(state), "losses": losses}


def rows_of(
    params: Params,
    patches: Mapping[str, Tensor],
    detectors: Mapping[str, Detector],
    data: BoxSet,
    places: Tensor,
    run: Run,
) -> list[MatrixRow]:
    """Everything that is tested: no patch, the controls, the patches. Controls are as large as the patch they are like.

    Without `upside_down` and `look_alike` if the patch that they are made of could not be made, and without
    `best_colour` if it could not be chosen.
    """
    rows = [MatrixRow(CLEAN, CLEAN, None)]
    model = patches.get(params.like)
    size = params.search_of(params.like).size if model is None else (model.shape[1], model.shape[2])
    for name in params.controls.names:
        pixels: Tensor | None
        match name:
            case "grey":
                pixels = controls.plain((controls.GREY,) * 3, size)
            case "best_colour":
                colour = best_colour(params, detectors, data, places, size, run)
                pixels = None if colour is None else controls.plain(colour, size)
            case "random":
                pixels = random_patch(size, run.seed_for("random"))
            case "upside_down":
                pixels = None if model is None else controls.upside_down(model)
            case "look_alike":
                pixels = None if model is None else controls.look_alike(model, run.seed_for("look_alike"))
        if pixels is not None:
            rows.append(MatrixRow(name, CONTROL, pixels))
    return rows + [MatrixRow(name, PATCH, patch, params.against(name)) for name, patch in patches.items()]


def best_colour(
    params: Params,
    detectors: Mapping[str, Detector],
    data: BoxSet,
    places: Tensor,
    size: tuple[int, int],
    run: Run,
) -> tuple[float, float, float] | None:
    """The colour that hides people best as a plain patch: with the least loss of all detectors on training images.

    Losses are the squared hinge of the paper, relative to that of the first colour, so that detectors count alike.
    None if the cell of a loss failed: others could not be compared.
    """
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(run.seed_for("best_colour")))
    chosen = places[order[: params.controls.images]]
    colours = controls.colours(params.controls.levels)
    cells = [{"colour": list(colour), "detector": name} for name in detectors for colour in colours]
    images = data.images(chosen)
    boxes = [data.boxes(place) for place in chosen.tolist()]
    label, rendering = data.classes.index(params.hidden), params.rendering.model_copy(update={"median": 1})
    reproduction = reproduction_of(params.physical)
    shared = (dict(detectors), images, boxes, label, params.hidden, rendering, reproduction, size)
    losses = run.map(colour_cell, cells, shared=shared, name="best_colour")
    if any(loss is None for loss in losses):
        return None
    table = np.array(losses).reshape(len(detectors), len(colours))
    relative = np.nanmean(table / np.maximum(table[:, :1], 1e-6), 0)
    return colours[int(np.nanargmin(relative))]


def colour_cell(cell: dict[str, Any], shared: Any) -> float:
    """The loss of one detector on images with a plain patch of one colour, as they are seen after paper and camera."""
    detectors, images, boxes, label, hidden, rendering, reproduction, size = shared
    device, detector = reserved_device(), detectors[cell["detector"]]
    detector = detector.to(device)
    targets = targets_of(boxes, label, (images.shape[2], images.shape[3]), rendering.smallest, rendering.most)
    patch = controls.plain(tuple(cell["colour"]), size).to(device)
    with torch.no_grad():
        rendered = render(reproduction.printed(patch), images.to(device), targets, rendering)
        priors = detector.priors(reproduction.photographed(rendered, None))  # with the same noise for every colour
        return float(HingeObjective().loss(priors, detector.label_of(hidden), targets, None))


def sizes_differ(rows: Sequence[MatrixRow]) -> list[str]:
    """Sentences about patches of another shape than that of the controls, which cover more or less of a person."""
    shapes = {row.name: row.pixels.shape[1] / row.pixels.shape[2] for row in rows if row.pixels is not None}
    first = next((shapes[row.name] for row in rows if row.kind == CONTROL), None)
    return [
        f"{row.name} is {shapes[row.name]:.2f} times as high as wide, and the controls are {first:.2f} times: it does "
        "not cover as much of a person as they do"
        for row in rows
        if row.kind == PATCH and first is not None and abs(shapes[row.name] / first - 1) > 0.02
    ]
