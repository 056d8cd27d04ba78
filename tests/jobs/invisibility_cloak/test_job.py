"""The whole study on small scenes: what comes out, kill and resume, Ray, and what cannot work."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from pydantic import ValidationError

from jobs.common.data.boxes.scenes import Scenes
from jobs.common.detection.boxes import Boxes
from jobs.invisibility_cloak import figures, results
from jobs.invisibility_cloak.estimation import estimate
from jobs.invisibility_cloak.job import run, summarize
from jobs.invisibility_cloak.params import CONTROLS, Params
from jobs.invisibility_cloak.patch.controls import plain
from jobs.invisibility_cloak.patch.model import patch_card, stored
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from service import models
from service.errors import AssayError, InputError
from service.execution.checkpoints import decode
from service.planning.validation import validate
from service.run import Run, Trial
from tests.jobs.elsewhere import check_elsewhere, check_ray
from tests.jobs.killed import KilledAfterCells, check_resumed

SPOTS = {"kind": "model", "name": "tests.jobs.invisibility_cloak.toys:Spots"}
GREEN = {**SPOTS, "options": {"name": "green", "channel": 1}}
LEARNS = {
    "kind": "train",
    "name": "one_anchor",
    "options": {"width": 0.25},
    "training": {"updates": 6, "batch": 4, "held_out": 4, "report_every": 2},
}
BASIS: dict[str, Any] = {
    "data": {"name": "scenes", "side": 48, "train_limit": 16, "test_limit": 6},
    "detectors": {"red": SPOTS, "green": GREEN},
    "rendering": {"median": 1, "scale": 0.4},
    "search": {"size": [10, 6], "iterations": 6, "batch": 4, "learning_rate": 0.05, "checkpoint_every": 2},
    "patches": {"on_red": {"detectors": ["red"]}, "both": {}},
    "controls": {"levels": 2, "images": 4},
    "examples": 0,
}
TABLES = ("matrix",)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than all the rest of a run as small as these."""
    for name in ("hidden", "matrix", "patches", "losses"):
        monkeypatch.setattr(figures, name, lambda *_: Figure((0.1, 0.1)))


def params(**changes: Any) -> Params:
    return validate(Params, {**BASIS, **changes}, "params")


def rows(handle: Any, name: str = "matrix") -> list[dict[str, Any]]:
    return handle.folder.read_table(f"tables/{name}.parquet").to_pylist()  # type: ignore[no-any-return]


def staged(handle: Any) -> dict[str, Any]:
    paths = [path for path in handle.written.artefacts if path.startswith("models/")]
    return {Path(path).stem: decode(handle.folder.read(path)) for path in paths}


def test_one_spec_trains_searches_and_crosses_everything(make_run: Any) -> None:
    handle = make_run()
    patches = {
        "on_red": {"detectors": ["red"]},
        "both": {"ensemble": {"kind": "min_max"}, "objective": {"kind": "maximum"}},
        "tuned": {"start": "on_red", "detectors": ["learns"]},
    }
    detectors = {"red": SPOTS, "learns": LEARNS}
    evaluation = {"drawn_on": "detections", "random_rendering": True, "data": {"second": BASIS["data"]}}
    run(params(patches=patches, detectors=detectors, evaluation=evaluation, examples=1), handle)
    table = rows(handle)
    names = ["clean", *CONTROLS, *patches]
    assert [(row["data"], row["victim"], row["patch"]) for row in table] == [
        (data, victim, name) for data in ("test", "second") for victim in detectors for name in names
    ]
    for row in table:
        kind = "clean" if row["patch"] == "clean" else "control" if row["patch"] in CONTROLS else "patch"
        assert row["kind"] == kind and (row["drawn"] == 0) == (kind == "clean" or row["victim"] == "learns")
        assert row["recall_low"] <= row["recall"] <= row["recall_high"]
    assert {row["against"] for row in table} == {"", "red", "red, learns", "learns"}
    for name in ("hidden", "matrix", "patches", "search", "examples_red", "examples_learns"):
        assert handle.folder.exists(f"figures/{name}.png"), name
    metrics = handle.metrics
    assert {"learns_train_loss", "loss_both", "ap50_both_red", "recall_clean_learns", "recall_tuned_learns"} <= set(
        metrics
    )

    saved = staged(handle)
    assert set(saved) == {
        "scenes-cloak-learns",
        *(f"scenes-cloak-patch-{name}" for name in ("on-red", "both", "tuned")),
    }
    card = models.CardDraft.model_validate(saved["scenes-cloak-patch-on-red"]["draft"])
    assert card.task == "patch" and card.settings["hidden"] == "person" and card.settings["detectors"] == ["red"]
    pixels = np.load(io.BytesIO(handle.folder.read("tables/patch_on_red.npy")))
    assert np.array_equal(saved["scenes-cloak-patch-on-red"]["weights"]["pixels"].numpy(), pixels)
    assert pixels.min() >= 0 and pixels.max() <= 1
    png = np.asarray(Image.open(io.BytesIO(handle.folder.read("files/patch_on_red.png"))))
    assert np.abs(png / 255 - pixels.transpose(1, 2, 0)).max() <= 0.5 / 255 + 1e-6
    assert models.CardDraft.model_validate(saved["scenes-cloak-learns"]["draft"]).task == "object_detection"


def test_a_run_that_is_killed_goes_on_where_it_was(make_run: Any, undrawn: None) -> None:
    asked = params(detectors={"red": SPOTS, "learns": LEARNS})
    kinds = [KilledInTraining, KilledInSearch, KilledAfterMatrix]
    undisturbed, *resumed = [
        decode(handle.folder.read("models/scenes-cloak-patch-both.safetensors"))["weights"]["pixels"]
        for handle in check_resumed(run, asked, make_run, kinds, TABLES)
    ]
    assert all(torch.equal(each, undisturbed) for each in resumed)


class KilledInTraining(Run):
    """Dies in the second report of a detector's training, after the checkpoint."""

    def checkpoint(self, state: dict[str, Any], phase: str = "main") -> None:
        super().checkpoint(state, phase)
        if state["progress"]["updates"] == 4:
            raise KeyboardInterrupt


class KilledInSearch(Run):
    """Dies when the second pieces of the searches for patches are done."""

    def map(self, fn: Any, cells: Any, shared: Any = None, name: str | None = None) -> list[Any]:
        found = super().map(fn, cells, shared, name)
        if name == "search" and cells[0]["until"] == 4:
            raise KeyboardInterrupt
        return found


class KilledAfterMatrix(KilledAfterCells):
    cells = "matrix"


def test_pieces_of_a_search_change_nothing(make_run: Any, undrawn: None) -> None:
    few, whole = make_run("few"), make_run("whole")
    run(params(), few)
    run(params(search={**BASIS["search"], "checkpoint_every": 100}), whole)
    assert rows(few) == rows(whole)
    assert few.folder.read("tables/patch_both.npy") == whole.folder.read("tables/patch_both.npy")


def test_cells_that_are_computed_elsewhere_give_the_same(make_run: Any) -> None:
    """The short form of the next test: no process is started."""
    check_elsewhere(
        run, params(detectors={"red": SPOTS, "learns": LEARNS}), make_run, ("matrix.parquet", "patch_both.npy")
    )


@pytest.mark.slow
def test_ray_gives_what_a_serial_run_gives(ray_session: None, tmp_path: Path) -> None:
    check_ray(
        "invisibility_cloak",
        {**BASIS, "detectors": {"red": SPOTS, "learns": LEARNS}},
        tmp_path,
        ("matrix.parquet", "patch_both.npy"),
    )


def test_a_stored_patch_and_one_of_a_file_are_tested_as_they_are(make_run: Any, undrawn: None, tmp_path: Path) -> None:
    handle = make_run()
    saved = plain((0.2, 0.4, 0.6), (10, 6))
    card = patch_card(saved, "person", ["other"], RenderingParams(), {})
    models.publish(handle._store, "cloak", dict(stored(saved).state_dict()), card)
    Image.fromarray(np.full((9, 9), 51, np.uint8)).save(tmp_path / "grey.png")
    still = {**BASIS["search"], "iterations": 0}
    patches = {
        "stored": {"stored": "cloak/1", "search": still},
        "file": {"file": str(tmp_path / "grey.png"), "search": still},
    }
    run(params(patches=patches), handle)
    known = {
        name: torch.from_numpy(np.load(io.BytesIO(handle.folder.read(f"tables/patch_{name}.npy")))) for name in patches
    }
    assert torch.equal(known["stored"], saved) and known["file"].shape == (3, 9, 9)
    assert float((known["file"] - 0.2).abs().max()) < 1e-6
    assert any("file is 1.00 times as high as wide" in sentence for sentence in handle.written.warnings)


def test_a_patch_smaller_than_its_filter_is_refused(make_run: Any, tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 9), 51, np.uint8)).save(tmp_path / "flat.png")
    patches = {"x": {"file": str(tmp_path / "flat.png")}}
    with pytest.raises(InputError, match="patch 'x' must have more than 3 pixels each way, .*; it has 3x9"):
        run(params(patches=patches, rendering={"median": 7}), make_run())


def test_trials_stand_beside_each_other(make_run: Any) -> None:
    handle = make_run()
    run(params(), handle)
    common = {"id": "000", "label": "x", "variant": None, "seed": 0, "overrides": {}, "params": params(), "best": True}
    trial = Trial(handle.folder, status="finished", metrics=handle.metrics, **common)
    whole = make_run("whole")
    summarize([trial], whole)
    assert "recall_both_red" in rows(whole, "results")[0] and whole.folder.exists("figures/hidden_000.png")


def test_what_it_costs_is_said_beforehand() -> None:
    trained = {"red": LEARNS, "green": LEARNS}
    small, large = (
        estimate(params(detectors=trained)),
        estimate(params(detectors=trained, search={**BASIS["search"], "iterations": 6000})),
    )
    assert small.core_seconds and large.core_seconds and large.core_seconds > small.core_seconds
    assert small.details["gradient steps on patches"] == 12 and small.details["cells of the matrix"] == 16
    # red: 6 updates of 4; 6 steps of 4 for each of two patches; 8 rows on 6 images; 8 colours on 4
    assert small.details["passes of red"] == round(24 + 48 + (48 + 32) / 3)
    assert estimate(params()).core_seconds is None, "what is in a store is not known beforehand"


def test_nobody_to_hide_is_said(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no image of scenes has a box of class 'person' .* [1-9][0-9] too small"):
        run(params(data={**BASIS["data"], "train_limit": 16}, rendering={"median": 1, "smallest": 500}), make_run())
    monkeypatch.setattr(Scenes, "boxes", lambda self, place: Boxes(torch.empty(0, 4), torch.empty(0).long()))
    with pytest.raises(InputError, match="no image of scenes has a box"):
        run(params(), make_run())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden": "cat"}, "unknown class of scenes 'cat'"),
        ({"patches": {"x": {"stored": "nothing"}}}, "no model 'nothing'"),
        ({"patches": {"x": {"file": "/nowhere.png"}}}, "patches.x.file: '/nowhere.png' cannot be read"),
        (
            {"detectors": {"learns": {**LEARNS, "classes": ["tree"]}}, "patches": {"x": {}}},
            "unknown class of detector learns 'person' .known: tree",
        ),
        (
            {"search": {**BASIS["search"], "objective": {"kind": "targeted", "toward": "car"}}},
            "unknown class of spots 'car'",
        ),
        (
            {"detectors": {"restless": {"kind": "model", "name": "tests.jobs.invisibility_cloak.toys:Restless"}},
             "patches": {"x": {}}},
            "detector 'restless' changed while it was attacked",
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(make_run: Any, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AssayError, match=sentence):
        run(params(**changes), make_run())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"patches": {"grey": {}}}, "patches.grey must have another name than clean, grey"),
        ({"patches": {"x": {"detectors": ["rot"]}}}, "patches.x.detectors must be of red, green; it is 'rot'"),
        ({"patches": {"x": {"detectors": ["red", "red"]}}}, "patches.x.detectors must name each once; it is"),
        ({"controls": {"names": ["grey", "random", "grey"]}}, "controls.names must name each once; it is"),
        ({"patches": {"x": {"start": "y"}}}, "patches.x.start must be of noise, grey; it is 'y'"),
        (
            {"patches": {"x": {"start": "y"}, "y": {"start": "x"}}},
            "patches.x.start must not lead back to itself; it is 'y'",
        ),
        ({"patches": {"x": {"start": "grey", "stored": "y"}}}, "start must be one of start, stored and file"),
        ({"controls": {"like": "z"}}, "controls.like must be of on_red, both; it is 'z'"),
        ({"rendering": {"median": 4}}, "median must be odd; it is 4"),
        ({"rendering": {"median": 31}}, "search.size must be more than 15"),
        ({"rendering": {"contrast": [1.2, 0.8]}}, "contrast must ascend"),
        ({"evaluation": {"floor": 0.6}}, "evaluation.floor must be below evaluation.confidence, 0.5; it is 0.6"),
        ({"evaluation": {"data": {"test": {}}}}, "evaluation.data must not be called test"),
        (
            {"search": {"ensemble": {"kind": "fixed", "weights": {"rot": 1.0}}}},
            "search.ensemble.weights must be of red, green; it is 'rot'",
        ),
        (
            {"search": {"ensemble": {"kind": "min_max", "step_size": 4, "regularisation": 1}}},
            "step_size must be at most 1, 1 / regularisation; it is 4",
        ),
        ({"search": {"learning_rate": float("nan")}}, "learning_rate"),
        ({"detectors": {}}, "detectors"),
        ({"publish_as": "x" * 60}, "publish_as must be up to 63"),
    ],
)
def test_specs_that_make_no_sense_are_refused_by_name(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises((AssayError, ValidationError), match=sentence):
        params(**changes)


def row(patch: str, kind: str = "control", **values: Any) -> dict[str, Any]:
    basis = {"recall": 0.8, "recall_low": 0.7, "false_positives": 0.1, "boxes": 9, "against": ""}
    return {"patch": patch, "kind": kind, "victim": "red", "data": "test", **basis, **values}


def test_what_a_reader_has_to_know_first_is_said() -> None:
    table = [
        row("clean", "clean", recall=0.3),
        row("grey"),
        row("mine", "patch", against="red", recall=0.75, false_positives=2.0),
    ]
    sentences = results.warnings_of(table, {}, 0.5, "dog")
    assert [sentence.split(":")[0] for sentence in sentences] == [
        "red on test finds 30% of class dog without a patch at a confidence of 0.5",
        "mine was made against red and hides hardly more of class dog on test than a grey patch",
        "mine makes red on test report what is not there",
    ]
    assert not results.warnings_of(
        [row("clean", "clean"), row("grey"), row("mine", "patch", recall=0.2)], {}, 0.5, "dog"
    )
    assert "no box of class dog" in results.warnings_of([row("clean", "clean", boxes=0)], {}, 0.5, "dog")[0]
