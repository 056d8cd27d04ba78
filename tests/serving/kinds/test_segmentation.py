"""Segmentation networks as endpoints: in this process, and over HTTP as tritonclient and curl use them."""

import concurrent.futures
import io
import json
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import tritonclient.http as triton
from PIL import Image
from torch import Tensor, nn

from jobs.common.multiplications import CountMacs
from jobs.stacked_unets.padding import any_size
from jobs.stacked_unets.prediction import PredictionParams, predict
from service.errors import InputError, ModelError
from service.models import ModelCard, TensorSpec
from serving.http.messages import TENSORS, Form
from serving.http.settings import Batching, Limits, ServeSettings
from serving.http.uploads import to_png
from serving.kinds import kind_of
from serving.kinds.segmentation import Segmentation
from serving.kinds.work import Abandoned
from tests.jobs.stacked_unets import tiny
from tests.serving.conftest import Served
from tests.serving.messages import outputs, refused, stats
from tests.serving.models import pixels, put_segmenter, segmenter_draft, segmenter_network

NETWORK = segmenter_network()
PALETTE = [(0, 0, 0), (255, 255, 0), (255, 0, 255)]  # of dark, bright and missing


def card_of(**changes: Any) -> ModelCard:
    return ModelCard(
        **segmenter_draft(**changes).model_dump(),
        name="m", version=1, created="", parameters=1, bytes=1, sha256="", run=None,
    )  # fmt: skip


def endpoint(net: nn.Module | None = None, limits: Limits | None = None, **changes: Any) -> Segmentation:
    settings = ServeSettings(limits=limits or Limits(), batching=Batching(max_rows=8))
    return Segmentation(card_of(**changes), net or NETWORK, settings, torch.device("cpu"))


MODEL, STRICT = endpoint(), endpoint(limits=Limits(map_values=1000))


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth, so that its classes form regions: (3, height, width), its pixels of 8 bits."""
    coarse = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)[0]
    return (smooth * 255).round() / 255


def expected(image: Tensor) -> np.ndarray:
    """The labels that the study itself finds."""
    return predict(NETWORK, image, PredictionParams()).labels.numpy()


def alike(labels: np.ndarray, expected: np.ndarray) -> bool:
    """The same but for a pixel in a thousand, where two classes may be equally likely up to rounding."""
    return labels.shape == expected.shape and float((labels != expected).mean()) <= 1e-3


# ---- in this process -------------------------------------------------------------------------------------------------


def ask(model: Segmentation, images: Tensor, form: Form = TENSORS, **parameters: Any) -> dict[str, np.ndarray]:
    (answer,) = model.compute([model.prepare({"images": images.numpy()}, parameters, form)], lambda: False)
    return dict(answer)


@pytest.mark.parametrize("size", [(40, 56), (140, 500)])  # the network itself, and what is made of it for large images
def test_the_answer_is_that_of_the_study(size: tuple[int, int]) -> None:
    image = picture(*size)
    answer = ask(MODEL, image[None])
    segmented = predict(NETWORK, image, PredictionParams())
    assert alike(answer["labels"][0], segmented.labels.numpy()) and len(np.unique(answer["labels"])) == 3
    np.testing.assert_allclose(answer["confidence"][0], segmented.confidence, atol=1e-5)
    for label in range(3):
        there = answer["labels"][0] == label
        np.testing.assert_allclose(answer["areas"][0, label], there.mean(), rtol=1e-6)
        np.testing.assert_allclose(
            answer["class_confidence"][0, label], answer["confidence"][0][there].mean(), rtol=1e-5
        )


def test_logits_are_those_of_the_network_and_come_when_they_are_asked_for() -> None:
    images = pixels(2, 3, 33)
    assert "logits" not in ask(MODEL, images)
    answer = ask(MODEL, images, Form(("logits", "labels")))
    with torch.no_grad():
        np.testing.assert_allclose(answer["logits"], NETWORK(images), atol=1e-4)
    np.testing.assert_array_equal(answer["logits"].argmax(1), answer["labels"])
    assert set(answer) == {"logits", "labels"}


def test_a_network_that_needs_multiples_is_asked_for_images_of_any_size() -> None:
    """Also for more than it can take: what is computed for a small image is what its padded one takes."""
    torch.manual_seed(0)
    net = tiny.Ladder(3, 3).eval()
    model, image = endpoint(net), picture(21, 42)
    answer = ask(model, image[None])
    segmented = predict(any_size(net, 3), image, PredictionParams())
    assert alike(answer["labels"][0], segmented.labels.numpy())
    assert model.gmacs((5, 3, 1, 1)) == model.gmacs((5, 3, 8, 8)) == 5 * model.gmacs((1, 3, 8, 8))
    with CountMacs() as counter, torch.no_grad():
        model.network(torch.zeros(2, 3, 9, 30))
    assert model.gmacs((2, 3, 9, 30)) == pytest.approx(counter.total / 1e9)


def test_the_answer_has_the_types_and_shapes_that_the_metadata_promises() -> None:
    answer = ask(MODEL, pixels(2, 3, 20), Form(tuple(spec.name for spec in MODEL.outputs)))
    assert tuple(sorted(answer)) == tuple(sorted(spec.name for spec in MODEL.outputs))
    for spec in MODEL.outputs:
        assert answer[spec.name].dtype == {"UINT8": np.uint8, "FP32": np.float32}[spec.datatype]
        sizes = zip(answer[spec.name].shape, spec.shape, strict=True)
        assert all(size == free or free == -1 for size, free in sizes)


def test_an_image_larger_than_a_tile_is_cut_and_its_logits_agree_with_its_labels() -> None:
    image = picture(70, 700)
    answer = ask(MODEL, image[None], Form(("labels", "confidence", "logits")))
    assert alike(answer["labels"][0], expected(image))
    shares = torch.from_numpy(answer["logits"]).softmax(1).amax(1)
    np.testing.assert_allclose(answer["confidence"], shares, atol=1e-5)


def test_works_of_one_size_are_computed_together_and_answered_apart() -> None:
    parts = [pixels(count, 3, 24, seed=count) for count in (1, 2, 1)]
    works = [MODEL.prepare({"images": part.numpy()}, {}) for part in parts]
    assert len({work.key for work in works}) == 1
    for part, answer in zip(parts, MODEL.compute(works, lambda: False), strict=True):
        alone = ask(MODEL, part)
        assert alike(answer["labels"], alone["labels"])
        np.testing.assert_allclose(answer["areas"], alone["areas"], atol=2e-3)
    other = MODEL.prepare({"images": pixels(1, 3, 25).numpy()}, {})
    logits = MODEL.prepare({"images": parts[0].numpy()}, {}, Form(("logits",)))
    assert len({works[0].key, other.key, logits.key}) == 3


def test_no_more_pixels_than_those_of_a_tile_are_in_the_network_at_once() -> None:
    pixels_at_once: list[int] = []

    class Seen(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            pixels_at_once.append(int(images[:, 0].numel()))  # of a network that cannot be traced
            return torch.cat([images[:, :2], images[:, 2:] + 0.1], dim=1)

    model = endpoint(Seen())
    pixels_at_once.clear()  # those of loading
    ask(model, torch.zeros(8, 3, 300, 260))
    assert pixels_at_once == [*[3 * 300 * 260] * 2, 2 * 300 * 260]


def test_work_is_counted_in_tiles() -> None:
    with torch.no_grad(), CountMacs() as counter:
        NETWORK(torch.zeros(1, 3, 64, 128))
    np.testing.assert_allclose(MODEL.gmacs((1, 3, 64, 128)), counter.total / 1e9, rtol=1e-3)
    assert MODEL.gmacs((2, 3, 512, 512)) == 2 * MODEL.gmacs((1, 3, 512, 512))
    np.testing.assert_allclose(MODEL.gmacs((1, 3, 512, 832)), 2 * MODEL.gmacs((1, 3, 512, 512)))  # 320 + 512
    with pytest.raises(InputError, match=r"at most 1 billion multiplications \(limits.gmacs\)"):
        endpoint(limits=Limits(gmacs=1)).prepare({"images": np.zeros((1, 3, 900, 900), np.float32)}, {})


def test_nobody_waits() -> None:
    calls = 0

    def stopped() -> bool:
        nonlocal calls
        calls += 1
        return calls > 1

    with pytest.raises(Abandoned):
        MODEL.compute([MODEL.prepare({"images": np.zeros((1, 3, 16, 1200), np.float32)}, {})], stopped)
    assert calls == 2, "after the first of three tiles"


@pytest.mark.parametrize(
    ("images", "parameters", "form", "sentence"),
    [
        (pixels(9, 3), {}, Form(), "at most 8 rows (batching.max_rows); it has 9"),
        (pixels(1, 3) * 255, {}, Form(), "divide by 255"),
        (pixels(1, 3), {"veiw": "overlay"}, Form(), "did you mean 'view'"),
        (pixels(1, 3), {"view": "overly"}, Form(), "did you mean 'overlay'"),
        (pixels(1, 3), {"view": 1}, Form(), "unknown view 1"),
        (pixels(2, 3), {}, Form(png=True), "a PNG is the answer for one image, not for 2"),
        (pixels(1, 3), {"view": "labels"}, Form(("areas",)), "outputs and view exclude each other"),
        (
            pixels(1, 3, 20),
            {},
            Form(("logits",)),
            "logits must have at most 1,000 numbers (limits.map_values); those of 1 x 20 x 20 pixels are 1,200",
        ),
        (pixels(3, 3, 20), {}, Form(), "labels and confidence must have at most 1,000 numbers"),
    ],
)
def test_what_makes_no_sense_is_refused(images: Tensor, parameters: dict[str, Any], form: Form, sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        STRICT.prepare({"images": images.numpy()}, parameters, form)
    assert sentence in str(raised.value)


CARD = segmenter_draft()


class Zeros(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), *self.shape)


@pytest.mark.parametrize(
    ("net", "changes", "sentence"),
    [
        (NETWORK, {"settings": {"classes": ["a", "b", "c"]}}, "settings.palette: Field required"),
        (NETWORK, {"settings": {**CARD.settings, "palette": [[0, 0, 0]]}}, "1 colours for 3 classes"),
        (NETWORK, {"settings": {**CARD.settings, "palette": [[0, 0, 256]] * 3}}, "settings.palette.0.2"),
        (
            NETWORK,
            {"inputs": (TensorSpec(name="images", datatype="FP32", shape=(-1, 1, -1, -1)),)},
            "one input 'images'",
        ),
        (Zeros(3, 32, 32), {}, "returns (1, 3, 32, 32) for images (3, 128, 128)"),
        (Zeros(2, 128, 128), {}, "but its card names 3 classes"),
    ],
)
def test_a_network_that_is_not_what_its_card_says_is_refused(
    net: nn.Module, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ModelError) as raised:
        endpoint(net, **changes)
    assert sentence in str(raised.value)


def test_answers_that_are_no_numbers_are_the_models_fault() -> None:
    class Overflows(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images / (images - 0.25)

    with pytest.raises(ModelError, match="NaN or infinite logits"):
        ask(endpoint(Overflows()), torch.full((1, 3, 4, 4), 0.25))


# ---- over HTTP -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def marsh(served: Served) -> Served:
    put_segmenter(served.store, "marsh")
    return served


def tensor(array: np.ndarray, binary: bool = True) -> list[triton.InferInput]:
    made = triton.InferInput("images", list(array.shape), "FP32")
    return [made.set_data_from_numpy(array, binary_data=binary)]


def upload(served: Served, body: bytes, query: str = "", accept: str = "*/*", kind: str = "png") -> httpx.Response:
    headers = {"Content-Type": f"image/{kind}", "Accept": accept}
    return httpx.post(f"{served.url}/v2/models/marsh/infer{query}", content=body, headers=headers, timeout=60)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def opened(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return Image.open(io.BytesIO(answer.content))


@pytest.mark.parametrize("binary", [True, False])
def test_requests_of_two_sizes_at_once(marsh: Served, binary: bool) -> None:
    """All of tritonclient's forms; the small ones are computed together, and each gets its own answer."""
    images = [picture(24, 36, seed) for seed in range(3)] + [picture(40, 28, seed) for seed in range(2)]
    before = stats(marsh, "marsh", "1")["inference_count"]

    def infer(image: Tensor) -> dict[str, np.ndarray]:
        requested = [triton.InferRequestedOutput(name, binary) for name in ("labels", "areas", "logits")]
        result = marsh.client().infer("marsh", tensor(image[None].numpy(), binary), outputs=requested)
        return {name: result.as_numpy(name) for name in ("labels", "areas", "logits")}

    with concurrent.futures.ThreadPoolExecutor(len(images)) as pool:
        answers = list(pool.map(infer, images))
    for image, answer in zip(images, answers, strict=True):
        assert alike(answer["labels"][0], expected(image))
        with torch.no_grad():
            np.testing.assert_allclose(answer["logits"], NETWORK(image[None]), atol=1e-3)
    assert stats(marsh, "marsh", "1")["inference_count"] == before + 5


def test_metadata_names_the_classes_and_their_colours(marsh: Served) -> None:
    metadata = marsh.client().get_model_metadata("marsh")
    assert metadata["platform"] == "assay_segmentation" and metadata["parameters"]["actions"] == ["infer", "attack"]
    settings = metadata["parameters"]["settings"]
    assert settings["classes"] == ["dark", "bright", "missing"] and settings["ignore"] == 255
    assert [tuple(colour) for colour in settings["palette"]] == PALETTE
    shapes = {each["name"]: each["shape"] for each in metadata["outputs"]}
    assert shapes["labels"] == [-1, -1, -1] and shapes["logits"] == [-1, 3, -1, -1]
    with refused(400, "did you mean 'labels'"):
        marsh.client().infer(
            "marsh", tensor(picture(8, 8)[None].numpy()), outputs=[triton.InferRequestedOutput("label")]
        )


def test_curl_uploads_an_image_and_gets_areas_an_indexed_png_and_an_overlay(marsh: Served, tmp_path: Path) -> None:
    image = picture(45, 60)
    (tmp_path / "field.png").write_bytes(to_png(image.numpy()))

    def curl(query: str, *options: str) -> bytes:
        command = ["curl", "-s", "--data-binary", f"@{tmp_path}/field.png", "-H", "Content-Type: image/png", *options]
        address = f"{marsh.url}/v2/models/marsh/infer{query}"
        return subprocess.run([*command, address], check=True, capture_output=True, timeout=60).stdout

    truth = expected(image)
    shares = outputs(json.loads(curl("")))
    assert set(shares) == {"areas", "class_confidence"}
    np.testing.assert_allclose(shares["areas"], [(truth == label).mean() for label in range(3)], atol=2e-3)
    assert alike(np.reshape(outputs(json.loads(curl("?outputs=labels")))["labels"], (45, 60)), truth)

    for indexed in (curl("", "-H", "Accept: image/png"), curl("?view=labels")):
        png = Image.open(io.BytesIO(indexed))
        assert png.mode == "P" and png.size == (60, 45)
        colours = np.array(png.getpalette()).reshape(-1, 3)[:3]
        assert [tuple(colour) for colour in colours.tolist()] == PALETTE
        labels = np.asarray(png)
        assert alike(labels, truth)

    overlay = Image.open(io.BytesIO(curl("?view=overlay")))
    assert overlay.mode == "RGB"
    blended = 127.5 * image.permute(1, 2, 0).numpy() + 0.5 * np.array(PALETTE)[labels]
    np.testing.assert_allclose(np.asarray(overlay), blended, atol=1)


def test_outputs_that_are_named_are_answered_whatever_is_accepted(marsh: Served) -> None:
    answer = upload(marsh, to_png(picture(8, 8).numpy()), "?outputs=areas", accept="application/json, image/png")
    assert set(outputs(answer.json())) == {"areas"}


def test_a_tensor_may_be_answered_with_a_picture_too(marsh: Served) -> None:
    image = picture(10, 12)[None]
    described = {"name": "images", "datatype": "FP32", "shape": list(image.shape), "data": image.flatten().tolist()}
    body = {"inputs": [described], "parameters": {"view": "labels"}}
    answer = httpx.post(f"{marsh.url}/v2/models/marsh/infer", json=body, timeout=60)
    assert alike(np.asarray(opened(answer)), expected(image[0]))


def test_what_is_seen_of_an_upload_is_what_the_data_sets_see(marsh: Served) -> None:
    """Turned as its EXIF data say, on white where it is transparent, of 16 bits the upper 8, grey as colour."""
    values = (picture(30, 50) * 255).to(torch.uint8)
    image = Image.fromarray(values.permute(1, 2, 0).numpy())
    exif = Image.Exif()
    exif[0x0112] = 6  # the right side of the file is the bottom
    turned = opened(upload(marsh, encoded(image, exif=exif), accept="image/png"))
    assert turned.size == (30, 50) and alike(np.asarray(turned), expected(values.rot90(-1, (1, 2)) / 255))

    glass = image.copy()
    glass.putalpha(0)
    assert alike(np.asarray(opened(upload(marsh, encoded(glass), "?view=labels"))), expected(torch.ones(3, 30, 50)))

    grey = values[:1].expand(3, 30, 50) / 255
    deep = Image.fromarray(values[0].numpy().astype(np.uint16) << 8)
    for each in (deep, Image.fromarray(values[0].numpy())):
        assert alike(np.asarray(opened(upload(marsh, encoded(each), "?view=labels"))), expected(grey))


def test_one_pixel_is_an_image(marsh: Served) -> None:
    body = encoded(Image.new("RGB", (1, 1), (255, 0, 0)))
    labels = np.asarray(opened(upload(marsh, body, accept="image/png")))
    expected_label = expected(torch.tensor([1.0, 0, 0]).view(3, 1, 1))
    assert labels.shape == (1, 1) and labels == expected_label
    assert outputs(upload(marsh, body).json())["areas"] == [float(label == expected_label.item()) for label in range(3)]


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in some hundred bytes; its data are never looked at."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8))


@pytest.mark.parametrize(
    ("body", "query", "sentence"),
    [
        (bomb(), "", "3600000000 pixels"),
        (to_png(np.zeros((1, 400, 300))), "", "it must have at most 100,000 pixels; it has 120,000"),
        (encoded(NOISE, "JPEG")[:1500], "", "image file is truncated"),
        (encoded(NOISE)[:1500], "", "truncated"),
        (b"hello", "", "it is none of PNG, JPEG"),
        (b"", "", "it is none of PNG, JPEG"),
        (encoded(Image.new("L", (600, 3))), "", "at most 50 times as long as wide; it is 600x3"),
        (encoded(NOISE), "?view=map", "unknown view 'map'"),
        (encoded(NOISE), "?outputs=label", "did you mean 'labels'"),
        (encoded(NOISE), "?vew=labels", "did you mean 'view'"),
    ],
)
def test_bad_uploads_get_400_and_one_sentence(marsh: Served, body: bytes, query: str, sentence: str) -> None:
    answer = upload(marsh, body, query, kind="jpeg" if body[:2] == b"\xff\xd8" else "png")
    assert answer.status_code == 400 and list(answer.json()) == ["error"]
    assert sentence in answer.json()["error"] and "\n" not in answer.json()["error"]


def test_it_is_a_kind_of_its_own() -> None:
    assert kind_of(card_of()) is Segmentation
