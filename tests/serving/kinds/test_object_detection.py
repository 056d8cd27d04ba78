"""Detectors as endpoints: in this process, and over HTTP as tritonclient and curl use them."""

import io
import json
import struct
import subprocess
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import torch
import tritonclient.grpc as grpc
import tritonclient.http as triton
from PIL import Image
from torch import Tensor, nn
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from jobs.common.detection.base import Detector, Priors
from jobs.common.detection.boxes import Boxes
from jobs.common.detection.cards import detector_card
from jobs.common.detection.detectors.one_anchor import one_anchor
from jobs.common.multiplications import CountMacs
from service.errors import InputError, ModelError
from service.models import ModelCard, TensorSpec, load, publish
from service.store import open_store
from serving import kinds
from serving.grpc.messages import InferMessage, encode_infer
from serving.http.messages import TENSORS, Form
from serving.http.openapi import description
from serving.http.settings import Batching, Http, Limits, Models, ServeSettings
from serving.http.uploads import to_png
from serving.kinds import kind_of
from serving.kinds.object_detection import ObjectDetection
from serving.kinds.work import Abandoned
from tests.ports import free_port
from tests.serving import in_process
from tests.serving.squares import CLASSES, SIDE, Squares, corners_of, draft, put_squares, scene

PERSONS, TREES = [(16, 24), (80, 40)], [(24, 88)]
IMAGE = scene(128, 160, PERSONS, TREES)


def card_of(**changes: Any) -> ModelCard:
    return ModelCard(
        **draft(**changes).model_dump(),
        name="m", version=1, created="", parameters=1, bytes=1, sha256="", run=None,
    )  # fmt: skip


def endpoint(net: nn.Module | None = None, limits: Limits | None = None, **changes: Any) -> ObjectDetection:
    settings = ServeSettings(limits=limits or Limits(), batching=Batching(max_rows=8))
    return ObjectDetection(card_of(**changes), net or Squares(), settings, torch.device("cpu"))


MODEL = endpoint()


def ask(model: ObjectDetection, images: Tensor, form: Form = TENSORS, **parameters: Any) -> dict[str, np.ndarray]:
    (answer,) = model.compute([model.prepare({"images": images.numpy()}, parameters, form)], lambda: False)
    return dict(answer)


def of_class(answer: dict[str, np.ndarray], label: int, row: int = 0) -> list[list[float]]:
    return sorted(answer["boxes"][row][answer["labels"][row] == label].tolist())


# ---- in this process -------------------------------------------------------------------------------------------------


def test_boxes_are_those_of_the_squares_and_the_rest_of_the_rows_stands_for_none() -> None:
    answer = ask(MODEL, torch.stack([IMAGE, scene(128, 160, trees=TREES), scene(128, 160)]))
    assert of_class(answer, 0) == corners_of(PERSONS) and of_class(answer, 1) == corners_of(TREES)
    assert answer["count"].tolist() == [3, 1, 0]
    for row, count in enumerate(answer["count"]):
        assert (answer["scores"][row, :count] > 0.9).all() and (np.diff(answer["scores"][row]) <= 0).all()
        for name, none in (("boxes", 0), ("labels", -1), ("scores", 0)):
            assert (answer[name][row, count:] == none).all()


def test_the_answer_has_the_types_and_shapes_that_the_metadata_promises() -> None:
    answer = ask(MODEL, torch.stack([IMAGE, IMAGE]), most=7)
    assert tuple(answer) == tuple(spec.name for spec in MODEL.outputs)
    for spec in MODEL.outputs:
        assert answer[spec.name].dtype == {"INT64": np.int64, "FP32": np.float32}[spec.datatype]
        sizes = zip(answer[spec.name].shape, spec.shape, strict=True)
        assert all(size == free or free == -1 for size, free in sizes)
    assert answer["boxes"].shape == (2, 7, 4) and ask(MODEL, IMAGE[None], most=2)["count"].tolist() == [2]


def test_what_is_asked_for_is_what_the_detector_is_asked() -> None:
    assert ask(MODEL, IMAGE[None], confidence=0.999)["count"].tolist() == [0]
    (expected,) = Squares().detect(IMAGE[None], 0.1, 0.9, 50)
    answer = ask(MODEL, IMAGE[None], confidence=0.1, overlap=0.9, most=50)
    assert answer["count"].tolist() == [len(expected)] and len(expected) > 3
    np.testing.assert_array_equal(answer["boxes"][0, : len(expected)], expected.corners)
    careful = endpoint(settings={"classes": list(CLASSES), "confidence": 0.999})
    assert ask(careful, IMAGE[None])["count"].tolist() == [0], "the card says what is usual"


def test_a_large_image_is_seen_in_tiles_and_the_smaller_ones_of_it_are_found() -> None:
    image = scene(300, 500, [(16, 24), (420, 236), (232, 120)], [(112, 212)])
    for parameters in ({"tile": 128}, {"tile": 65_536}):
        answer = ask(MODEL, image[None], confidence=0.7, **parameters)
        assert answer["count"].tolist() == [4]
        np.testing.assert_allclose(of_class(answer, 0), corners_of([(16, 24), (420, 236), (232, 120)]), atol=3)
    small = endpoint(settings={"classes": list(CLASSES), "tile": 128})
    np.testing.assert_array_equal(ask(small, image[None])["boxes"], ask(MODEL, image[None], tile=128)["boxes"])


def test_works_of_one_size_are_computed_together_and_answered_apart() -> None:
    parts = [torch.stack([IMAGE] * count) for count in (1, 2)] + [scene(128, 160, trees=TREES)[None]]
    works = [MODEL.prepare({"images": part.numpy()}, {}) for part in parts]
    assert len({work.key for work in works}) == 1
    for part, answer in zip(parts, MODEL.compute(works, lambda: False), strict=True):
        alone = ask(MODEL, part)
        for name, values in alone.items():
            np.testing.assert_array_equal(answer[name], values)
    others = [MODEL.prepare({"images": parts[0].numpy()}, options) for options in ({"confidence": 0.5}, {"most": 3})]
    others.append(MODEL.prepare({"images": scene(128, 164)[None].numpy()}, {}))
    assert len({work.key for work in [works[0], *others]}) == 4


def test_work_is_that_of_the_parts_in_which_an_image_is_seen() -> None:
    for height, width in ((64, 96), (200, 320)):
        with torch.no_grad(), CountMacs() as counter:
            Squares()(torch.zeros(2, 3, height, width))
        assert MODEL.gmacs((2, 3, height, width)) == pytest.approx(counter.total / 1e9, rel=0.02)
    image = np.zeros((1, 3, 128, 300), np.float32)
    work = MODEL.prepare({"images": image}, {"tile": 128})
    assert work.gmacs == pytest.approx(4 * MODEL.gmacs((1, 3, 128, 128))), "three tiles and the whole"
    with pytest.raises(InputError, match=r"billion multiplications \(limits.gmacs\)"):
        endpoint(limits=Limits(gmacs=1e-4)).prepare({"images": image}, {})


def test_no_more_pixels_than_those_of_a_few_tiles_are_in_the_detector_at_once() -> None:
    seen: list[tuple[int, ...]] = []

    class Seen(Squares):
        def detect(self, images: Tensor, *arguments: Any) -> list[Boxes]:
            seen.append(tuple(images.shape))
            return super().detect(images, *arguments)

    model = endpoint(Seen())
    seen.clear()
    ask(model, torch.zeros(8, 3, 40, 40))
    ask(model, torch.zeros(8, 3, 640, 600))
    ask(model, torch.zeros(1, 3, 700, 1500), tile=640)
    assert seen[:3] == [(8, 3, 40, 40), (4, 3, 640, 600), (4, 3, 640, 600)]
    assert all(shape[0] <= 4 and max(shape[2:]) <= 640 for shape in seen[3:])


def test_nobody_waits() -> None:
    calls = 0

    def stopped() -> bool:
        nonlocal calls
        calls += 1
        return calls > 2

    with pytest.raises(Abandoned):
        MODEL.compute([MODEL.prepare({"images": np.zeros((1, 3, 100, 2000), np.float32)}, {"tile": 128})], stopped)
    assert calls == 3, "after the whole and the first tiles"


@pytest.mark.parametrize(
    ("images", "parameters", "form", "sentence"),
    [
        (torch.zeros(9, 3, 8, 8), {}, TENSORS, "at most 8 rows (batching.max_rows); it has 9"),
        (IMAGE[None] * 255, {}, TENSORS, "divide by 255"),
        (IMAGE[None], {"confidance": 0.5}, TENSORS, "did you mean 'confidence'"),
        (IMAGE[None], {"confidence": 0}, TENSORS, "parameters.confidence must be above 0; it is 0"),
        (IMAGE[None], {"confidence": 1}, TENSORS, "parameters.confidence must be below 1; it is 1"),
        (IMAGE[None], {"confidence": "high"}, TENSORS, "parameters.confidence must be a number; it is 'high'"),
        (IMAGE[None], {"confidence": True}, TENSORS, "parameters.confidence must be a number; it is true"),
        (IMAGE[None], {"overlap": 1.5}, TENSORS, "parameters.overlap must be at most 1; it is 1.5"),
        (IMAGE[None], {"most": 301}, TENSORS, "parameters.most must be at most 300; it is 301"),
        (IMAGE[None], {"most": 2.5}, TENSORS, "parameters.most must be a whole number; it is 2.5"),
        (IMAGE[None], {"tile": 63}, TENSORS, "parameters.tile must be at least 64; it is 63"),
        (IMAGE[None], {"view": "overly"}, TENSORS, "unknown view 'overly' (did you mean 'overlay'?)"),
        (IMAGE[None], {"view": "x" * 10_000}, TENSORS, f"unknown view '{'x' * 80}…' (known"),
        (torch.stack([IMAGE, IMAGE]), {"view": "objects"}, TENSORS, "the view 'objects' is of one image, not of 2"),
        (torch.stack([IMAGE, IMAGE]), {}, Form(png=True), "the view 'overlay' is of one image, not of 2"),
        (IMAGE[None], {"view": "objects"}, Form(("count",)), "outputs and view exclude each other"),
        (
            torch.zeros(1, 3, 2000, 2000),
            {"tile": 64},
            TENSORS,
            "in at most 1,024 parts; 2000x2000 pixels in tiles of 64",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_model_is_asked(
    images: Tensor, parameters: dict[str, Any], form: Form, sentence: str
) -> None:
    with pytest.raises(InputError) as raised:
        MODEL.prepare({"images": images.numpy()}, parameters, form)
    assert sentence in str(raised.value) and len(str(raised.value)) < 400


class Wrong(Detector):
    """Answers the same boxes for every image."""

    name, classes, substitute = "wrong", CLASSES, None

    def __init__(self, corners: Any, labels: Any, scores: Any) -> None:
        super().__init__()
        self.answer = Boxes(
            torch.as_tensor(corners, dtype=torch.float32),
            torch.as_tensor(labels, dtype=torch.int64),
            None if scores is None else torch.as_tensor(scores, dtype=torch.float32),
        )

    def priors(self, images: Tensor) -> Priors:
        raise NotImplementedError

    def detect(self, images: Tensor, *arguments: Any) -> list[Boxes]:
        return [self.answer for _ in images]


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (Wrong([[0, 0, 1, float("nan")]], [0], [0.5]), "NaN or infinite boxes"),
        (Wrong([[0, 0, 1, 1]], [0], [float("inf")]), "NaN or infinite boxes"),
        (Wrong([[0, 0, 1, 1]], [2], [0.5]), "labels that are none of its 2 classes"),
        (Wrong([[0, 0, 1, 1]], [0], None), "boxes (1, 4) with 1 labels"),
        (Wrong([[0, 0, 1]], [0], [0.5]), "boxes (1, 3) with 1 labels"),
        (nn.Conv2d(3, 3, 1), "it must be a Detector; it is Conv2d"),
    ],
)
def test_a_model_that_is_no_detector_is_not_served(network: nn.Module, sentence: str) -> None:
    with pytest.raises(ModelError) as raised:
        endpoint(network)
    assert sentence in str(raised.value)


def test_boxes_that_are_not_finite_are_the_models_mistake() -> None:
    """Neighbours in a batch are tried alone, where each is told for itself."""

    class Blinded(Squares):
        def detect(self, images: Tensor, *arguments: Any) -> list[Boxes]:
            lost = Boxes(torch.full((1, 4), torch.nan), torch.zeros(1, dtype=torch.int64), torch.ones(1))
            found = super().detect(images, *arguments)
            return [lost if bool((image == 1).all()) else boxes for image, boxes in zip(images, found, strict=True)]

    model = endpoint(Blinded())
    works = [model.prepare({"images": images.numpy()}, {}) for images in (IMAGE[None], torch.ones(1, *IMAGE.shape))]
    with pytest.raises(FloatingPointError):
        model.compute(works, lambda: False)
    assert model.compute(works[:1], lambda: False)[0]["count"].tolist() == [3]
    with pytest.raises(ModelError, match="NaN or infinite boxes"):
        model.compute(works[1:], lambda: False)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"settings": {}}, "settings.classes: Field required"),
        ({"settings": {"classes": ["person"]}}, "its card names 1 classes, the detector 2"),
        ({"settings": {"classes": list(CLASSES), "confidence": 1.5}}, "settings.confidence"),
        (
            {"inputs": (TensorSpec(name="images", datatype="FP32", shape=(-1, 3, 8, 8)),)},
            "it must have one input 'images', FP32 (-1, 3, -1, -1)",
        ),
    ],
)
def test_a_card_that_does_not_say_what_is_needed(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError) as raised:
        endpoint(**changes)
    assert sentence in str(raised.value)


def test_a_detector_that_fails_on_one_size_is_the_fault_of_the_size() -> None:
    class Picky(Squares):
        def detect(self, images: Tensor, *arguments: Any) -> list[Boxes]:
            if images.shape[3] < 8:
                raise RuntimeError("kernel is larger than the image")
            return super().detect(images, *arguments)

    with pytest.raises(InputError, match=r"does not run on \[1, 3, 4, 4\]: kernel is larger"):
        ask(endpoint(Picky()), torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (3, 64)])
def test_tiny_images_are_answered(size: tuple[int, int]) -> None:
    for image in (torch.zeros(1, 3, *size), torch.ones(1, 3, *size)):
        assert ask(MODEL, image)["count"].tolist() == [0]


def test_the_kind_is_found_by_the_task() -> None:
    assert kind_of(card_of()) is ObjectDetection and ObjectDetection.actions[0] == "infer"


def test_names_of_any_alphabet_are_drawn() -> None:
    class Named(Squares):
        classes = ("人" * 40, "\n\t\u202e<b>")

    model = endpoint(Named(), settings={"classes": list(Named.classes)})
    work = model.prepare({"images": IMAGE[None].numpy()}, {"view": "overlay"})
    (answer,) = model.compute([work], lambda: False)
    assert work.rendering is not None
    assert Image.open(io.BytesIO(work.rendering.encode(answer))).size == (160, 128)


# ---- over HTTP -------------------------------------------------------------------------------------------------------

get, post = (partial(method, timeout=60) for method in (httpx.get, httpx.post))
SETTINGS = ServeSettings(http=Http(port=free_port()), models=Models(trusted=("tests",)), limits=Limits(pixels=300_000))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    store = open_store(str(tmp_path_factory.mktemp("detectors") / "store"))
    put_squares(store, "squares")
    with in_process.listening(SETTINGS, store.uri) as address:
        yield f"{address}/v2/models/squares"


PNG = {"Content-Type": "image/png"}


def test_tensors_as_clients_of_the_protocol_send_them(url: str) -> None:
    client = triton.InferenceServerClient(urlsplit(url).netloc)
    tensor = triton.InferInput("images", [1, *IMAGE.shape], "FP32").set_data_from_numpy(IMAGE[None].numpy())
    answer = client.infer("squares", [tensor], parameters={"confidence": 0.5, "most": 5})
    expected = ask(MODEL, IMAGE[None], confidence=0.5, most=5)
    for name, values in expected.items():
        np.testing.assert_array_equal(answer.as_numpy(name), values)
    config = client.get_model_config("squares")
    assert [each["dims"] for each in config["output"]] == [[-1, 4], [-1], [-1], [1]]
    only = client.infer("squares", [tensor], outputs=[triton.InferRequestedOutput("count")])
    assert only.as_numpy("count").tolist() == [3] and only.as_numpy("boxes") is None


def test_an_uploaded_picture_is_answered_with_objects_boxes_or_a_picture(url: str, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(to_png(IMAGE.numpy()))
    curl = ["curl", "-s", f"{url}/infer?view=objects", "--data-binary", "@photo.png", "-H", "Content-Type: image/png"]
    told = json.loads(subprocess.run(curl, cwd=tmp_path, capture_output=True, check=True).stdout)
    assert (told["width"], told["height"]) == (160, 128)
    assert {each["class"] for each in told["objects"]} == set(CLASSES)
    persons = sorted(each["box"] for each in told["objects"] if each["class"] == "person")
    assert persons == corners_of(PERSONS) and all(each["score"] > 0.9 for each in told["objects"])
    content = to_png(IMAGE.numpy())
    answer = post(f"{url}/infer?outputs=count,boxes&most=4", content=content, headers=PNG).json()
    assert [(each["name"], each["shape"]) for each in answer["outputs"]] == [("count", [1]), ("boxes", [1, 4, 4])]
    for address, headers in (("infer", {**PNG, "Accept": "image/png"}), ("infer?view=overlay", PNG)):
        drawn = post(f"{url}/{address}", content=content, headers=headers)
        assert drawn.headers["content-type"] == "image/png"
        picture = np.asarray(Image.open(io.BytesIO(drawn.content)))
        changed = (picture != np.asarray(Image.open(io.BytesIO(content)))).any(2)
        for left, top in PERSONS:
            assert changed[top, left : left + SIDE].all() and changed[top : top + SIDE, left].all()
            assert not changed[top + 4 : top + SIDE - 4, left + 4 : left + SIDE - 4].any(), "the object itself is seen"


def test_a_photograph_is_turned_as_its_exif_data_say(url: str) -> None:
    """The pixels are those of the image as it is to be seen."""
    file = io.BytesIO()
    turned = Image.open(io.BytesIO(to_png(IMAGE.numpy()))).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned.save(file, "JPEG", exif=exif, quality=100, subsampling=0)
    headers = {"Content-Type": "image/jpeg"}
    told = post(f"{url}/infer?view=objects", content=file.getvalue(), headers=headers).json()
    assert (told["width"], told["height"]) == (160, 128)
    assert sorted(each["box"] for each in told["objects"] if each["label"] == 0) == corners_of(PERSONS)


def test_the_metadata_says_what_comes_back(url: str) -> None:
    metadata = get(url).json()
    assert metadata["parameters"]["panel"] == "objects" and metadata["parameters"]["task"] == "object_detection"
    assert [each["name"] for each in metadata["outputs"]] == ["boxes", "labels", "scores", "count"]


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 pixels in a few kilobytes, of which only the head is read."""
    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 10_000)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (bomb(), "cannot be read: Image size (900000000 pixels) exceeds limit"),
        (to_png(np.zeros((3, 600, 600), np.float32)), "at most 300,000 pixels; it has 360,000"),
        (to_png(np.zeros((3, 2, 200), np.float32)), "at most 50 times as long as wide; it is 200x2"),
        (to_png(IMAGE.numpy())[:200], "cannot be read"),
        (b"\x89PNG", "cannot be read"),
        (b"GIF89a", "cannot be read"),
    ],
)
def test_hostile_uploads_get_a_sentence(url: str, content: bytes, sentence: str) -> None:
    answer = post(f"{url}/infer", content=content, headers=PNG)
    assert answer.status_code == 400 and sentence in answer.json()["error"]


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        ({"shape": [1, 3, 2, 2], "datatype": "FP32", "data": [1e39] * 12}, "holds NaN or an infinite number"),
        ({"shape": [1, 1, 2, 2], "datatype": "FP32", "data": [0.0] * 4}, "shape must be [-1, 3, -1, -1]"),
        ({"shape": [3, 2, 2], "datatype": "FP32", "data": [0.0] * 12}, "shape must be [-1, 3, -1, -1]"),
        ({"shape": [0, 3, 2, 2], "datatype": "FP32", "data": []}, "shape must have no 0"),
        ({"shape": [1, 3, 2, 2], "datatype": "UINT8", "data": [0] * 12}, "datatype must be FP32; it is UINT8"),
        ({"shape": [1, 3, 2, 2], "datatype": "FP32", "data": [255.0] * 12}, "divide by 255"),
        ({"shape": [1, 3, 2, 2], "datatype": "FP32", "data": [-1.0] * 12}, "pixels must be in [0, 1]"),
    ],
)
def test_tensors_that_are_no_images(url: str, tensor: dict[str, Any], sentence: str) -> None:
    answer = post(f"{url}/infer", json={"inputs": [{"name": "images", **tensor}]})
    assert answer.status_code == 400 and sentence in answer.json()["error"]


def test_a_tensor_with_nan_in_raw_bytes(url: str) -> None:
    array = np.full((1, 3, 4, 4), np.nan, np.float32)
    tensor = triton.InferInput("images", [1, 3, 4, 4], "FP32").set_data_from_numpy(array)
    with pytest.raises(InferenceServerException, match="holds NaN or an infinite number"):
        triton.InferenceServerClient(urlsplit(url).netloc).infer("squares", [tensor])


def test_what_is_told_is_as_the_description_of_the_requests_has_it(url: str) -> None:
    """The page of the requests reads it, too."""
    told = post(f"{url}/infer?view=objects", content=to_png(IMAGE.numpy()), headers=PNG).json()
    schemas = description()["components"]["schemas"]
    assert set(told) == set(schemas["Objects"]["properties"])
    assert set(told["objects"][0]) == set(schemas["Objects"]["properties"]["objects"]["items"]["properties"])


def test_over_grpc_the_answer_is_the_same() -> None:
    """As a message, read and written by what the server reads and writes with."""
    tensor = grpc.InferInput("images", [1, *IMAGE.shape], "FP32").set_data_from_numpy(IMAGE[None].numpy())
    sent = service_pb2.ModelInferRequest(model_name="squares", inputs=[tensor._get_tensor()])
    sent.raw_input_contents.append(tensor._get_content())
    sent.parameters["most"].int64_param = 5
    sent.parameters["confidence"].double_param = 0.5
    message = InferMessage.of(sent.SerializeToString())
    request = message.parse("squares", MODEL.upload)
    work = MODEL.prepare(request.inputs, request.parameters, message.form(request))
    (answer,) = MODEL.compute([work], lambda: False)
    result = grpc.InferResult(encode_infer(MODEL.card, request, answer, work.parameters))
    for name, values in ask(MODEL, IMAGE[None], confidence=0.5, most=5).items():
        np.testing.assert_array_equal(result.as_numpy(name), values)


def test_a_detector_as_a_study_saves_it_is_served(store_uri: str) -> None:
    """With random weights: what it says is nothing, but it is what the detector says. Its tiles go by its frame."""
    detector = one_anchor(classes=["person", "tree"], side=48)
    arguments = {"classes": ["person", "tree"], "side": 48}
    architecture = "jobs.common.detection.detectors:one_anchor"
    card = detector_card("invisibility_cloak", detector, architecture, arguments, metrics={}, description="random")
    store = open_store(store_uri)
    published = publish(store, "scenes-a", detector.state_dict(), card)
    assert [spec.name for spec in card.outputs] == [spec.name for spec in ObjectDetection.outputs_of(published)]
    model = kinds.endpoint(published, load(store, published), ServeSettings(), torch.device("cpu"), store)
    assert isinstance(model, ObjectDetection) and model.usual == {"confidence": 0.3, "tile": 144}
    (expected,) = detector.eval().detect(IMAGE[None, :, :100, :140], 0.01, 0.45, 100)
    answer = ask(model, IMAGE[None, :, :100, :140], confidence=0.01)
    count = answer["count"][0]
    assert count == len(expected)
    np.testing.assert_allclose(answer["boxes"][0, :count], expected.corners, atol=1e-3)
