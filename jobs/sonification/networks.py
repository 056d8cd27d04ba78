"""The network of a run: a recogniser trained on the clips, or one that is there."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from jobs.common.audio.networks.base import SoundNetwork
from jobs.common.data.sounds.base import SoundSet
from jobs.common.data.training_data import EpochSounds
from jobs.common.passes import passes
from jobs.common.training import loop
from jobs.common.training.engine import Engine
from jobs.common.training.supervised import ClassifierStep
from jobs.sonification.network_params import PretrainedNetwork, StoredNetwork, TrainedNetwork, labels_of, sound_network
from jobs.sonification.params import Params
from jobs.sonification.responses import Responses
from service.errors import FieldError
from service.models import CardDraft, TensorSpec
from service.run import Run

BATCH = 256  # clips at once on a CPU


def untrained(params: Params, train: SoundSet, run: Run) -> SoundNetwork:
    """The network that is there, or the one that is to be trained with weights that do not matter.

    FieldError if it expects sounds of another rate than the clips have; InputError if they are too short for it.
    """
    if isinstance(params.network, StoredNetwork):
        model = params.network.load(run)
        network = sound_network(model.network, model.name, params.network.rate)
    elif isinstance(params.network, PretrainedNetwork):
        network = params.network.load()
    else:
        network = sound_network(params.network.recogniser.build(train, 0), "recogniser")
    if network.rate != train.rate:
        raise FieldError("data.rate", f"be {network.rate:,}, what the network expects", train.rate)
    network.check_length(train.samples)
    return network


def ready(params: Params, network: SoundNetwork, run: Run) -> SoundNetwork:
    """The network to listen to, in evaluation mode on the CPU, without gradients: trained, if that is asked."""
    if not isinstance(params.network, TrainedNetwork):
        return network
    return sound_network(run.reserved(trained, params), "recogniser")


def save(
    params: Params,
    network: SoundNetwork,
    train: SoundSet,
    accuracy: float | None,
    responses: Mapping[str, Responses],
    mean_mel: Tensor,
    run: Run,
) -> None:
    """Put a network that was trained here into the store. responses: to the clips to train. mean_mel: (bands,)."""
    if isinstance(params.network, TrainedNetwork) and accuracy is not None:
        run.save_model(params.model_name, network, _card(params.network, train, accuracy, responses, mean_mel))


def trained(run: Run, params: Params) -> SoundNetwork:
    """Train the recogniser. Goes on from its checkpoint. RunFailedError if the loss stops being finite."""
    assert isinstance(params.network, TrainedNetwork)
    clips, section = params.data.load("train"), params.network.training
    network = params.network.recogniser.build(clips, run.seed_for("weights")).to(run.device)
    section.engine.check(run.device)
    engine = Engine(network, section.engine)
    data = EpochSounds(clips, section.batch, section.augmentation, run.seed_for)
    plan = loop.Plan(
        updates=section.epochs * data.epoch,
        rates=section.optimizer,
        report_every=section.report_every * data.epoch,
        seed=lambda update: None,
        updates_per_tick=data.epoch,
        updates_per_step=data.epoch,
    )
    run.expect(section.epochs)
    optimizer = section.optimizer.build([(1.0, list(network.parameters()))])
    loop.train(ClassifierStep(engine), optimizer, data, plan, run)
    return network.cpu().eval()


def accuracy_of(run: Run, network: SoundNetwork, clips: SoundSet) -> float | None:
    """The share of clips that the network recognises; None if it knows other classes than these."""
    if (labels := labels_of(network, clips)) is None:
        return None
    network, places = network.to(run.device), torch.arange(len(clips))

    @torch.no_grad()
    def right(rows: slice) -> int:
        predictions = network(clips.sounds(places[rows]).to(run.device)).argmax(1).cpu()
        return int((predictions == labels[rows]).sum())

    return sum(passes(right, len(clips), network, clips.samples, purpose="predictions", on_cpu=BATCH)) / len(clips)


def _card(
    section: TrainedNetwork,
    clips: SoundSet,
    accuracy: float,
    responses: Mapping[str, Responses],
    mean_mel: Tensor,
) -> CardDraft:
    """What is known of the recogniser."""
    return CardDraft(
        architecture="jobs.common.audio.networks:recogniser",
        arguments=section.recogniser.arguments(clips),
        study="sonification",
        task="sound_classification",
        inputs=(TensorSpec(name="sounds", datatype="FP32", shape=(-1, -1)),),
        outputs=(TensorSpec(name="logits", datatype="FP32", shape=(-1, len(clips.classes))),),
        settings={
            "classes": list(clips.classes),
            "rate": clips.rate,
            "samples": clips.samples,
            "layers": {layer: _units(known) for layer, known in responses.items()},
            "mean_mel": _rounded(mean_mel),
        },
        metrics={"test_accuracy": accuracy},
        description=f"{clips.name} by a recogniser of {len(section.recogniser.channels)} convolutions",
    )


def _units(known: Responses) -> dict[str, Any]:
    """In which an endpoint measures what a sound excites a layer by, and the channels that no clip excites."""
    return {
        "mean": _rounded(known.mean),
        "spread": _rounded(known.spread),
        "dead": known.dead.nonzero().flatten().tolist(),
    }


def _rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]
