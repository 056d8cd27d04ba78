"""What a trial costs, before anything is computed: training, and a pass over every set."""

from jobs.common.estimation import TRAINING, SetSize, multiply_adds_of, size_of, training_seconds_of
from jobs.common.models.network_params import NetworkFile, TrainedNetwork
from jobs.generalization.params import Params
from service.errors import InputError
from service.run import Estimate


def estimate(params: Params) -> Estimate:
    """Training, with its poison, and the scores. A network of the store is not opened: only images are counted."""
    try:
        size = size_of(params.data)
    except InputError as error:
        return Estimate(details={"images": f"unknown: {error.message}"})
    learnt, scored = images_of(params, size)
    details: dict[str, float | str] = {"images scored": scored}
    if not isinstance(params.network, TrainedNetwork | NetworkFile):
        return Estimate(details=details)
    network = params.network.classifier, size.classes, size.shape
    passes = scored / TRAINING
    if isinstance(params.network, TrainedNetwork):
        training = params.network.training
        passes += training.epochs * (learnt + params.poison.epoch(learnt, training.batch))
        details["weight updates"] = training.epochs * (learnt // training.batch)
        seconds = training_seconds_of(*network, training.batch) * passes
    else:
        seconds = training_seconds_of(*network) * passes
    return Estimate(core_seconds=seconds, multiply_adds=TRAINING * multiply_adds_of(*network) * passes, details=details)


def images_of(params: Params, size: SetSize) -> tuple[int, int]:
    """Images that are learnt from in an epoch, without poison; images of all sets."""
    aside = params.poison.images
    learnt = size.train if params.poison.data is not None else max(size.train - aside, 0)
    return learnt, learnt + aside + size.test
