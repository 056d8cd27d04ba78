"""Networks that do not take all sizes: in training, prediction and what is saved; the others stay as they are."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.data.masks import DataParams
from jobs.common.data.masks.augmentation import JointAugmentationParams
from jobs.common.models.classifiers.sunet import PLANS
from jobs.stacked_unets.job import run
from jobs.stacked_unets.network_params import NetworkParams
from jobs.stacked_unets.networks import segmenter
from jobs.stacked_unets.padding import Padded, any_size, multiple_of
from jobs.stacked_unets.params import EvaluationParams, Params
from jobs.stacked_unets.prediction import PredictionParams, predict
from jobs.stacked_unets.tiles import Tiling
from service import models
from service.execution.checkpoints import decode
from tests.jobs.stacked_unets import tiny


def ladder() -> nn.Module:
    torch.manual_seed(3)
    return tiny.Ladder(3, 3).eval()


def test_sizes_that_a_network_takes_are_given_as_they_are_and_others_continued() -> None:
    net = ladder()
    padded = any_size(net, 3)
    assert isinstance(padded, Padded) and multiple_of(padded) == 8
    for height, width in ((8, 8), (40, 24)):
        images = torch.rand(2, 3, height, width)
        assert torch.equal(padded(images), net(images))
    images = torch.rand(2, 3, 19, 33)
    rows, columns = torch.arange(24).clamp(max=18), torch.arange(40).clamp(max=32)
    expected = net(images[:, :, rows][..., columns])[..., :19, :33]
    assert torch.equal(padded(images), expected)
    assert padded(torch.rand(1, 3, 1, 1)).shape == (1, 3, 1, 1)


@pytest.mark.parametrize("name", [*PLANS, "plain", "lraspp_mobilenet_v3_large"])
def test_the_networks_of_the_catalogue_take_all_sizes(name: str) -> None:
    with torch.device("meta"):
        net = segmenter(name, classes=4)
    assert any_size(net, 4) is net


@pytest.mark.parametrize(("decoder", "multiple"), [("FPN", 32), ("DeepLabV3", 8), ("Unet", 1)])
def test_decoders_of_segmentation_models_are_padded_where_they_need_it(decoder: str, multiple: int) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    with torch.device("meta"):
        net = segmenter("segmentation_models", classes=4, decoder=decoder)
        assert multiple_of(padded := any_size(net, 4)) == multiple
        assert padded(torch.empty(1, 3, 50, 70)).shape == (1, 4, 50, 70)


class OfOneSize(nn.Module):
    """For 64x64 alone, as with an embedding of places."""

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[2:] != (64, 64):
            raise ValueError("only 64x64")
        return images


def test_a_network_of_one_size_or_of_none() -> None:
    assert any_size(OfOneSize(), 3)(torch.rand(1, 3, 30, 64)).shape == (1, 3, 30, 64)
    flat = nn.Linear(3, 3)
    assert any_size(flat, 3) is flat


def test_tiles_and_scales_of_a_padded_network() -> None:
    """The tile at the border of the image is padded there; the others are as without padding."""
    net = any_size(ladder(), 3)
    image = torch.rand(3, 131, 203)
    whole = predict(net, image, PredictionParams())
    tiled = predict(net, image, PredictionParams(tiling=Tiling(side=128, overlap=64)))
    assert tiled.labels.shape == (131, 203)
    torch.testing.assert_close(tiled.confidence, whole.confidence, rtol=0, atol=1e-5)
    assert predict(net, image, PredictionParams(scales=(0.53, 1.31), flip=True)).labels.shape == (131, 203)


def test_images_of_no_multiple_from_training_to_the_saved_model(make_run: Any) -> None:
    params = Params(
        data=DataParams(name="tests.jobs.stacked_unets.tiny:fields"),
        network=NetworkParams(name="tests.jobs.stacked_unets.tiny:Ladder"),
        training=tiny.TRAINING.model_copy(update={"augmentation": JointAugmentationParams()}),
        evaluation=EvaluationParams(shown=1),
    )
    handle = make_run()
    run(params, handle)
    assert {"val_mean_iou", "mean_iou"} <= handle.metrics.keys()
    staged = decode(handle.folder.read("models/fields-ladder.safetensors"))
    models.publish(handle._store, "net", staged["weights"], models.CardDraft(**staged["draft"]))
    network, _ = handle.load_model("net", trusted=("tests",))
    assert isinstance(network, tiny.Ladder), "what is saved is the network of the card, without what pads it"
    image = functional.pad(torch.rand(3, 20, 20), (0, 7, 0, 10))
    assert predict(any_size(network, 3), image, PredictionParams()).labels.shape == (30, 27)
