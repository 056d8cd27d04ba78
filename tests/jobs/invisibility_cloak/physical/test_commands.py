"""The three commands: files in, files and sentences out; one line and a code for what cannot be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.common.data.boxes.base import BoxSet
from jobs.common.detection.boxes import Boxes
from jobs.invisibility_cloak.physical import __main__ as commands
from jobs.invisibility_cloak.physical import colour_map
from jobs.invisibility_cloak.physical.protocol import judged_set
from tests.jobs.invisibility_cloak.defences.detectors import WhiteFinder
from tests.jobs.invisibility_cloak.physical import pdf
from tests.jobs.invisibility_cloak.physical.test_colour_map import picture


def test_a_patch_becomes_a_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "patch.png")
    words = ["sheet", str(tmp_path / "patch.png"), str(tmp_path / "out.pdf"), "--paper", "a3", "--width", "200"]
    assert commands.main(words) == 0 and "at 100 %" in capsys.readouterr().out
    (page,) = pdf.pages((tmp_path / "out.pdf").read_bytes())
    assert page.images[0].width == pytest.approx(200, abs=0.01) and page.width == pytest.approx(297, abs=0.01)


def test_a_photograph_becomes_a_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture().save(tmp_path / "photo.jpg", quality=90)
    assert commands.main(["colours", str(tmp_path / "photo.jpg"), str(tmp_path / "map.json")]) == 0
    assert "on swatches that were left out" in capsys.readouterr().out
    assert colour_map.read(tmp_path / "map.json").error < 0.02


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sheet", "nothing.png", "out.pdf"], "nothing.png cannot be read"),
        (["sheet", "patch.png", "out.pdf", "--width", "5"], "width: Input should be greater than or equal to 10"),
        (["sheet", "patch.png", "no/folder/out.pdf"], "out.pdf cannot be written"),
        (["colours", "patch.png", "map.json"], "shows 0 of the four corner marks"),
        (["protocol", ".", "--confidence", "1"], "confidence must be above 0 and below 1; it is 1"),
        (["protocol", ".", "--detector", "yolov3"], "did you mean 'yolov3_tiny'"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (30, 50)).save("patch.png")
    assert commands.main(words) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


class Photographs(BoxSet):
    """Two with a white person each; in the second one a red patch hides it."""

    name, classes, side, boxed_by = "photographs", ("dog", "white"), 40, None

    def __len__(self) -> int:
        return 2

    def images(self, places: torch.Tensor) -> torch.Tensor:
        images = torch.full((2, 3, 40, 40), 0.2)
        images[..., 4:36, 10:20] = 1.0
        images[1, :, 20, 15] = torch.tensor([1.0, 0.0, 0.0])
        return images[places]

    def boxes(self, place: int) -> Boxes:
        return Boxes(torch.tensor([[10.0, 4.0, 20.0, 36.0], [0.0, 0.0, 5.0, 5.0]]), torch.tensor([1, 0]))


def test_photographs_are_judged_with_their_own_labels() -> None:
    one, other = judged_set(WhiteFinder(), Photographs(), "white", 0.5, batch=1)
    assert (one.place, one.outcome, one.covered) == (0, "failure", 1.0)
    assert (other.place, other.outcome, other.score) == (1, "success", 0.0)


def test_a_folder_of_photographs_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("images/test", "labels/test"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data.yaml").write_text("names: [dog, white]\n")
    for place, image in enumerate(Photographs().images(torch.arange(2))):
        pixels = (255 * image.permute(1, 2, 0)).round().to(torch.uint8).numpy()
        Image.fromarray(pixels).save(tmp_path / f"images/test/{place}.png")
        (tmp_path / f"labels/test/{place}.txt").write_text("1 0.375 0.5 0.25 0.8\n")
    finder = "tests.jobs.invisibility_cloak.defences.detectors:WhiteFinder"
    assert commands.main(["protocol", str(tmp_path), "--detector", finder, "--class", "white"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 photographs, 2 boxes of class white, white_finder:"
    assert [line.split(" (")[0] for line in lines[1:]] == [
        "success: 1 of 2, 0.50",
        "partial: 0 of 2, 0.00",
        "failure: 1 of 2, 0.50",
    ]
    assert commands.main(["protocol", str(tmp_path), "--detector", finder, "--class", "cat"]) == 2
    assert "unknown class 'cat'" in capsys.readouterr().err
