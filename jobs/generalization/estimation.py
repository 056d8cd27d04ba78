"""What a trial costs, before anything is computed: training or a search, a pass over every set, what is measured."""

import math

from jobs.common.curvature.spectra_params import PRODUCT
from jobs.common.estimation import (
    TRAINING,
    Architecture,
    SetSize,
    layers_with_weights,
    multiply_adds_of,
    size_of,
    training_seconds_of,
)
from jobs.common.models.network_params import PublishedNetwork, StoredNetwork, TrainedNetwork
from jobs.generalization.gradient_free.search_params import SearchedNetwork
from jobs.generalization.margins import HALVINGS
from jobs.generalization.params import Params
from service.errors import InputError
from service.run import Estimate

MANY = 4096  # images in a pass of networks that are trained together: what a layer costs beside its products is small


def estimate(params: Params) -> Estimate:
    """Upper bounds: a search may end early. A network of the store is not opened: only images are counted."""
    try:
        size = size_of(params.data)
    except InputError as error:
        return Estimate(details={"images": f"unknown: {error.message}"})
    trained, together = trained_images(params, size), images_of_minefield(params, size)
    shown = shown_images(params, size)
    details: dict[str, float | str] = {"images trained on": trained + together, "images shown besides": shown}
    if (architecture := architecture_of(params)) is None:
        return Estimate(pieces=pieces_of(params), details=details)
    network = architecture, size.classes, size.shape
    batch = params.network.training.batch if isinstance(params.network, TrainedNetwork) else 16
    passes = trained + shown / TRAINING
    seconds = training_seconds_of(*network, batch) * passes
    if together:
        seconds += training_seconds_of(*network, MANY) * together
    return Estimate(
        core_seconds=seconds,
        multiply_adds=TRAINING * multiply_adds_of(*network) * (passes + together),
        pieces=pieces_of(params),
        details=details,
    )


def architecture_of(params: Params) -> Architecture | None:
    """What can be built without the store; none: the network is there alone."""
    if isinstance(params.network, StoredNetwork):
        return params.network if ":" in params.network.name else None
    return params.network if isinstance(params.network, PublishedNetwork) else params.network.classifier


def trained_images(params: Params, size: SetSize) -> int:
    """Images that are learnt from, counted as often as they are, with poison."""
    if not isinstance(params.network, TrainedNetwork):
        return 0
    training, learnt = params.network.training, learnt_images(params, size)
    return training.epochs * (learnt + params.poison.epoch(learnt, training.batch))


def images_of_minefield(params: Params, size: SetSize) -> int:
    """The same of all networks of a minefield."""
    if params.minefield is None:
        return 0
    images = learnt_images(params, size) + params.poison.images
    return states_of(params) * params.minefield.updates * images


def shown_images(params: Params, size: SetSize) -> int:
    """Images that networks look at without learning from them."""
    learnt = learnt_images(params, size)
    count = learnt + params.poison.images + size.test
    if isinstance(params.network, SearchedNetwork):
        count += params.network.rounds * params.network.networks * learnt
    if params.minefield is not None:
        count *= 1 + 2 * states_of(params)
    if params.boundary is not None:
        count += params.boundary.steps**2
    if params.spectra is not None:
        count += round(PRODUCT * products(params, size) * min(params.spectra.images, learnt))
    if params.wiggle is not None:
        count += params.wiggle.frames * (params.wiggle.steps**2 + learnt + size.test)
    if params.margin is not None:
        count += learnt * params.margin.angles * (params.margin.radii + HALVINGS)
    if params.basins is not None:
        count += min(params.basins.images or learnt, learnt) * params.basins.passes
    return count


def pieces_of(params: Params) -> int:
    """Parts that can be computed at the same time: of a minefield, or rays of a basin."""
    pieces = params.basins.cells if params.basins is not None else 1
    if params.minefield is not None:
        pieces = max(pieces, math.ceil(states_of(params) / params.minefield.together))
    return pieces


def products(params: Params, size: SetSize) -> float:
    """Of the Hessian with a vector. Those of single layers are not counted where the network is not opened."""
    if params.spectra is None:
        return 0.0
    architecture = architecture_of(params)
    layers = 0 if architecture is None else layers_with_weights(architecture, size.classes, size.shape[0])
    return params.spectra.products(layers)


def learnt_images(params: Params, size: SetSize) -> int:
    """Images that an epoch goes through, without poison."""
    return size.train if params.poison.data is not None else max(size.train - params.poison.images, 0)


def states_of(params: Params) -> int:
    """States that are kept along the training."""
    if not isinstance(params.network, TrainedNetwork) or params.network.training.keep_every is None:
        return 0
    return 1 + math.ceil(params.network.training.epochs / params.network.training.keep_every)
