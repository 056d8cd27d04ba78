"""What a trial costs, before it is done: trained clips, gradient steps of sounds, seconds on a core here."""

import torch

from jobs.common.audio.networks.base import OUTPUT, SoundNetwork, channels_of
from jobs.common.estimation import TRAINING, multiply_adds, training_seconds
from jobs.sonification.inversion import layers_of as inverted_layers
from jobs.sonification.network_params import TrainedNetwork
from jobs.sonification.optimisation.objectives import ClassObjective, LayerObjective
from jobs.sonification.params import Params, SonificationParams
from jobs.sonification.sonification import layers_of
from service.errors import InputError
from service.run import Estimate


def estimate(params: Params) -> Estimate:
    """Training and gradient steps. Of a network of the store, which is not opened, nothing is known."""
    details: dict[str, float | str] = {}
    try:
        train, test = params.data.load_splits()
    except InputError as error:
        return Estimate(details={"data": f"unknown: {error.message}"})
    details |= {"clips to train": len(train), "clips to test": len(test)}
    if not isinstance(params.network, TrainedNetwork):
        return Estimate(details={**details, "network": "it is there: its layers and its time are not known"})
    network = params.network.recogniser.build(train, 0).eval()
    channels = channels_of(network, train.samples)
    sounds = {name: _sounds(section, network, channels) for name, section in params.sonifications.items()}
    details |= {f"sounds of {name}": count for name, count in sounds.items()}

    passes = float(params.network.training.epochs * len(train)) + (len(train) + len(test)) / TRAINING
    cells = 1
    for name, section in params.sonifications.items():
        length = section.seconds * train.rate if section.clip is None else train.samples
        passes += sounds[name] * section.ascent.steps * length / train.samples
        cells += -(-sounds[name] // (section.batch * section.ascent.copies))
    if params.inversion is not None:
        layers = inverted_layers(params.inversion, network)
        inverted = len(layers) * len(params.inversion.start) * params.inversion.clips
        details["inversions"] = inverted
        passes += inverted * params.inversion.steps
    clip = torch.rand(1, train.samples)
    seconds = training_seconds(network, clip, 32)
    return Estimate(
        core_seconds=passes * seconds,
        multiply_adds=passes * TRAINING * multiply_adds(network, clip),
        pieces=cells,
        details=details,
    )


def _sounds(section: SonificationParams, network: SoundNetwork, channels: dict[str, int]) -> int:
    """How many are optimised, if no channel is dead."""
    count = 0
    for layer in layers_of(section, network):
        if isinstance(section.objective, LayerObjective):
            count += 1
        elif isinstance(section.objective, ClassObjective):
            count += len(section.classes) or channels[OUTPUT]
        elif section.by_class:
            count += len(section.classes) or len(network.classes)
        else:
            count += len(section.channels) or min(section.count or channels[layer], channels[layer])
    return count * section.ascent.copies
