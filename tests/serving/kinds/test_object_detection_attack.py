"""Attacks on detectors: what is asked, what it may cost, when it stops, what is answered. Here and over HTTP."""

import io
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from jobs.common.detection.base import weights_hash
from jobs.common.detection.boxes import overlaps
from jobs.invisibility_cloak.patch.model import patch_card, stored
from jobs.invisibility_cloak.patch.rendering import render
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from jobs.invisibility_cloak.patch.targets import targets_of
from service import models
from service.errors import BusyError, InputError, StoreError
from service.models import publish
from service.store import open_store
from serving.http import store_errors
from serving.http.messages import Form
from serving.http.protocol import InferRequest
from serving.http.settings import Attacks, Http, Models, ServeSettings
from serving.http.uploads import to_png
from serving.kinds.detection.attack_options import DESCRIBED
from serving.kinds.object_detection import ObjectDetection
from serving.kinds.object_detection_attack import ObjectDetectionAttack, prepare
from serving.kinds.work import Abandoned, Attacked
from tests.ports import free_port
from tests.serving import in_process
from tests.serving.kinds.test_object_detection import MODEL, endpoint
from tests.serving.models import put_classifier
from tests.serving.squares import SIDE, Squares, blue_patch, put_patch, put_squares, scene

PERSONS, TREES = [(16, 24), (80, 40)], [(24, 88)]
IMAGE = scene(128, 160, PERSONS, TREES)
LARGE = {"scale": 0.6}  # of the squares, whose diagonal is 45 pixels: 27 pixels wide
BLUE = blue_patch()


def work_of(
    parameters: dict[str, Any],
    images: Tensor | None = None,
    model: ObjectDetection = MODEL,
    limits: Attacks | None = None,
    form: Form | None = None,
    **inputs: Tensor,
) -> ObjectDetectionAttack:
    arrays = {"images": (IMAGE[None] if images is None else images).numpy()}
    arrays |= {name: tensor.numpy() for name, tensor in inputs.items()}
    given = {} if parameters.get("attack") == "stored_patch" else {"iterations": 30, "height": 20, "width": 12}
    given = {name: value for name, value in {**given, **parameters}.items() if value is not None}
    return prepare(model, InferRequest("", arrays, given, None, False), form or Form(), limits or Attacks())


def run(work: ObjectDetectionAttack) -> Attacked:
    return work.compute(lambda: False)


@pytest.fixture
def with_store(store_uri: str) -> ObjectDetection:
    """The detector, with a store that holds a patch."""
    model = endpoint()
    model.store = open_store(store_uri)
    put_patch(model.store, "blue", BLUE)
    return model


# ---- a patch that is optimised ---------------------------------------------------------------------------------------


def test_a_patch_hides_every_person_and_nothing_else() -> None:
    """What is answered is checked against the detector itself, and the patch against another rendering of it."""
    before = weights_hash(MODEL.detector)
    attacked = run(work_of(LARGE))
    answer = attacked.answer
    assert tuple(answer) == ObjectDetectionAttack.outputs
    assert answer["count"].tolist() == [3] and answer["targets"].tolist() == answer["hidden"].tolist() == [2]
    assert answer["successful"].tolist() == [True] and weights_hash(MODEL.detector) == before
    (found,) = Squares().detect(torch.from_numpy(answer["adversarials"]), 0.3)
    assert len(found.of(0)) == 0 and len(found.of(1)) == 1, "the tree is seen"
    count = answer["adversarial_count"][0]
    np.testing.assert_array_equal(answer["adversarial_boxes"][0, :count], found.corners)
    np.testing.assert_array_equal(answer["adversarial_labels"][0, :count], found.labels)

    (seen,) = MODEL.detector.detect(IMAGE[None], 0.3)
    targets = targets_of([seen], 0, (128, 160))
    drawn = render(torch.from_numpy(answer["patch"][0]), IMAGE[None], targets, RenderingParams(**LARGE))
    np.testing.assert_allclose(answer["adversarials"], drawn, atol=0.5 / 255 + 1e-5)
    whole = answer["adversarials"] * 255
    np.testing.assert_allclose(np.rint(whole), whole, atol=1e-3)


def test_the_size_of_the_change_is_measured() -> None:
    answer = run(work_of({"iterations": 2})).answer
    changes = answer["adversarials"] - IMAGE[None].numpy()
    np.testing.assert_allclose(answer["linf"], np.abs(changes).max((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(answer["l2"], np.linalg.norm(changes.reshape(1, -1), axis=1), rtol=1e-5)
    changed = (changes != 0).any(1)
    np.testing.assert_allclose(answer["area"], changed.mean((1, 2)), rtol=1e-5)
    width = 0.22 * SIDE * np.sqrt(2)
    assert answer["area"][0] * 128 * 160 == pytest.approx(2 * width * width * 20 / 12, rel=0.25)
    inside = np.zeros((128, 160), bool)
    for left, top in PERSONS:
        inside[top : top + SIDE, left : left + SIDE] = True
    assert not changed[0][~inside].any()


def test_rounding_to_8_bits_is_no_change() -> None:
    """Of an image that is not one of 8 bits, pixels without a patch are rounded, and have not changed."""
    between = torch.stack([IMAGE, scene(128, 160, trees=TREES)]) * 0.95 + 0.3 / 255
    answer = run(work_of({"iterations": 2}, between)).answer
    rounded = (between * 255).round() / 255
    assert (rounded != between).any(1).float().mean() > 0.9
    changes = torch.from_numpy(answer["adversarials"]) - rounded
    assert answer["targets"].tolist() == [2, 0]
    width = 0.22 * SIDE * np.sqrt(2)
    assert answer["area"][0] * 128 * 160 == pytest.approx(2 * width * width * 20 / 12, rel=0.25)
    np.testing.assert_allclose(answer["l2"], changes.flatten(1).norm(dim=1), rtol=1e-5)
    assert answer["area"][1] == answer["linf"][1] == answer["l2"][1] == 0


def test_the_same_seed_gives_the_same_patch_and_another_another() -> None:
    first, same, other = (run(work_of({"iterations": 3, "seed": seed})).answer["patch"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 0.1


def test_images_share_a_patch_and_one_without_persons_stays_as_it_is() -> None:
    images = torch.stack([IMAGE, scene(128, 160, trees=TREES), scene(128, 160, [(60, 60)])])
    answer = run(work_of(LARGE, images)).answer
    assert answer["targets"].tolist() == [2, 0, 1] == answer["hidden"].tolist()
    assert answer["successful"].tolist() == [True, False, True] and answer["patch"].shape == (1, 3, 20, 12)
    np.testing.assert_array_equal(answer["adversarials"][1], images[1])
    assert answer["area"][1] == answer["l2"][1] == 0


@pytest.mark.parametrize(
    "parameters",
    [{"objective": "maximum"}, {"transformed": True}, {"class": "tree"}, {"objective": "targeted", "toward": "tree"}],
    ids=str,
)
def test_every_option_does_what_it_says(parameters: dict[str, Any]) -> None:
    answer = run(work_of({**LARGE, "iterations": 40, **parameters})).answer
    label = 1 if parameters.get("class") == "tree" else 0
    assert answer["hidden"].tolist() == answer["targets"].tolist() == [1 if label else 2]
    if "toward" in parameters:
        labels = answer["adversarial_labels"][0, : answer["adversarial_count"][0]]
        assert (labels == 1).sum() > 1, "persons are taken for trees"


def test_what_is_done_is_described_with_every_default() -> None:
    shared = {"class": "person", "confidence": 0.3, "overlap": 0.45, "most": 100, "tile": 1280}
    assert work_of({}).parameters == {
        "attack": "patch", "iterations": 30, "learning_rate": 0.1, "height": 20, "width": 12, "objective": "hinge",
        "transformed": False, "seed": 0, **shared,
    }  # fmt: skip
    sent = work_of({"attack": "stored_patch", "scale": 0.5}, patch=BLUE)
    assert sent.parameters == {"attack": "stored_patch", "scale": 0.5, **shared}
    for described in DESCRIBED.values():
        assert all(option["description"] for option in described["parameters"].values())
    assert set(DESCRIBED["patch"]["parameters"]) == {
        *work_of({"scale": 1, "toward": "tree", "objective": "targeted"}).parameters
    } - {"attack", *set(shared) - {"class"}}


# ---- a patch that is there -------------------------------------------------------------------------------------------


def test_a_patch_of_the_store_is_drawn_as_its_card_says(with_store: ObjectDetection) -> None:
    answer = run(work_of({"attack": "stored_patch", "patch": "blue"}, model=with_store)).answer
    np.testing.assert_array_equal(answer["patch"][0], BLUE)
    assert (
        answer["hidden"].tolist() == [2] and answer["queries"].tolist() == [2] and answer["gradients"].tolist() == [0]
    )
    (seen,) = MODEL.detector.detect(IMAGE[None], 0.3)
    drawn = render(BLUE, IMAGE[None], targets_of([seen], 0, (128, 160)), RenderingParams(scale=0.7))
    np.testing.assert_allclose(answer["adversarials"], drawn, atol=0.5 / 255 + 1e-5)
    smaller = run(work_of({"attack": "stored_patch", "patch": "blue/1", "scale": 0.3}, model=with_store)).answer
    assert 0 < smaller["area"][0] < answer["area"][0] / 3


def test_a_patch_that_is_sent_is_drawn() -> None:
    answer = run(work_of({"attack": "stored_patch", **LARGE}, patch=BLUE)).answer
    np.testing.assert_array_equal(answer["patch"][0], BLUE)
    assert answer["area"][0] > 0.03


def test_a_large_image_is_seen_in_tiles_before_and_after(with_store: ObjectDetection) -> None:
    image = scene(300, 500, [(16, 24), (420, 236), (232, 120)], [(112, 212)])
    parameters = {"attack": "stored_patch", "patch": "blue", "tile": 128, "confidence": 0.7, "scale": 0.9}
    work = work_of(parameters, image[None], with_store)
    answer = run(work).answer
    assert answer["count"].tolist() == [4] and answer["targets"].tolist() == answer["hidden"].tolist() == [3]
    parts = with_store.prepare({"images": image[None].numpy()}, {"tile": 128})
    assert work.cost.gmacs == pytest.approx(2 * parts.gmacs)


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("bleu", "parameter 'patch': no model 'bleu' (did you mean 'blue'?)"),
        ("blue/2", "parameter 'patch': model 'blue' has no version 2"),
        ("blue/x", "'x' is not a version"),
        ("digits", "parameter 'patch': the task of model 'digits' must be patch; it is classification"),
        ("../../etc", "parameter 'patch': "),
        ("wild", "the card does not say how it is drawn"),
        ("damaged", "parameter 'patch': model 'damaged' version 1: "),
        ("huge", "a patch must have at most 16,777,216 bytes"),
        ("blurred", "must compare at most 20,000,000 numbers; those of [200, 100] pixels, 31 a side, are 57,660,000"),
    ],
)
def test_what_is_no_patch_of_the_store(with_store: ObjectDetection, reference: str, sentence: str) -> None:
    store = with_store.store
    assert store is not None
    put_classifier(store, "digits")
    card = patch_card(BLUE, "person", ["squares"], RenderingParams(), {})
    wild = card.model_copy(update={"settings": {"rendering": {"scale": 5}}})
    publish(store, "wild", stored(BLUE).state_dict(), wild)
    publish(store, "damaged", stored(BLUE[:, :20]).state_dict(), card)
    put_patch(store, "blurred", torch.zeros(3, 200, 100), median=31)
    huge = torch.rand(3, 1500, 1000)
    publish(store, "huge", stored(huge).state_dict(), patch_card(huge, "person", [], RenderingParams(), {}))
    with pytest.raises(InputError) as raised:
        work_of({"attack": "stored_patch", "patch": reference}, model=with_store)
    assert sentence in str(raised.value)


def test_where_the_store_is_out_of_reach_is_told_to_the_log_alone_and_once_in_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, with_store: ObjectDetection
) -> None:
    def gone(*_: object) -> None:
        raise StoreError("cannot read /home/alice/store: it is gone")

    monkeypatch.setattr(models, "find", gone)
    now = 1e9
    monkeypatch.setattr(store_errors, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(store_errors, "_silent_until", 0.0)
    for seconds, lines in ((0, 1), (9.9, 1), (0.2, 2)):
        now += seconds
        with pytest.raises(StoreError, match="^parameter 'patch': the store cannot be read; the log of the replica"):
            work_of({"attack": "stored_patch", "patch": "blue"}, model=with_store)
        assert caplog.messages == ["cannot read /home/alice/store: it is gone"] * lines


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "inputs", "sentence"),
    [
        ({"attack": "pacth"}, {}, "unknown attack 'pacth' (did you mean 'patch'?)"),
        ({"class": "persn"}, {}, "parameter 'class': unknown class 'persn' (did you mean 'person'?)"),
        ({"class": 0}, {}, "parameter 'class': unknown class 0"),
        ({"iteration": 3}, {}, "did you mean 'iterations'"),
        ({"iterations": 0}, {}, "parameters.iterations must be at least 1; it is 0"),
        ({"height": 3}, {}, "parameters.height must be at least 4; it is 3"),
        ({"width": 5000}, {}, "parameters.width must be at most 320; it is 5000"),
        ({"scale": 0}, {}, "parameters.scale must be above 0; it is 0"),
        ({"scale": "wide"}, {}, "parameters.scale must be a number; it is 'wide'"),
        ({"confidence": 2}, {}, "parameters.confidence must be below 1; it is 2"),
        ({"objective": "hide"}, {}, "parameters.objective must be"),
        ({"objective": "targeted"}, {}, "parameter 'toward' names a class for the objective targeted"),
        ({"toward": "tree"}, {}, "parameter 'toward' names a class for the objective targeted, and goes with no other"),
        ({"objective": "targeted", "toward": "person"}, {}, "another class than the one that is hidden"),
        ({"objective": "targeted", "toward": "bush"}, {}, "unknown class 'bush'"),
        ({"transformed": 1}, {}, "parameters.transformed must be true or false; it is 1"),
        ({"seed": -1}, {}, "parameters.seed must be at least 0; it is -1"),
        ({"view": "overlay"}, {}, "unknown parameter 'view'"),
        ({"patch": "blue"}, {}, "unknown parameter 'patch'"),
        ({}, {"patch": BLUE}, "input 'patch' is for the attack 'stored_patch'"),
        ({"attack": "stored_patch"}, {}, "takes the parameter 'patch' or the tensor 'patch', one of the two"),
        ({"attack": "stored_patch", "patch": "blue"}, {"patch": BLUE}, "one of the two"),
        ({"attack": "stored_patch", "patch": "blue"}, {}, "which this server does not read"),
        ({"attack": "stored_patch", "iterations": 3}, {}, "unknown parameter 'iterations'"),
        ({"attack": "stored_patch"}, {"patch": BLUE * 255}, "the values of input 'patch' must be within [0, 1]"),
        ({"attack": "stored_patch"}, {"patch": BLUE[:1]}, "shape must be [3, -1, -1]"),
        ({"attack": "stored_patch"}, {"patch": BLUE[:, :3]}, "more than 3 pixels a side, for its median filter"),
        ({"attack": "stored_patch"}, {"patch": torch.zeros(3, 2000, 4)}, "must be at most 320; it is [2000, 4]"),
        ({}, {"images": IMAGE[None] * 255}, "divide by 255"),
        ({}, {"images": IMAGE[None, :1]}, "shape must be [-1, 3, -1, -1]"),
        ({}, {"image": IMAGE[None]}, "unknown input 'image'"),
        ({"tile": 128}, {}, "at most 128 pixels a side, those of a tile, for a patch to be optimised"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_before_the_model_is_asked(
    parameters: dict[str, Any], inputs: dict[str, Tensor], sentence: str
) -> None:
    images = inputs.pop("images", None)
    with pytest.raises(InputError) as raised:
        work_of(parameters, images, **inputs)
    assert sentence in str(raised.value)


def test_where_nobody_is_seen_nobody_can_be_hidden() -> None:
    with pytest.raises(InputError, match="must find a person to draw the patch on; with confidence 0.3 it finds none"):
        run(work_of({}, scene(128, 160, trees=TREES)[None]))
    with pytest.raises(InputError, match="finds none"):
        run(work_of({"attack": "stored_patch"}, torch.zeros(1, 3, 1, 1), patch=BLUE))


@pytest.mark.parametrize(
    ("limits", "parameters", "sentence"),
    [
        (Attacks(rows=1), {}, "at most 1 rows (attacks.rows); it has 2"),
        (Attacks(patch_pixels=40_000), {}, "at most 40,000 pixels (attacks.patch_pixels); it has 40,960"),
        (
            Attacks(passes=100),
            {"iterations": 50},
            "at most 100 passes through the detector for each image (attacks.passes); it takes up to 102",
        ),
        (Attacks(gmacs=0.01), {"iterations": 100}, "2 images x 202 passes take up to 0"),
    ],
)
def test_over_the_budget_the_cap_is_named(limits: Attacks, parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        work_of(parameters, torch.stack([IMAGE, IMAGE]), limits=limits)
    assert sentence in str(raised.value)


def test_patches_take_no_more_memory_than_is_allowed(with_store: ObjectDetection) -> None:
    """Wide ones, sampled often, on many objects: what they cover is known before one is drawn."""
    put_patch(with_store.store, "wide", BLUE, scale=2, samples=8)  # type: ignore[arg-type]
    few = Attacks(patch_pixels=1_000_000)
    work = work_of({"attack": "stored_patch", "patch": "wide"}, model=with_store, limits=few)
    with pytest.raises(
        InputError, match=r"on 2 objects must have at most 1,000,000 pixels \(attacks.patch_pixels\)"
    ) as told:
        run(work)
    expected = 64 * 2 * 2 * SIDE * np.sqrt(2) * 128  # 91 pixels wide; 151 tall, of which the image has 128
    assert int(str(told.value).split("they have ")[1].split()[0].replace(",", "")) == pytest.approx(expected, rel=0.01)
    many = work_of({"confidence": 0.01, "overlap": 1.0, "most": 300, "scale": 2.0}, limits=few)
    with pytest.raises(InputError, match="ask for a smaller scale, or for a higher confidence"):
        run(many)


def test_its_cost_is_that_of_its_passes() -> None:
    work = work_of({"iterations": 7})
    answer = run(work).answer
    assert (answer["queries"] + answer["gradients"]).tolist() == [work.cost.passes] == [2 + 7 + 7]
    assert work.cost.gmacs == pytest.approx(16 * MODEL.gmacs((1, 3, 128, 160)))


def test_it_stops_when_nobody_waits_or_it_takes_too_long() -> None:
    passes = 0

    def stopped() -> bool:
        nonlocal passes
        passes += 1
        return passes > 8

    with pytest.raises(Abandoned):
        work_of({"iterations": 9000}).compute(stopped)
    assert passes == 9
    with pytest.raises(BusyError, match=r"must end within 0.1 s \(attacks.seconds\)"):
        run(work_of({"iterations": 9000}, limits=Attacks(seconds=0.1)))


def test_what_cannot_be_seen_from_the_numbers_is_a_warning() -> None:
    class Anchorless(Squares):
        substitute = "the logit of the class"

    warnings = run(work_of({"iterations": 1}, model=endpoint(Anchorless()))).warnings
    assert warnings == ("the detector has no objectness; what is attacked in its place is the logit of the class",)
    assert run(work_of({"iterations": 1})).warnings == ()


# ---- over HTTP -------------------------------------------------------------------------------------------------------

get, post = (partial(method, timeout=60) for method in (httpx.get, httpx.post))
SETTINGS = ServeSettings(http=Http(port=free_port()), models=Models(trusted=("tests",)))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    store = open_store(str(tmp_path_factory.mktemp("attacked") / "store"))
    put_squares(store, "squares")
    put_patch(store, "blue", BLUE)
    with in_process.listening(SETTINGS, store.uri) as address:
        yield f"{address}/v2/models/squares"


def test_an_uploaded_picture_comes_back_with_the_patch_and_is_seen_as_its_headers_say(url: str) -> None:
    content, headers = to_png(IMAGE.numpy()), {"Content-Type": "image/png", "Accept": "image/png"}
    query = "iterations=30&height=20&width=12&scale=0.6"
    answer = post(f"{url}/attack?{query}", content=content, headers=headers)
    assert answer.headers["content-type"] == "image/png", answer.text
    told = {name: answer.headers[f"assay-{name}"] for name in ("targets", "hidden", "successful", "count", "area")}
    assert (told["targets"], told["hidden"], told["successful"], told["count"]) == ("2", "2", "true", "3")
    picture = np.asarray(Image.open(io.BytesIO(answer.content)))
    changed = (picture != np.asarray(Image.open(io.BytesIO(content)))).any(2)
    assert changed.mean() == pytest.approx(float(told["area"]), rel=1e-5)
    again = post(f"{url}/infer?view=objects", content=answer.content, headers={"Content-Type": "image/png"}).json()
    assert [each["class"] for each in again["objects"]] == ["tree"]

    named = "outputs=patch,hidden,adversarial_count,queries"
    body = post(f"{url}/attack?{query}&{named}", content=content, headers={"Content-Type": "image/png"}).json()
    outputs = {each["name"]: each for each in body["outputs"]}
    assert outputs["patch"]["shape"] == [1, 3, 20, 12] and outputs["adversarial_count"]["data"] == [1]
    assert body["parameters"]["class"] == "person" and body["parameters"]["scale"] == 0.6


def test_a_patch_of_the_store_by_its_name_over_http(url: str) -> None:
    headers = {"Content-Type": "image/png"}
    query = "attack=stored_patch&patch=blue&outputs=targets,hidden,adversarial_boxes,adversarial_labels"
    answer = post(f"{url}/attack?{query}", content=to_png(IMAGE.numpy()), headers=headers)
    outputs = {each["name"]: each["data"] for each in answer.json()["outputs"]}
    assert outputs["targets"] == outputs["hidden"] == [2]
    left = torch.tensor(outputs["adversarial_boxes"]).view(-1, 4)[:1]
    assert overlaps(left, torch.tensor([[24.0, 88, 56, 120]])).item() > 0.99
    refused = post(f"{url}/attack?attack=stored_patch&patch=grey", content=to_png(IMAGE.numpy()), headers=headers)
    assert refused.status_code == 400 and "no model 'grey'" in refused.json()["error"]
    models = {each["name"]: each for each in get(url.rpartition("/")[0]).json()["models"]}
    assert models["blue"]["actions"] == [] and "which has no endpoint" in models["blue"]["reason"]
    assert models["squares"]["actions"] == ["infer", "attack"]


def test_nobody_to_hide_is_said_over_http(url: str) -> None:
    answer = post(
        f"{url}/attack?iterations=2", content=to_png(scene(64, 64).numpy()), headers={"Content-Type": "image/png"}
    )
    assert answer.status_code == 400 and "must find a person" in answer.json()["error"]
