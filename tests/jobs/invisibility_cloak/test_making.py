"""What is made beside the patches: the best plain colour, of losses that are all there."""

from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.common.data.boxes.scenes import scenes
from jobs.common.detection.base import frozen
from jobs.invisibility_cloak.making import best_colour, rows_of
from jobs.invisibility_cloak.params import Params
from jobs.invisibility_cloak.physical import rephotograph
from jobs.invisibility_cloak.physical.colour_map import ColourMap
from service.planning.validation import validate
from tests.jobs.invisibility_cloak.toys import Spots

DATA = scenes("train", 48, 8)
BASIS: dict[str, Any] = {
    "data": {"name": "scenes", "side": 48},
    "detectors": {"red": {"kind": "model", "name": "tests.jobs.invisibility_cloak.toys:Spots"}},
    "rendering": {"median": 1, "scale": 0.6},
    "controls": {"names": ["best_colour"], "levels": 2, "images": 8},
}


def asked(**changes: Any) -> Params:
    return validate(Params, {**BASIS, **changes}, "params")


def test_the_best_colour_has_nothing_of_what_is_seen(make_run: Any) -> None:
    colour = best_colour(asked(), {"red": frozen(Spots())}, DATA, torch.arange(8), (10, 6), make_run())
    assert colour is not None and colour[0] == 0


def test_the_best_colour_is_that_of_what_is_printed_and_photographed(
    make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A printer that prints red where there is none and none where it is."""
    coefficients = torch.zeros(10, 3)
    coefficients[0, 0], coefficients[1, 0] = 1.0, -1.0
    (tmp_path / "map.json").write_text(ColourMap(coefficients, 0.0, 0.0).text())
    cameras: list[rephotograph.CameraParams] = []
    photographed = rephotograph.photographed
    monkeypatch.setattr(
        rephotograph, "photographed", lambda *given: (cameras.append(given[1]), photographed(*given))[1]
    )
    spec = asked(physical={"colours": str(tmp_path / "map.json"), "camera": {"noise": 0.0}})
    colour = best_colour(spec, {"red": frozen(Spots())}, DATA, torch.arange(8), (10, 6), make_run())
    assert colour is not None and colour[0] == 1
    assert spec.physical is not None and cameras == [spec.physical.camera] * 8


def test_there_is_no_best_colour_if_a_loss_failed(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the first colour is the unit of the others."""
    handle = make_run()
    whole = handle.map
    monkeypatch.setattr(handle, "map", lambda *given, **named: [None, *whole(*given, **named)[1:]])
    rows = rows_of(asked(), {}, {"red": Spots(), "green": Spots("green", 1)}, DATA, torch.arange(8), handle)
    assert [row.name for row in rows] == ["clean"]
