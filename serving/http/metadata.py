"""What the server says of its models: their list, a model in the words of the protocol, and in those of Triton.

Source: github.com/kserve/open-inference-protocol (inference_rest.md); for the configuration the Triton server's
extension_model_configuration.md and model_config.proto, whose messages are written in JSON.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.models import ModelCard, TensorSpec
from serving.http.settings import Batching

Json = dict[str, Any]


@dataclass(frozen=True)
class Offer:
    """How models with a card are served.

    outputs: of the model. actions: the last parts of the paths at which it answers. attacks: those that it takes, with
    their norms and the JSON schemas of their parameters. sonification: what it can be asked for, if it can; else empty.
    panel: the module of the page by which it is tried.
    """

    outputs: tuple[TensorSpec, ...]
    actions: tuple[str, ...]
    attacks: Mapping[str, Json]
    sonification: Json
    panel: str


def list_models(cards: Iterable[ModelCard], actions: Mapping[str, Sequence[str]], obstacles: Mapping[str, str]) -> Json:
    """All models by name.

    cards: by name and version. actions: by the name of a model, those of its newest version. obstacles: by the name,
    why that cannot be served; empty if it can.
    """
    entries: dict[str, Json] = {}
    for card in cards:
        versions = entries.get(card.name, {"versions": []})["versions"]
        reason = obstacles[card.name]
        entries[card.name] = {
            "name": card.name,
            "versions": [*versions, str(card.version)],
            "task": card.task,
            "description": card.description,
            "actions": [] if reason else list(actions[card.name]),
            "reason": reason,
        }
    return {"models": list(entries.values())}


def describe_model(card: ModelCard, versions: Iterable[int], offer: Offer) -> Json:
    """The metadata of a model."""
    return {
        "name": card.name,
        "versions": [str(version) for version in versions],
        "platform": _platform(card),
        "inputs": [_described(spec) for spec in card.inputs],
        "outputs": [_described(spec) for spec in offer.outputs],
        "parameters": {
            "version": str(card.version),
            "task": card.task,
            "description": card.description,
            "study": card.study,
            "architecture": card.architecture,
            "created": card.created,
            "weights": card.parameters,
            "metrics": card.metrics,
            "settings": card.settings,
            "actions": list(offer.actions),
            "attacks": dict(offer.attacks),
            "sonification": offer.sonification,
            "panel": offer.panel,
        },
    }


def configuration(card: ModelCard, offer: Offer, batching: Batching) -> Json:
    """The configuration of a model as Triton's clients read it."""
    return {
        "name": card.name,
        "platform": _platform(card),
        "backend": "assay",
        "version_policy": {"all": {}},
        "max_batch_size": batching.max_rows,
        "input": [{**_configured(spec), "format": "FORMAT_NONE", "optional": False} for spec in card.inputs],
        "output": [{**_configured(spec), "label_filename": ""} for spec in offer.outputs],
        "dynamic_batching": {"preferred_batch_size": [], "max_queue_delay_microseconds": 0},
        "instance_group": [],
        "default_model_filename": "model.safetensors",
        "parameters": {},
    }


def _platform(card: ModelCard) -> str:
    return f"assay_{card.task}"


def _described(spec: TensorSpec) -> Json:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _configured(spec: TensorSpec) -> Json:
    """dims: without the batch, which `max_batch_size` stands for; where nothing is left, Triton writes [1]."""
    configured = {"name": spec.name, "data_type": f"TYPE_{spec.datatype}", "dims": list(spec.shape[1:])}
    return configured if configured["dims"] else {**configured, "dims": [1], "reshape": {"shape": []}}
