"""What a training costs, before it is done: forward and backward passes, multiply-adds, seconds on a core here."""

from jobs.common.estimation import TRAINING, multiply_adds_of, size_of, training_seconds_of
from jobs.free_training.params import Params
from service.errors import InputError
from service.run import Estimate


def estimate(params: Params) -> Estimate:
    """Training alone: validation and the attacks on the trained network are not counted."""
    training = params.training
    images = training.updates * training.batch
    passes = params.method.passes
    details: dict[str, float | str] = {"images to train on": images, "passes of an image": passes}
    try:
        size = size_of(params.data)
    except InputError as error:
        return Estimate(details={**details, "data": f"unknown: {error.message}"})
    network = params.network, size.classes, size.shape
    return Estimate(
        core_seconds=images * passes * training_seconds_of(*network),
        multiply_adds=float(TRAINING * multiply_adds_of(*network) * images * passes),
        details=details,
    )
