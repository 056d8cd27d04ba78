"""Attacks on segmentation: what is asked, what it may cost, when it stops, what is answered. Here and over HTTP."""

import io
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from jobs.common.attacks import PGD, Ball
from jobs.common.metrics.segmentation import IGNORE, confusion, scores
from jobs.stacked_unets.prediction import PredictionParams, predict
from service.errors import BusyError, InputError
from serving.http.messages import Form
from serving.http.protocol import InferRequest
from serving.http.settings import Attacks
from serving.http.uploads import to_png
from serving.kinds import segmentation_attack
from serving.kinds.segmentation import Segmentation
from serving.kinds.segmentation_attack import SegmentationAttack
from serving.kinds.work import Abandoned, Attacked
from tests.jobs.stacked_unets.tiny import network
from tests.processes import wait_for
from tests.serving.conftest import Served
from tests.serving.kinds.test_segmentation import MODEL, NETWORK, endpoint, picture  # noqa: F401  # used by its name
from tests.serving.messages import outputs, stats
from tests.serving.models import pixels, put_segmenter
from tests.serving.unanswered import answered, asked

IMAGES = torch.stack([picture(32, 40, seed) for seed in range(2)])
PREDICTED = MODEL.logits(IMAGES).argmax(1)
EPSILON = 4 / 255


def work_of(
    parameters: dict[str, Any], model: Segmentation = MODEL, limits: Attacks | None = None, **inputs: Tensor
) -> SegmentationAttack:
    arrays = {"images": IMAGES.numpy()} | {name: tensor.numpy() for name, tensor in inputs.items()}
    given = {name: value for name, value in {"epsilon": EPSILON, "steps": 5, **parameters}.items() if value is not None}
    request = InferRequest("", arrays, given, None, False)
    return segmentation_attack.prepare(model, request, Form(), limits or Attacks())


def run(work: SegmentationAttack) -> Attacked:
    return work.compute(lambda: False)


def mean_iou(truth: Tensor, points: np.ndarray) -> list[float]:
    predicted = MODEL.logits(torch.from_numpy(points)).argmax(1)
    return [scores(confusion(*pair, 3)).mean_iou for pair in zip(truth, predicted, strict=True)]


@pytest.mark.parametrize(("norm", "epsilon", "order"), [("Linf", EPSILON, np.inf), ("L2", 0.8, 2), ("L1", 24.0, 1)])
def test_untargeted_it_lowers_the_mean_iou_within_the_ball(norm: str, epsilon: float, order: float) -> None:
    answer = run(work_of({"norm": norm, "epsilon": epsilon})).answer
    assert tuple(answer) == SegmentationAttack.outputs and {len(array) for array in answer.values()} == {2}
    norms = np.linalg.norm((answer["adversarials"] - IMAGES.numpy()).reshape(2, -1), order, axis=1)
    assert (norms <= epsilon + 1e-4).all() and answer["adversarials"].min() >= 0 and answer["adversarials"].max() <= 1
    np.testing.assert_allclose(answer["distance"], norms, rtol=1e-4)
    np.testing.assert_array_equal(answer["labels"], PREDICTED)
    np.testing.assert_array_equal(answer["mean_iou"], [1, 1])
    assert (answer["adversarial_mean_iou"] < 0.7).all()
    np.testing.assert_allclose(answer["adversarial_mean_iou"], mean_iou(PREDICTED, answer["adversarials"]), atol=0.01)
    rounded = np.rint(answer["adversarials"] * 255) / np.float32(255)
    np.testing.assert_allclose(answer["rounded_mean_iou"], mean_iou(PREDICTED, rounded), atol=0.01)
    wrong = (answer["adversarial_labels"] != answer["labels"]).mean((1, 2))
    np.testing.assert_allclose(answer["share"], wrong, rtol=1e-5)


def test_the_answer_is_that_of_the_library() -> None:
    answer = run(work_of({"steps": 3, "seed": 5, "restarts": 2})).answer
    expected = PGD(steps=3, restarts=2).run(NETWORK, IMAGES, PREDICTED, Ball("Linf", EPSILON), seed=5)
    # the served network has its layers fused: a pixel whose gradient is nearly 0 may go the other way
    assert (np.abs(answer["adversarials"] - expected.adversarials.numpy()) > 1e-4).mean() < 0.01
    np.testing.assert_array_equal(answer["queries"], expected.queries)
    np.testing.assert_array_equal(answer["gradients"], expected.gradients)


def test_a_stacked_unet_is_served_and_attacked_at_odd_sizes() -> None:
    net = network()
    model = endpoint(net.eval())
    for size in ((17, 23), (1, 1), (1, 40)):
        images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
        (answer,) = model.compute([model.prepare({"images": images.numpy()}, {})], lambda: False)
        np.testing.assert_array_equal(answer["labels"][0], predict(net, images[0], PredictionParams()).labels)
        attacked = run(work_of({"steps": 2, "random_start": False}, model, images=images)).answer
        expected = PGD(steps=2, random_start=False).run(
            net, images, torch.from_numpy(answer["labels"]).long(), Ball("Linf", EPSILON)
        )
        assert (np.abs(attacked["adversarials"] - expected.adversarials.numpy()) > 1e-4).mean() < 0.02


def test_targeted_at_a_class_it_leads_there() -> None:
    answer = run(work_of({"target": 2, "steps": 10, "epsilon": 8 / 255})).answer
    before, after = ((answer[name] == 2).mean((1, 2)) for name in ("labels", "adversarial_labels"))
    np.testing.assert_allclose(answer["share"], after, rtol=1e-5)
    assert (after > before + 0.3).all() and (answer["adversarial_mean_iou"] < 0.7).all()


def test_in_a_region_no_other_pixel_counts() -> None:
    """What is told is about the region alone, and the attack is that on a map that counts nowhere else."""
    answer = run(work_of({"region": "10,4,30,20", "target": 0})).answer
    inside = np.zeros((2, 32, 40), bool)
    inside[:, 4:20, 10:30] = True
    np.testing.assert_allclose(answer["share"], (answer["adversarial_labels"][inside] == 0).reshape(2, -1).mean(1))
    truth = PREDICTED.where(torch.from_numpy(inside), IGNORE)
    np.testing.assert_allclose(answer["adversarial_mean_iou"], mean_iou(truth, answer["adversarials"]), atol=0.02)
    targets = torch.where(torch.from_numpy(inside), 0, IGNORE).to(torch.uint8)
    same = run(work_of({}, targets=targets)).answer
    np.testing.assert_array_equal(same["adversarial_labels"], answer["adversarial_labels"])


def test_pixels_without_a_label_count_nowhere() -> None:
    labels = PREDICTED.clone().to(torch.uint8)
    labels[:, :, ::2] = IGNORE
    labels[0, :, 1::2] = (labels[0, :, 1::2] + 1) % 3  # all that the model says of the first one is wrong
    answer = run(work_of({}, labels=labels)).answer
    np.testing.assert_allclose(answer["mean_iou"], [0, 1])
    assert answer["successful"].tolist()[0] and answer["distance"][0] == 0 and answer["gradients"][0] == 0
    truth = labels.long()
    np.testing.assert_allclose(answer["adversarial_mean_iou"], mean_iou(truth, answer["adversarials"]), atol=0.02)


def test_pixels_whose_logits_are_not_finite_have_no_label() -> None:
    """They are at no goal, and count as wrong in the mean IoU."""

    class Lost(torch.nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            logits: Tensor = NETWORK(points)
            if points.shape != IMAGES.shape:
                return logits
            changed = (points[:, :1] != IMAGES[:, :1]).flatten(1).any(1).view(-1, 1, 1, 1)
            corner = torch.zeros(1, 1, *points.shape[2:], dtype=torch.bool)
            corner[..., :4, :4] = True
            return logits.masked_fill(changed & corner, torch.inf)

    attacked = run(work_of({}, endpoint(Lost())))
    labels = attacked.answer["adversarial_labels"]
    assert (labels[:, :4, :4] == IGNORE).all() and (labels[:, 4:] < 3).all()
    assert not attacked.answer["successful"].any() and (attacked.answer["adversarial_mean_iou"] < 1).all()
    assert "the logits of 2 of 2 samples were NaN or infinite" in attacked.warnings[-1]


def test_what_is_done_is_described_with_every_default() -> None:
    assert work_of({"target": 1, "region": "0,0,8,8"}).parameters == {
        "attack": "pgd", "norm": "Linf", "epsilon": EPSILON, "seed": 0, "steps": 5, "restarts": 1,
        "passes": 1, "confirmations": 0,
        "random_start": True, "loss": "cross_entropy", "target": 1, "region": "0,0,8,8",
    }  # fmt: skip


def maps(value: int, *size: int) -> Tensor:
    return torch.full(size or (2, 32, 40), value, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("parameters", "inputs", "sentence"),
    [
        ({"epsilon": None}, {}, "parameter 'epsilon' is missing"),
        ({"epsilon": 8}, {}, "8 of 255 is 0.0314"),
        ({"attack": "square", "steps": None}, {}, "must be one of fgsm, pgd for this model; it is 'square'"),
        ({"attack": "pdg"}, {}, "did you mean 'pgd'"),
        ({"stepps": 3}, {}, "did you mean 'steps'"),
        ({"target": 3}, {}, "parameter 'target' must be a whole number from 0 to 2; it is 3"),
        ({"target": "dark"}, {}, "parameter 'target' must be a whole number from 0 to 2; it is 'dark'"),
        ({"target": 1}, {"targets": maps(0)}, "exclude each other"),
        ({"region": "0,0,41,32"}, {}, "must be left,top,right,bottom inside of 40x32 pixels; it is '0,0,41,32'"),
        ({"region": "5,5,5,9"}, {}, "it is '5,5,5,9'"),
        ({"region": "1,2,3"}, {}, "it is '1,2,3'"),
        ({"region": "0,0,-1,8"}, {}, "it is '0,0,-1,8'"),
        ({"region": 4}, {}, "it is 4"),
        ({}, {"label": maps(0)}, "did you mean 'labels'"),
        ({}, {"labels": maps(3)}, "input 'labels' must be a class, from 0 to 2; it is 3 (255 where"),
        (
            {},
            {"labels": maps(0, 2, 40, 32)},
            "input 'labels': shape must be [2, 32, 40], that of the pixels; it is [2, 40, 32]",
        ),
        ({}, {"labels": PREDICTED}, "datatype must be UINT8; it is INT64"),
        ({}, {"labels": maps(255)}, "no pixel of image 0 counts"),
        ({"region": "0,0,4,4"}, {"targets": maps(255)}, "no pixel of image 0 counts"),
        ({}, {"images": IMAGES * 255}, "divide by 255"),
        ({}, {"images": torch.zeros(1, 3, 8, 513)}, "at most 512 pixels a side to be attacked; they are 513x8"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_model_is_asked(
    parameters: dict[str, Any], inputs: dict[str, Tensor], sentence: str
) -> None:
    with pytest.raises(InputError) as raised:
        work_of(parameters, **inputs)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("limits", "parameters", "sentence"),
    [
        (Attacks(rows=1), {}, "at most 1 rows (attacks.rows); it has 2"),
        (Attacks(pixels=2000), {}, "at most 2,000 pixels (attacks.pixels); it has 2,560"),
        (
            Attacks(passes=100),
            {"steps": 50},
            "at most 100 passes through the model for each image (attacks.passes); it takes up to 101",
        ),
        (Attacks(gmacs=0.1), {"steps": 100}, "(attacks.gmacs)"),
    ],
)
def test_over_the_budget_the_cap_is_named(limits: Attacks, parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        work_of(parameters, limits=limits)
    assert sentence in str(raised.value)


def test_its_cost_is_that_of_its_passes() -> None:
    work = work_of({"steps": 7})
    assert work.cost.gmacs == pytest.approx((8 + 7) * MODEL.gmacs(IMAGES.shape))
    answer = run(work).answer
    assert (answer["queries"] + answer["gradients"] == 8 + 7 + 1).all(), "and the clean image"


def test_it_stops_when_nobody_waits_or_it_takes_too_long() -> None:
    passes = 0

    def stopped() -> bool:
        nonlocal passes
        passes += 1
        return passes > 20

    with pytest.raises(Abandoned):
        work_of({"steps": 1000, "epsilon": 1e-9}).compute(stopped)
    assert passes == 21
    limits = Attacks(seconds=0.1, passes=200_000, gmacs=1e6)
    with pytest.raises(BusyError, match=r"must end within 0.1 s \(attacks.seconds\)"):
        run(work_of({"steps": 90_000, "epsilon": 1e-9}, limits=limits))


# ---- over HTTP -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fen(served: Served) -> Served:
    put_segmenter(served.store, "fen")
    return served


def post(served: Served, body: dict[str, Any], **options: Any) -> httpx.Response:
    return httpx.post(f"{served.url}/v2/models/fen/attack", json=body, **{"timeout": 60, **options})


def message(images: Tensor, labels: Tensor | None = None, **parameters: Any) -> dict[str, Any]:
    inputs = [{"name": "images", "datatype": "FP32", "shape": list(images.shape), "data": images.flatten().tolist()}]
    if labels is not None:
        inputs.append(
            {"name": "labels", "datatype": "UINT8", "shape": list(labels.shape), "data": labels.flatten().tolist()}
        )
    return {"inputs": inputs, "parameters": parameters}


def test_an_attack_with_labels_over_http(fen: Served) -> None:
    before = stats(fen, "fen", "1")["attack_stats"]["queries"]
    answer = post(fen, message(IMAGES, PREDICTED, epsilon=EPSILON, steps=5))
    assert answer.status_code == 200, answer.text
    attacked = outputs(answer.json())
    assert attacked["mean_iou"] == [1, 1] and max(attacked["adversarial_mean_iou"]) < 0.7
    assert attacked["queries"] == [7, 7] and stats(fen, "fen", "1")["attack_stats"]["queries"] == before + 14
    assert max(attacked["distance"]) <= EPSILON + 1e-6
    refused = post(fen, message(IMAGES, epsilon=EPSILON, attack="apgd"))
    assert refused.status_code == 400 and "it is 'apgd'" in refused.json()["error"]


def test_an_uploaded_image_comes_back_as_a_png_that_is_segmented_as_its_headers_say(fen: Served) -> None:
    clean = to_png(IMAGES[0].numpy())
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    url = f"{fen.url}/v2/models/fen"
    answer = httpx.post(
        f"{url}/attack?epsilon=0.03&steps=10&target=2&region=0,0,20,32", content=clean, headers=headers, timeout=60
    )
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png", answer.text
    described = {
        name: answer.headers[f"assay-{name}"] for name in ("mean-iou", "rounded-mean-iou", "share", "successful")
    }
    assert float(described["mean-iou"]) == 1 and "assay-labels" not in answer.headers
    query = "epsilon=0.03&steps=10&target=2&region=0,0,20,32&outputs=rounded_mean_iou,share"
    as_json = {"Content-Type": "image/png"}
    same = httpx.post(f"{url}/attack?{query}", content=clean, headers=as_json, timeout=60).json()
    assert same["parameters"]["region"] == "0,0,20,32" and set(outputs(same)) == {"rounded_mean_iou", "share"}
    assert outputs(same)["share"] == [pytest.approx(float(described["share"]))]
    labels = [
        np.asarray(
            Image.open(io.BytesIO(httpx.post(f"{url}/infer", content=each, headers=headers, timeout=60).content))
        )
        for each in (clean, answer.content)
    ]
    assert (labels[1][:, :20] == 2).mean() > (labels[0][:, :20] == 2).mean() + 0.3
    truth, predicted = (torch.from_numpy(each[:, :20].copy()) for each in labels)
    iou = scores(confusion(truth, predicted, 3)).mean_iou
    assert float(described["rounded-mean-iou"]) == pytest.approx(iou, abs=0.02) and iou < 0.7


def test_a_client_that_leaves_takes_its_attack_along(fen: Served) -> None:
    quick = message(IMAGES[:1, :, :8, :8], epsilon=EPSILON, attack="fgsm")
    assert post(fen, quick).status_code == 200  # the model is loaded
    with asked(fen.address, "fen/attack", message(pixels(1, 3, 16), epsilon=1e-9, steps=90_000)) as (long,):
        wait_for(lambda: stats(fen, "fen", "1")["running"]["attacks"])
        assert not answered([long])
    assert post(fen, quick).status_code == 200, "the next one would wait for minutes"
    assert stats(fen, "fen", "1")["running"]["attacks"] == 0
