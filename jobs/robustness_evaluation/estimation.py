"""What an evaluation costs, before it is done: images, cells and searches.

A network of the store is not opened, and how many passes an attack takes depends on how robust the network is: neither
multiply-adds nor time can be told before.
"""

from jobs.common.estimation import size_of
from jobs.common.robustness.slices import spans
from jobs.robustness_evaluation.params import Params
from service.errors import InputError
from service.run import Estimate


def estimate(params: Params) -> Estimate:
    """Pieces: slices of the images, each under each attack at each epsilon."""
    searches = len(params.searches)
    images = params.first
    if images is None:
        try:
            size = size_of(params.data)
        except InputError as error:
            return Estimate(details={"searches": searches, "images": f"unknown: {error.message}"})
        images = size.train if params.split == "train" else size.test
    cells = searches * len(spans(images, params.slice))
    return Estimate(pieces=cells, details={"searches": searches, "images": images, "cells": cells})
