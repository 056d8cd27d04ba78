"""Small models with random weights, published into a store."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from jobs.common.models.classifiers import classifier
from jobs.deep_thinking.networks import ARCHITECTURES
from jobs.stacked_unets.job import _card
from jobs.stacked_unets.network_params import NetworkParams
from jobs.stacked_unets.networks import segmenter
from jobs.stacked_unets.params import Params
from service.models import CardDraft, ModelCard, TensorSpec, publish
from service.store import Folder
from tests.jobs.sonification import tones
from tests.jobs.stacked_unets.tiny import halves

FIELDS = {  # architecture -> channels, dimensions, problem, its options
    "dt_net_1d": (1, 1, "prefix_sums", {}),
    "feed_forward_1d": (1, 1, "prefix_sums", {}),
    "dt_net_2d": (3, 2, "mazes", {"scale": 1}),
}


def draft(architecture: str = "dt_net_1d", width: int = 8, trained: int = 5, **changes: Any) -> CardDraft:
    """The card of a small network, as a job would write it."""
    channels, dimensions, problem, options = FIELDS[architecture]
    arguments = {"channels": channels, "width": width, **changes.pop("arguments", {})}
    fields: dict[str, Any] = {
        "architecture": f"jobs.deep_thinking.networks:{architecture}",
        "arguments": arguments,
        "study": "deep_thinking",
        "task": "thinking",
        "inputs": (TensorSpec(name="input", datatype="FP32", shape=(-1, channels, *[-1] * dimensions)),),
        "outputs": (),
        "settings": {"problem": {"name": problem, "options": options}, "trained_iterations": trained},
        "metrics": {"val_accuracy": 0.5},
        "description": "random weights",
    }
    return CardDraft(**{**fields, **changes})


def network(architecture: str = "dt_net_1d", width: int = 8, seed: int = 0, **arguments: Any) -> nn.Module:
    """The network of such a card."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        channels = FIELDS[architecture][0]
        return ARCHITECTURES[architecture](channels=channels, width=width, **arguments).eval()


def put(
    store: Folder, name: str, architecture: str = "dt_net_1d", width: int = 8, seed: int = 0, **changes: Any
) -> ModelCard:
    """Publish the next version of a model."""
    net = network(architecture, width, seed, **changes.get("arguments", {}))
    return publish(store, name, net.state_dict(), draft(architecture, width, **changes))


def bits(count: int, length: int, seed: int = 0) -> Tensor:
    """Inputs of prefix sums: (count, 1, length), -0.5 or 0.5."""
    return torch.randint(0, 2, (count, 1, length), generator=torch.Generator().manual_seed(seed)) - 0.5


DIGITS = tuple(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])


def classifier_draft(channels: int = 1, side: int = 8, classes: tuple[str, ...] = DIGITS, **changes: Any) -> CardDraft:
    """The card of a small image classifier. side: -1 takes images of any size."""
    fields: dict[str, Any] = {
        "architecture": "jobs.common.models.classifiers:digits_net",
        "arguments": {"classes": len(classes), "channels": channels},
        "study": "free_training",
        "task": "classification",
        "inputs": (TensorSpec(name="images", datatype="FP32", shape=(-1, channels, side, side)),),
        "outputs": (TensorSpec(name="logits", datatype="FP32", shape=(-1, len(classes))),),
        "settings": {"classes": list(classes), "norm": "Linf", "epsilon": 0.1},
        "metrics": {"clean_accuracy": 0.5},
        "description": "random weights",
    }
    return CardDraft(**{**fields, **changes})


def classifier_network(channels: int = 1, classes: int = len(DIGITS), seed: int = 0) -> nn.Module:
    """The network of such a card. Its classes are about equally common."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = classifier("digits_net", classes=classes, channels=channels).eval()
    last = network.get_submodule("network.11")
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.bias -= network(pixels(100, channels)).mean(0)
        last.weight *= 30
        last.bias *= 30
    return network


def put_classifier(store: Folder, name: str, channels: int = 1, **changes: Any) -> ModelCard:
    """Publish the next version of a classifier."""
    return publish(store, name, classifier_network(channels).state_dict(), classifier_draft(channels, **changes))


def pixels(count: int, channels: int = 1, side: int = 8, seed: int = 0) -> Tensor:
    """Images (count, channels, side, side) of noise in [0, 1]."""
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


SMALL = {"width": 8, "blocks": 1}


def segmenter_draft(**changes: Any) -> CardDraft:
    """The card of a small segmentation network, as its job writes it: three classes, dark, bright and missing."""
    params = Params(network=NetworkParams(name="plain", options=SMALL))
    return _card(params, halves("test"), {"mean_iou": 0.5}).model_copy(update=changes)


def segmenter_network(seed: int = 0) -> nn.Module:
    """The network of such a card. Its classes are about equally common, and change within an image."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = segmenter("plain", classes=3, **SMALL).eval()
    head = network.get_submodule("network.head")
    assert isinstance(head, nn.Conv2d) and head.bias is not None
    with torch.no_grad():
        logits = network(pixels(4, 3, 64))
        scale = 3 / logits.std((0, 2, 3))
        head.weight *= scale[:, None, None, None]
        head.bias.copy_(scale * (head.bias - logits.mean((0, 2, 3))))
    return network


def put_segmenter(store: Folder, name: str, **changes: Any) -> ModelCard:
    """Publish the next version of a segmentation network."""
    return publish(store, name, segmenter_network().state_dict(), segmenter_draft(**changes))


SAMPLES = 2000


@cache
def layers_of_recogniser() -> dict[str, Any]:
    """What its layers answer to noise, as a card says it; one channel is said to be dead."""
    network = tones.network()
    with torch.no_grad():
        answers = network.activations(0.1 * torch.randn(16, SAMPLES, generator=torch.manual_seed(0)), network.layers)
    return {
        name: {
            "mean": each.mean((0, 2)).tolist(),
            "spread": each.std((0, 2)).tolist(),
            "dead": [2] if name == "conv1" else [],
        }
        for name, each in answers.items()
    }


def recogniser_settings() -> dict[str, Any]:
    layers = layers_of_recogniser()
    return {
        "classes": list(tones.CLASSES),
        "rate": tones.RATE,
        "samples": SAMPLES,
        "layers": layers,
        "mean_mel": layers["mel"]["mean"],
    }


def recogniser_draft(**changes: Any) -> CardDraft:
    """The card of a small recogniser of sounds, as its job writes it."""
    fields: dict[str, Any] = {
        "architecture": "jobs.common.audio.networks:recogniser",
        "arguments": {"classes": list(tones.CLASSES), "rate": tones.RATE, **tones.SMALL},
        "study": "sonification",
        "task": "sound_classification",
        "inputs": (TensorSpec(name="sounds", datatype="FP32", shape=(-1, -1)),),
        "outputs": (TensorSpec(name="logits", datatype="FP32", shape=(-1, 3)),),
        "settings": recogniser_settings(),
        "metrics": {},
        "description": "random weights",
    }
    return CardDraft(**{**fields, **changes})


def put_recogniser(store: Folder, name: str, **changes: Any) -> ModelCard:
    """Publish the next version of a recogniser of sounds."""
    return publish(store, name, tones.network().state_dict(), recogniser_draft(**changes))
