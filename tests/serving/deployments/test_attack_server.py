"""Classifiers over HTTP: inference, uploaded images and attacks, as tritonclient, curl and httpx send them."""

import contextlib
import io
import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import tritonclient.http as triton
from PIL import Image

from jobs.common.attacks import PGD, Ball
from serving.http.uploads import to_png
from tests.processes import wait_for
from tests.serving.conftest import SETTINGS, Served
from tests.serving.messages import message as thinking_message
from tests.serving.messages import outputs, refused, stats
from tests.serving.models import DIGITS, bits, classifier_network, pixels
from tests.serving.unanswered import answer, answered, asked

FOREVER = {"epsilon": 1e-9, "attack": "pgd", "steps": 99_000}  # nothing breaks, so it goes on for minutes


def tensor(name: str, array: np.ndarray) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), {"f": "FP32", "i": "INT64"}[array.dtype.kind])
    return made.set_data_from_numpy(array)


def message(images: np.ndarray, labels: list[int] | None = None, **parameters: Any) -> dict[str, Any]:
    inputs = [{"name": "images", "datatype": "FP32", "shape": list(images.shape), "data": images.ravel().tolist()}]
    if labels is not None:
        inputs.append({"name": "labels", "datatype": "INT64", "shape": [len(labels)], "data": labels})
    return {"inputs": inputs, "parameters": parameters}


def attack(served: Served, body: dict[str, Any], model: str = "digits", **options: Any) -> httpx.Response:
    return httpx.post(f"{served.url}/v2/models/{model}/attack", json=body, timeout=60, **options)


# ---- inference -------------------------------------------------------------------------------------------------------


def test_a_classifier_answers_tritonclient(served: Served) -> None:
    client, images = served.client(), pixels(3)
    metadata = client.get_model_metadata("digits")
    assert metadata["platform"] == "assay_classification"
    assert metadata["parameters"]["settings"]["classes"] == list(DIGITS)
    assert metadata["parameters"]["actions"] == ["infer", "attack"]
    assert [each["shape"] for each in metadata["outputs"]] == [[-1, 10], [-1, 10], [-1]]
    result = client.infer("digits", [tensor("images", images.numpy())])
    with torch.no_grad():
        logits = classifier_network()(images)
    np.testing.assert_allclose(result.as_numpy("logits"), logits, atol=1e-5)
    np.testing.assert_array_equal(result.as_numpy("prediction"), logits.argmax(1))
    with refused(400, "divide by 255"):
        client.infer("digits", [tensor("images", images.numpy() * 255)])
    stream = httpx.post(f"{served.url}/v2/models/digits/infer_stream", json=message(images.numpy()))
    assert stream.status_code == 404 and "has no 'infer_stream'" in stream.json()["error"]


def test_curl_uploads_an_image(served: Served, tmp_path: Path) -> None:
    image = pixels(1, channels=3, side=20)
    (tmp_path / "cat.png").write_bytes(to_png(image[0].numpy()))
    rounded = torch.from_numpy(np.rint(image.numpy() * 255) / np.float32(255))
    with torch.no_grad():
        expected = classifier_network(3)(rounded).argmax(1).tolist()

    def curl(address: str, *options: str) -> dict[str, Any]:
        command = ["curl", "-s", "--data-binary", f"@{tmp_path}/cat.png", *options, f"{served.url}/v2/models/{address}"]
        answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
        return answer

    png = ("-H", "Content-Type: image/png")
    assert outputs(curl("photos/infer?outputs=prediction", *png)) == {"prediction": expected}
    assert set(outputs(curl("photos/infer", *png))) == {"logits", "probabilities", "prediction"}
    assert curl("digits/infer", *png)["outputs"][0]["shape"] == [1, 10], "made grey and small"
    assert (
        "sum" not in curl("sums/infer", *png)
        and "takes no files of type image/png" in curl("sums/infer", *png)["error"]
    )
    assert "application/x-www-form-urlencoded is not supported" in curl("photos/infer")["error"]
    binary = ("-H", "Content-Type: application/octet-stream")
    assert "its content type does not say so" in curl("photos/infer", *binary)["error"]
    (tmp_path / "cat.png").write_bytes(to_png(np.zeros((1, 400, 300))))
    assert "at most 100,000 pixels; it has 120,000" in curl("photos/infer", *png)["error"]
    (tmp_path / "cat.png").write_bytes(to_png(image[0].numpy()))
    answer = curl("photos/attack?epsilon=0.2&attack=fgsm&outputs=prediction,successful", *png)
    assert outputs(answer)["prediction"] == expected and answer["parameters"]["attack"] == "fgsm"


# ---- attacks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [True, False])
def test_an_attack_in_the_form_of_tritonclient(served: Served, binary: bool) -> None:
    """Its client has no call for attacks, but it writes their requests and reads their answers."""
    images, labels = pixels(4), torch.arange(4)
    body, length = triton.InferenceServerClient.generate_request_body(
        [tensor("images", images.numpy()), tensor("labels", labels.numpy())],
        outputs=[triton.InferRequestedOutput(name, binary) for name in ("adversarials", "successful", "distance")],
        parameters={"attack": "pgd", "epsilon": 0.1, "norm": "Linf", "steps": 5, "seed": 3},
    )
    url = f"{served.url}/v2/models/digits/versions/1/attack"
    answer = httpx.post(url, content=body, headers={"Inference-Header-Content-Length": str(length)}, timeout=60)
    assert answer.status_code == 200, answer.text
    header = answer.headers.get("inference-header-content-length")
    assert (header is not None) == binary
    result = triton.InferenceServerClient.parse_response_body(
        answer.content, header_length=int(header) if header else None
    )
    network = classifier_network().requires_grad_(False)
    expected = PGD(steps=5).run(network, images, labels, Ball("Linf", 0.1), seed=3)
    np.testing.assert_array_equal(result.as_numpy("successful"), expected.successful)
    np.testing.assert_allclose(result.as_numpy("adversarials"), expected.adversarials, atol=1e-5)
    again = served.client().infer("digits", [tensor("images", result.as_numpy("adversarials"))])
    np.testing.assert_array_equal(again.as_numpy("prediction") != labels.numpy(), expected.successful)


def test_the_answer_says_what_was_done_and_what_it_took(served: Served) -> None:
    before = stats(served, "digits", "1")["attack_stats"]
    answer = attack(served, message(pixels(2).numpy(), epsilon=1e-9, steps=4) | {"id": "a"}).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("digits", "1", "a")
    assert answer["parameters"] == {
        "attack": "pgd", "norm": "Linf", "epsilon": 1e-9, "seed": 0,
        "steps": 4, "restarts": 1, "random_start": True, "loss": "cross_entropy", "passes": 1, "confirmations": 0,
    }  # fmt: skip
    attacked = outputs(answer)
    assert (attacked["queries"], attacked["gradients"], attacked["successful"]) == ([6, 6], [4, 4], [False, False])
    assert attacked["minimum_distance"] == [-1, -1] and attacked["prediction"] == attacked["adversarial_prediction"]
    after = stats(served, "digits", "1")["attack_stats"]
    assert (after["queries"] - before["queries"], after["gradients"] - before["gradients"]) == (12, 8)
    assert after["success"]["count"] == before["success"]["count"] + 1
    assert after["success"]["ns"] > before["success"]["ns"]


def test_an_uploaded_image_comes_back_as_a_png_that_fools_the_model(served: Served) -> None:
    """Rounded to 8 bits and uploaded again, it is taken for what the answer's headers say."""
    clean = to_png(pixels(1, channels=3, side=20)[0].numpy())
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    url = f"{served.url}/v2/models/photos"
    answer = httpx.post(f"{url}/attack?epsilon=0.1&steps=10", content=clean, headers=headers, timeout=60)
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    assert answer.headers["assay-successful"] == answer.headers["assay-rounded-successful"] == "true"
    pictures = [np.asarray(Image.open(io.BytesIO(each))).astype(int) for each in (clean, answer.content)]
    assert 0 < np.abs(pictures[0] - pictures[1]).max() <= 26  # 0.1 of 255, rounded
    again = httpx.post(f"{url}/infer", content=answer.content, headers=headers, timeout=60).json()
    assert outputs(again)["prediction"] != [int(answer.headers["assay-prediction"])]
    two = attack(served, message(pixels(2).numpy(), epsilon=0.1), headers={"Accept": "image/png"})
    assert two.status_code == 400 and "one grey or colour image" in two.json()["error"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"not json", "not valid JSON"),
        (b'{"inputs": []}', "inputs is missing"),
        (json.dumps(message(pixels(1).numpy())).encode(), "'epsilon' is missing"),
        (json.dumps(message(pixels(1).numpy(), epsilon=8)).encode(), "8 of 255 is 0.0314"),
        (json.dumps(message(pixels(1).numpy(), epsilon=0.1, atack="pgd")).encode(), "did you mean 'attack'"),
        (json.dumps(message(pixels(1).numpy(), [12], epsilon=0.1)).encode(), "it is 12"),
        (json.dumps(message(pixels(1).numpy() * 255, epsilon=0.1)).encode(), "divide by 255"),
        (json.dumps(message(pixels(41).numpy(), epsilon=0.1)).encode(), "at most 40 rows"),
        (json.dumps(message(pixels(1).numpy(), epsilon=0.1, steps=100_000)).encode(), "attacks.passes"),
        (
            json.dumps(message(pixels(1).numpy(), epsilon=0.1) | {"outputs": [{"name": "succesful"}]}).encode(),
            "'successful'",
        ),
    ],
)
def test_what_makes_no_sense_gets_400_and_a_sentence(served: Served, body: bytes, sentence: str) -> None:
    answer = httpx.post(f"{served.url}/v2/models/digits/attack", content=body, timeout=60)
    assert answer.status_code == 400 and sentence in answer.json()["error"]


def test_what_cannot_be_attacked_has_no_such_path(served: Served) -> None:
    for model, sentence in (("sums", "has no 'attack'"), ("digts", "did you mean 'digits'"), ("walk", "no endpoint")):
        answer = attack(served, message(pixels(1).numpy(), epsilon=0.1), model)
        assert answer.status_code == 404 and sentence in answer.json()["error"]
    assert httpx.get(f"{served.url}/v2/models/digits/attack").status_code == 405
    too_large = httpx.post(f"{served.url}/v2/models/digits/attack", content=b" " * (5 << 20), timeout=60)
    assert too_large.status_code == 413


# ---- long attacks ----------------------------------------------------------------------------------------------------


def long_attacks(served: Served, count: int) -> contextlib.AbstractContextManager[list[socket.socket]]:
    """So many clients ask for attacks that would take minutes; they leave at the end of the block."""
    return asked(served.address, "digits/attack", message(pixels(8).numpy(), **FOREVER), count)


def test_inference_goes_on_and_a_client_that_leaves_takes_its_attack_along(served: Served) -> None:
    """The next attack would wait for minutes, were the one before it not abandoned."""
    quick = message(pixels(1).numpy(), epsilon=0.1, attack="fgsm")
    attack(served, quick)  # the model is loaded
    with long_attacks(served, 1) as (long,):
        wait_for(lambda: stats(served, "digits", "1")["running"]["attacks"])
        for seed in range(5):
            served.client().infer("digits", [tensor("images", pixels(2, seed=seed).numpy())])
            httpx.post(
                f"{served.url}/v2/models/sums/infer", json=thinking_message(bits(1, 8).numpy())
            ).raise_for_status()
        assert not answered([long])
    assert attack(served, quick).status_code == 200
    now = stats(served, "digits", "1")
    assert now["running"]["attacks"] == 0 and now["attack_stats"]["fail"]["count"] > 0


def test_too_many_attacks_are_told_to_come_back(served: Served) -> None:
    """Two at a replica and one that waits: of six, three are refused at once."""
    with long_attacks(served, 6) as under_way:
        wait_for(lambda: answered(under_way))
        for each in answered(under_way):
            response, content = answer(each)
            assert (response.status, response.headers["retry-after"]) == (503, "3"), content
            assert "too many requests to attack wait" in content["error"]
        served.client().infer("digits", [tensor("images", pixels(1).numpy())])
    assert SETTINGS.attacks.parallel == 1
    assert attack(served, message(pixels(1).numpy(), epsilon=0.1, attack="fgsm")).status_code == 200
