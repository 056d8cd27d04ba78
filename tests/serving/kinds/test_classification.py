"""Classifiers as endpoints, in this process: what they answer, and what they refuse."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from jobs.common.data.batches import permutation
from jobs.common.data.images import DataParams
from jobs.common.models.cards import classifier_card
from jobs.common.models.classifier_params import ClassifierParams
from jobs.common.multiplications import CountMacs
from service.errors import InputError, ModelError
from service.models import ModelCard, TensorSpec
from serving.http.settings import Batching, Limits, ServeSettings
from serving.kinds import check_offered, kind_of
from serving.kinds.classification import Classification
from serving.kinds.work import Abandoned
from tests.serving.models import DIGITS, classifier_draft, classifier_network, pixels


def card_of(**changes: Any) -> ModelCard:
    return ModelCard(
        **classifier_draft(**changes).model_dump(),
        name="m", version=1, created="", parameters=1, bytes=1, sha256="", run=None,
    )  # fmt: skip


def endpoint(net: nn.Module | None = None, limits: Limits | None = None, **changes: Any) -> Classification:
    net = net or classifier_network(changes.get("channels", 1))
    settings = ServeSettings(limits=limits or Limits(), batching=Batching(max_rows=8))
    return Classification(card_of(**changes), net, settings, torch.device("cpu"))


def ask(model: Classification, images: Tensor, **parameters: Any) -> dict[str, np.ndarray]:
    (answer,) = model.compute([model.prepare({"images": images.numpy()}, parameters)], lambda: False)
    return dict(answer)


class Constant(nn.Module):
    """The same answer whatever the image."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> Any:
        return self.answer


def test_the_answer_is_that_of_the_network() -> None:
    net, images = classifier_network(), pixels(5)
    answer = ask(endpoint(net), images)
    with torch.no_grad():
        logits = net(images)
    np.testing.assert_allclose(answer["logits"], logits, atol=1e-6)
    np.testing.assert_allclose(answer["probabilities"].sum(1), 1, rtol=1e-6)
    np.testing.assert_array_equal(answer["prediction"], logits.argmax(1))


def test_the_answer_has_the_types_and_shapes_that_the_metadata_promises() -> None:
    model = endpoint()
    answer = ask(model, pixels(3))
    assert set(answer) == {spec.name for spec in model.outputs}
    for spec in model.outputs:
        assert {"INT64": np.int64, "FP32": np.float32}[spec.datatype] == answer[spec.name].dtype
        assert answer[spec.name].shape == (3, *spec.shape[1:])


def test_an_upload_is_prepared_as_the_images_of_the_evaluation_were(tmp_path: Path) -> None:
    """The card that a study writes says how: of all sizes and shapes, and of files that have the size already."""
    stream = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, size in (("cat", (45, 77)), ("cat", (32, 32)), ("dog", (300, 200)), ("dog", (20, 21))):
            (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(stream.integers(0, 256, (*size, 3), np.uint8))
            image.save(tmp_path / split / name / f"{size[0]}.{'png' if size[0] > 40 else 'jpg'}")
    data = DataParams(name="image_folder", root=str(tmp_path), image_size=32, test_limit=4)
    images, params = data.load_splits()[1], ClassifierParams(name="colour_net", options={"width": 4})
    draft = classifier_card("free_training", params, images, metrics={}, description="", settings={})
    card = ModelCard(
        **draft.model_dump(),
        name="m", version=1, created="", parameters=1, bytes=1, sha256="", run=None,
    )  # fmt: skip
    model = Classification(card, params.build(images, 0).eval(), ServeSettings(), torch.device("cpu"))
    assert model.upload is not None
    files = sorted((tmp_path / "val").glob("*/*"))
    order = permutation(4, data.limit_seed).tolist()
    for place, row in enumerate(order):
        prepared = model.upload.read(files[row].read_bytes())
        np.testing.assert_array_equal(prepared, images.images(torch.tensor([place])).numpy())


def test_requests_computed_together_are_answered_as_alone() -> None:
    model = endpoint()
    parts = [pixels(2, seed=1), pixels(1, seed=2), pixels(3, seed=3)]
    works = [model.prepare({"images": part.numpy()}, {}) for part in parts]
    assert len({work.key for work in works}) == 1
    for part, together in zip(parts, model.compute(works, lambda: False), strict=True):
        np.testing.assert_allclose(together["logits"], ask(model, part)["logits"], atol=1e-5)


def test_long_answers_are_known_to_be_long() -> None:
    """They are written in a thread, and what they take is counted."""
    assert endpoint().prepare({"images": pixels(3).numpy()}, {}).values == 3 * (10 + 10 + 1)


def test_only_images_of_one_size_share_a_key() -> None:
    model = endpoint(side=-1)
    works = [model.prepare({"images": pixels(1, side=side).numpy()}, {}) for side in (8, 9)]
    assert works[0].key != works[1].key


def test_nobody_waits_so_nothing_is_computed() -> None:
    model = endpoint()
    with pytest.raises(Abandoned):
        model.compute([model.prepare({"images": pixels(1).numpy()}, {})], lambda: True)


def test_work_is_counted_in_pixels_and_images() -> None:
    net, images = classifier_network(), pixels(3, side=24)
    model = endpoint(net, side=-1)
    with torch.no_grad(), CountMacs() as counter:
        net(images)
    assert model.gmacs(images.shape) == pytest.approx(counter.total / 1e9, rel=0.01)
    allowed = endpoint(net, Limits(gmacs=model.gmacs(images.shape) * 0.9), side=-1)
    with pytest.raises(InputError, match=r"limits\.gmacs"):
        ask(allowed, images)


@pytest.mark.parametrize(
    ("images", "parameters", "sentence"),
    [
        (pixels(9), {}, "at most 8 rows (batching.max_rows); it has 9"),
        (pixels(1) * 255, {}, "divide by 255"),
        (pixels(1) * 2 - 1, {}, "the model normalises them itself"),
        (pixels(1) * 1e6, {}, "pixels are not scaled"),
        (pixels(1), {"top": 3}, "unknown parameter 'top'"),
    ],
)
def test_what_makes_no_sense_is_refused(images: Tensor, parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        ask(endpoint(), images, **parameters)
    assert sentence in str(raised.value)


def test_an_image_too_small_for_the_network_is_the_clients_mistake() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 10)).eval()
    model = endpoint(net, side=-1)
    with pytest.raises(InputError, match=r"does not run on \[1, 1, 3, 3\]"):
        ask(model, pixels(1, side=3))


def test_logits_that_are_not_finite_are_the_models_mistake() -> None:
    """Neighbours in a batch are tried alone, where each is told for itself."""
    model = endpoint(Constant(torch.full((1, 10), torch.nan)))
    work = model.prepare({"images": pixels(1).numpy()}, {})
    with pytest.raises(ModelError, match="NaN or infinite logits"):
        model.compute([work], lambda: False)
    with pytest.raises(FloatingPointError):
        model.compute([work, work], lambda: False)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"settings": {}}, "settings.classes"),
        ({"settings": {"classes": ["one"]}}, "settings.classes"),
        ({"settings": {"classes": list(DIGITS[:9])}}, "its card names 9 classes"),
        ({"settings": {"classes": list(DIGITS), "resize": 0}}, "settings.resize"),
        ({"inputs": ()}, "one input 'images'"),
        ({"inputs": (TensorSpec(name="images", datatype="FP32", shape=(-1, 1, 8)),)}, "one input 'images'"),
        ({"inputs": (TensorSpec(name="input", datatype="FP32", shape=(-1, 1, 8, 8)),)}, "one input 'images'"),
        ({"inputs": (TensorSpec(name="images", datatype="FP32", shape=(-1, 1, 9**9, 8)),)}, "one input 'images'"),
        ({"inputs": (TensorSpec(name="images", datatype="FP32", shape=(-1, 3, 8, 8)),)}, "does not run on"),
    ],
)
def test_a_card_that_does_not_fit_its_network_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError) as raised:
        Classification(card_of(**changes), classifier_network(), ServeSettings(), torch.device("cpu"))
    assert sentence in str(raised.value)


def test_a_network_that_gives_no_logits_is_refused() -> None:
    for answer in (torch.zeros(1, 10, 1), torch.zeros(2, 10), [1.0], None):
        with pytest.raises(ModelError, match="its card names 10 classes"):
            endpoint(Constant(answer))


def test_the_task_decides_what_is_offered() -> None:
    card = card_of()
    assert kind_of(card) is Classification
    check_offered(card, "attack")
    with pytest.raises(ModelError, match="has no 'infer_stream'"):
        check_offered(card, "infer_stream")
    with pytest.raises(ModelError, match="the task 'ranking', which has no endpoint"):
        kind_of(card_of(task="ranking"))


def test_logits_in_half_precision_are_refused() -> None:
    """An attack on them would follow their rounding."""
    with pytest.raises(ModelError, match="must answer with logits in float32; they are in float16"):
        endpoint(Constant(torch.zeros(1, 10).half()))
