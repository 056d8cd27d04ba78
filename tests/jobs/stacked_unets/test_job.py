"""The job from a spec to its report: metrics, figures, models, pre-trained backbones, and what is refused."""

from typing import Any

import pytest
import torch

from jobs.common.data.masks import DataParams
from jobs.common.data.masks.base import Pairs
from jobs.common.metrics.segmentation import IGNORE, confusion
from jobs.common.models.classifiers import classifier
from jobs.common.models.reference import ModelReference, ReferredModel
from jobs.stacked_unets.evaluation import evaluate, gains, unets, without
from jobs.stacked_unets.job import estimate, run, summarize
from jobs.stacked_unets.network_params import NetworkParams, check_fit, load_backbone
from jobs.stacked_unets.params import EvaluationParams, Params
from jobs.stacked_unets.prediction import PredictionParams
from service import models
from service.errors import InputError, SpecError
from service.planning.validation import validate
from service.run import Trial
from tests.jobs.stacked_unets import tiny

PIXELS = torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.zeros(2, 16, 16, dtype=torch.uint8)
PARAMS = Params(
    data=DataParams(name="tests.jobs.stacked_unets.tiny:halves"),
    network=NetworkParams(name="sunet_tiny"),
    training=tiny.TRAINING.model_copy(update={"updates": 2}),
    evaluation=EvaluationParams(
        ways={"single": PredictionParams(), "flipped": PredictionParams(flip=True)}, output_strides=(32, 16), shown=2
    ),
)


def test_from_training_to_the_report(make_run: Any) -> None:
    handle = make_run()
    run(PARAMS, handle)
    kinds = {path.split("/")[-1]: artefact.kind for path, artefact in handle.written.artefacts.items()}
    assert kinds.keys() == {
        "classes.parquet",
        "ways.parquet",
        "segmented.png",
        "unets.parquet",
        "stack.png",
        "halves-sunet-tiny.safetensors",
    }
    metrics = handle.metrics
    assert metrics["mean_iou"] == metrics["mean_iou_single"] == metrics["mean_iou_stride_16"]
    assert {"iou_dark", "iou_bright", "mean_iou_flipped", "mean_iou_stride_32", "val_mean_iou"} <= metrics.keys()
    assert "iou_missing" not in metrics, "a class that the truth has not"
    assert [*handle.written.warnings] == [
        f"no image of halves to {use} has a pixel of missing; pixels of 255 do not count: if that is a class, say so "
        "with data.colours"
        for use in ("train", "test")
    ]

    handle.flush()
    trial = Trial(
        handle.folder,
        id="0",
        label="one",
        variant=None,
        seed=0,
        overrides={},
        params=PARAMS,
        status="finished",
        metrics=metrics,
        best=True,
    )
    whole = make_run("whole")
    summarize([trial], whole)
    assert {path.split("/")[-1] for path in whole.written.artefacts} == {
        "results.parquet",
        "classes_halves.png",
        "training.png",
    }


def test_a_saved_model_is_built_again_from_its_card(make_run: Any) -> None:
    """As an endpoint does: no pickle, the same answers, and the card says how it is shown."""
    from jobs.stacked_unets.job import _card

    handle, net = make_run(), tiny.network().eval()
    card = models.publish(handle._store, "halves", net.state_dict(), _card(PARAMS, tiny.halves("test"), {}))
    again, read = handle.load_model("halves")
    images = torch.rand(1, 3, 33, 20)
    assert torch.equal(again(images), net(images)) and card == read
    assert read.task == "segmentation" and read.inputs[0].shape == (-1, 3, -1, -1)
    assert read.settings == {
        "classes": ["dark", "bright", "missing"],
        "palette": [[0, 0, 0], [255, 255, 0], [255, 0, 255]],
        "ignore": 255,
    }


def test_a_classifier_gives_its_backbone() -> None:
    torch.manual_seed(5)
    source = ReferredModel("net/1", classifier("sunet_tiny", classes=9), None)
    net: Any = tiny.network(1)
    head = net.network.head[0].weight.clone()
    load_backbone(net, source)
    for name, tensor in source.network.state_dict().items():
        if "backbone" in name:
            assert torch.equal(net.state_dict()[name], tensor), name
    assert torch.equal(net.network.head[0].weight, head)
    other = ReferredModel("resnet/1", classifier("colour_net", classes=9), None)
    with pytest.raises(InputError, match="lacks .* backbone weights, as 'network.backbone"):
        load_backbone(net, other)
    plain = ReferredModel("net/2", classifier("sunet_tiny", classes=9, mean=[0.5] * 3, std=[0.5] * 3), None)
    with pytest.raises(InputError, match="normalises images in another way"):
        load_backbone(net, plain)


def test_a_backbone_from_the_store(make_run: Any) -> None:
    from tests.jobs.stacked_unets.test_training import trained

    handle = make_run()
    draft = {"study": "free_training", "task": "classification", "settings": {}, "metrics": {}, "description": ""}
    source = classifier("sunet_tiny", classes=4)
    card = models.CardDraft(
        architecture="jobs.common.models.classifiers:sunet_tiny",
        arguments={"classes": 4},
        inputs=(),
        outputs=(),
        **draft,
    )
    models.publish(handle._store, "pretrained", source.state_dict(), card)
    net = tiny.network()
    NetworkParams(pretrained=ModelReference(name="pretrained")).start(net, handle)
    stem = "network.backbone.stem.weight"
    assert torch.equal(net.state_dict()[stem], source.state_dict()[stem])
    trained(net, handle, tiny.TRAINING.model_copy(update={"updates": 1}))


def test_evaluation_counts_every_image_once() -> None:
    net, images = tiny.network().eval(), tiny.halves("test")
    expected = torch.zeros(3, 3, dtype=torch.int64)
    for index in range(len(images)):
        image, labels = images.pair(index)
        with torch.no_grad():
            expected += confusion(labels, net(image[None].float() / 255).argmax(1)[0], 3)
    assert torch.equal(evaluate(net, images, PredictionParams()), expected)


def test_a_unet_that_is_left_out_adds_nothing_and_is_back_afterwards() -> None:
    net: Any = tiny.network().eval()
    image, labels = tiny.halves("test").pair(0)
    pixels = image.float() / 255
    before = net(pixels[None])
    stack = unets(net)
    assert [each.name for each in stack] == ["1.1", "2.1", "2.2", "3.1", "3.2", "4.1"]
    inner = stack[2].module
    features = torch.rand(1, 96, 8, 8)
    with without(stack[2]):
        assert torch.equal(inner(features), features), "the shortcut is the identity where the width stays"
    assert not torch.equal(inner(features), features)
    assert torch.equal(net(pixels[None]), before)
    found = gains(net, pixels, labels)
    assert len(found) == 6 and all(each.shape == (32, 32) and not each[labels == IGNORE].any() for each in found)
    assert all(float(each.abs().max()) <= 1 for each in found) and float(found[0].abs().max()) > 0


def test_networks_that_do_not_segment_are_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(1, 5, 64, 48\); they are \(1, 5\)"):
        check_fit(classifier("sunet_tiny", classes=5), 5, "x")
    with pytest.raises(InputError, match="does not fit an image of 64x48"):
        check_fit(torch.nn.Linear(3, 3), 5, "x")


def test_specs_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown segmentation network 'sunet65'.*sunet64"):
        Params(network=NetworkParams(name="sunet65"))
    with pytest.raises(ValueError, match="'plain' has no other output strides"):
        Params(network=NetworkParams(name="plain"), evaluation=EvaluationParams(output_strides=(8,)))


def test_estimates_count_multiplications() -> None:
    cost = estimate(Params())
    assert cost.details["parameters"] == 172_896 + 129 * 3
    forward = cost.details["multiply-adds of an image of 64x64"]
    assert cost.multiply_adds == pytest.approx(3 * forward * 500 * 8) and cost.core_seconds > 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"evaluation": {"output_strides": [7]}}, "evaluation.output_strides must be of 32, 16 and 8; it is 7"),
        ({"evaluation": {"output_strides": [16, 8, 16]}}, "evaluation.output_strides must name each once"),
        ({"evaluation": {"ways": {"two scales": {}}}}, "params.evaluation.ways.two scales"),
        ({"evaluation": {"ways": {"stride_8": {}}}}, "evaluation.ways must be names that do not begin with stride_"),
        ({"evaluation": {"ways": {"single": {"scales": [0.0]}}}}, "ways.single.scales.0 must be above 0; it is 0"),
        ({"publish_as": "My Model"}, "params.publish_as must be up to 63 lower-case letters"),
    ],
)
def test_what_would_fail_after_training_is_refused_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        validate(Params, changes, "params")


def test_a_set_of_ones_own_has_a_colour_for_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tiny.halves("train")
    monkeypatch.setattr(tiny, "halves", lambda split, source: Pairs("halves", whole.classes, [(0, 0, 0)], *PIXELS))
    with pytest.raises(InputError, match="the palette of .* must have 3, one for each class; it has 1 colours"):
        DataParams(name="tests.jobs.stacked_unets.tiny:halves").load("train")
    bad = [(0, 0, 0), (256, 0, 0), (1, 1, 1)]
    monkeypatch.setattr(tiny, "halves", lambda split, source: Pairs("halves", whole.classes, bad, *PIXELS))
    with pytest.raises(InputError, match="colours of the palette .* must be three whole numbers from 0 to 255 each"):
        DataParams(name="tests.jobs.stacked_unets.tiny:halves").load("train")


def test_classes_whose_metrics_would_have_one_name_are_refused(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names, colours = ["a b", "a_b", "c"], tiny.halves("train").palette
    monkeypatch.setattr(tiny, "halves", lambda split, source: Pairs("halves", names, colours, *PIXELS))
    with pytest.raises(InputError, match="classes of halves must differ in letters or digits; a b, a_b do not"):
        run(PARAMS, make_run())
