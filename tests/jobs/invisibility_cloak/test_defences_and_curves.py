"""The study with defences, curves, paper and camera: what comes out, and what cannot be."""

from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from jobs.common.data.boxes.scenes import scenes
from jobs.common.detection.base import weights_hash
from jobs.invisibility_cloak import figures, transfer
from jobs.invisibility_cloak.defences import figures as defence_figures
from jobs.invisibility_cloak.defences.params import DefenceParams
from jobs.invisibility_cloak.defences.victims import defence_rows, defended
from jobs.invisibility_cloak.job import run
from jobs.invisibility_cloak.making import MatrixRow
from jobs.invisibility_cloak.params import Params
from jobs.invisibility_cloak.patch.search import Problem
from jobs.invisibility_cloak.physical.colour_map import ColourMap
from jobs.invisibility_cloak.physical.rephotograph import CameraParams, Reproduction
from jobs.invisibility_cloak.robustness import figures as robustness_figures
from service.errors import AssayError, RunFailedError
from service.planning.validation import validate
from service.run import Run
from tests.jobs.invisibility_cloak.physical import pdf
from tests.jobs.invisibility_cloak.physical.test_colour_map import TRUE
from tests.jobs.invisibility_cloak.toys import Spots
from tests.jobs.killed import KilledAfterCells, check_resumed

BASIS: dict[str, Any] = {
    "data": {"name": "scenes", "side": 48, "train_limit": 16, "test_limit": 4},
    "detectors": {"red": {"kind": "model", "name": "tests.jobs.invisibility_cloak.toys:Spots"}},
    "rendering": {"median": 1, "scale": 0.4},
    "search": {"size": [10, 6], "iterations": 2, "batch": 4, "learning_rate": 0.05},
    "patches": {"on_red": {"detectors": ["red"]}, "adaptive": {"detectors": ["red_median"]}},
    "controls": {"names": ["grey"]},
    "examples": 0,
}
DEFENCES = {
    "smoothing": {},
    "masking": {"updates": 2, "patches": 1, "iterations": 1, "batch": 4},
    "occlusion_vote": {"lines": 1},
}


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than all the rest of a run as small as these."""
    for module, names in (
        (figures, ("hidden", "matrix", "patches", "losses")),
        (defence_figures, ("defences",)),
        (robustness_figures, ("curves",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, lambda *_: Figure((0.1, 0.1)))


def params(**changes: Any) -> Params:
    return validate(Params, {**BASIS, **changes}, "params")


def rows(handle: Run, table: str) -> list[dict[str, Any]]:
    return handle.folder.read_table(f"tables/{table}.parquet").to_pylist()


@pytest.mark.usefixtures("undrawn")
def test_defended_detectors_are_further_victims_and_targets(make_run: Any) -> None:
    handle = make_run()
    run(params(defences=DEFENCES), handle)
    defences = ("none", "median", "smoothing", "masking", "occlusion_vote")
    table = rows(handle, "defences")
    assert [(row["defence"], row["patch"]) for row in table] == [
        (defence, patch) for defence in defences for patch in ("clean", "grey", "on_red", "adaptive")
    ]
    made = {(row["defence"], row["patch"]): row["made_against"] for row in table}
    assert made["none", "on_red"] == made["masking", "on_red"] == "the detector"
    assert made["median", "adaptive"] == "the defence" and made["none", "adaptive"] == "other"
    assert len(rows(handle, "matrix")) == 4 * 5
    assert "masking_red_train_loss" in handle.metrics


@pytest.mark.usefixtures("undrawn")
def test_curves_are_of_patches_on_their_detectors_and_of_grey(make_run: Any) -> None:
    handle = make_run()
    curves = {"scale": [0.1, 0.4], "angle": [90.0], "brightness": [], "occlusion": [0.0, 0.5], "images": 3}
    run(params(curves=curves, patches={"on_red": {}}), handle)
    table = rows(handle, "curves")
    points = [("scale", 0.1), ("scale", 0.4), ("angle", 90.0), ("occlusion", 0.0), ("occlusion", 0.5)]
    assert [(row["patch"], row["axis"], row["value"]) for row in table] == [
        (patch, *point) for patch in ("grey", "on_red") for point in points
    ]
    for patch in ("grey", "on_red"):
        own = {(row["axis"], row["value"]): row for row in table if row["patch"] == patch}
        # drawn as the rendering says it is the same whatever the axis
        assert own["scale", 0.4]["ap50"] == pytest.approx(own["occlusion", 0.0]["ap50"])


@pytest.mark.usefixtures("undrawn")
def test_paper_and_camera(make_run: Any, tmp_path: Any) -> None:
    (tmp_path / "map.json").write_text(TRUE.text())
    physical = {"colours": str(tmp_path / "map.json"), "camera": {"noise": 0.05}, "sheet": {"width": 100.0}}
    patches = []
    for name, changes in (("plain", {}), ("physical", {"physical": physical})):
        handle = make_run(name)
        run(params(patches={"on_red": {}}, **changes), handle)
        assert ("files/sheet-on-red.pdf" in handle.written.artefacts) == bool(changes)
        patches.append(handle.folder.read("tables/patch_on_red.npy"))
    assert patches[0] != patches[1]  # the search sees colours and noise
    (page,) = pdf.pages(make_run("physical").folder.read("files/sheet-on-red.pdf"))
    assert page.images[0].width == pytest.approx(100, abs=0.01)


def test_what_victims_see_has_gone_through_paper_and_camera() -> None:
    asked = params(evaluation={"floor": 1e-6}, patches={"on_red": {}})
    drawn = [MatrixRow("clean", "clean", None), MatrixRow("white", "patch", torch.ones(3, 10, 6), ("red",))]
    sets = {"test": scenes("test", 48, 16)}
    dark = ColourMap(torch.zeros(10, 3), 0.0, 0.0)
    scores = {}
    for title, reproduction in (
        ("nothing", Reproduction()),
        ("paper", Reproduction(colours=dark)),
        ("camera", Reproduction(camera=CameraParams(blur=5.0))),
    ):
        tested = transfer.TransferTest(
            drawn, {"red": Spots()}, sets, "person", asked.rendering, asked.evaluation, reproduction
        )
        for name in ("clean", "white"):
            cell = {"row": name, "victim": "red", "data": "test", "seed": 0}
            scores[title, name] = transfer.detection_cell(cell, tested)["scores"]
    assert torch.equal(scores["paper", "clean"], scores["nothing", "clean"])  # what people wear is printed, and no more
    assert not torch.equal(scores["paper", "white"], scores["nothing", "white"])
    for name in ("clean", "white"):
        assert not torch.equal(scores["camera", name], scores["nothing", name])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"patches": {"a": {"detectors": ["red_masking"]}}}, "red_masking"),
        ({"defences": {"median": {"window": 4}}}, "window must be odd; it is 4"),
        ({"detectors": {**BASIS["detectors"], "red_median": BASIS["detectors"]["red"]}, "defences": {}}, "red_median"),
        ({"curves": {"angle": [400.0]}}, "angle must be from -180 to 180; it is 400"),
        ({"physical": {"sheet": {"width": 1.0}}}, "width"),
    ],
)
def test_specs_that_cannot_be(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AssayError, match=sentence):
        params(**changes)


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_is_killed_goes_on_where_it_was(make_run: Any) -> None:
    kinds = [KilledAfterOwnPatches, KilledInSegmenter, KilledAfterCurves]
    curves = {"scale": [0.4], "angle": [], "brightness": [], "occlusion": [0.5]}
    masking = {"median": None, "occlusion_vote": None, "masking": {**DEFENCES["masking"], "updates": 4}}
    whole = params(defences=masking, curves=curves, patches={"on_red": {"detectors": ["red", "red_masking"]}})
    check_resumed(run, whole, make_run, kinds, ("matrix", "defences", "curves"))


class KilledAfterOwnPatches(KilledAfterCells):
    cells = "own_patches"


class KilledAfterCurves(KilledAfterCells):
    cells = "curves"


class KilledInSegmenter(Run):
    """Dies in the second report of the segmenter's training, after the checkpoint."""

    def checkpoint(self, state: dict[str, Any], phase: str = "main") -> None:
        super().checkpoint(state, phase)
        if phase == "masking-red" and state["progress"]["updates"] == 2:
            raise KeyboardInterrupt


def test_pictures_of_defences_and_curves() -> None:
    whole = {"ap50": 0.5, "ap50_low": 0.4, "ap50_high": 0.6, "recall": 0.5, "recall_low": 0.4, "recall_high": 0.6}
    whole["false_positives"] = 0.0
    table = [
        {"patch": patch, "kind": kind, "against": against, "victim": victim, "data": "test", **whole}
        for victim in ("red", "red_median")
        for patch, kind, against in (("clean", "clean", ""), ("grey", "control", ""), ("mine", "patch", "red_median"))
    ]
    table[0] |= dict.fromkeys(whole, None)  # nothing could be said
    ours = defence_rows(table, DefenceParams(masking=None, occlusion_vote=None), ["red"], "test")
    labels = {text.get_text() for text in defence_figures.defences(ours).legends[0].get_texts()}
    assert labels == {"without a patch", "a grey patch", "patches against it behind the defence"}
    points = [
        {"victim": "red", "patch": name, "kind": kind, "axis": axis, "value": value, **whole}
        for name, kind in (("mine", "patch"), ("grey", "control"))
        for axis in ("scale", "angle")
        for value in (0.1, 0.2)
    ]
    figure = robustness_figures.curves(points, {"scale": 0.2}, 0.5)
    assert len(figure.axes) == 2 and {text.get_text() for text in figure.legends[0].get_texts()} == {"mine", "grey"}


def test_the_same_seed_defends_alike(make_run: Any) -> None:
    """A segmenter and the patches that it learns from depend on the seed alone."""
    masking = {"median": None, "occlusion_vote": None, "masking": DEFENCES["masking"]}
    asked = params(defences=masking, patches={"on_red": {}})
    problem = Problem({"red": Spots()}, scenes("train", 48, 8), torch.arange(8), "person", asked.rendering)
    hashes = []
    for name in ("first", "second"):
        (victim,) = defended(asked.defences, ["red"], problem, asked.search, make_run(name)).values()
        hashes.append(weights_hash(victim))
    assert hashes[0] == hashes[1]


def test_a_patch_to_learn_from_that_failed_ends_the_run(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segmenter is trained once: what it did not learn from would be missing after a resume."""
    asked = params(defences={"masking": {**DEFENCES["masking"], "patches": 2}})
    problem = Problem({"red": Spots()}, scenes("train", 48, 8), torch.arange(8), "person", asked.rendering)
    handle = make_run()
    monkeypatch.setattr(handle, "map", lambda fn, cells, **named: [None, torch.rand(3, 10, 6)])
    with pytest.raises(RunFailedError, match="a patch failed that the segmenter"):
        defended(asked.defences, ["red"], problem, asked.search, handle)
