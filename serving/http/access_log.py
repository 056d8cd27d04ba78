"""One line for each request, whoever answered it: method, path (which names the model), key, trace, status,
milliseconds."""

import logging
import time

logger = logging.getLogger("ray.serve")

LONGEST = 200  # characters of a path
NO_KEY = "-"


def log(method: str, path: str, key: str, trace: str, status: int | str, began: float) -> None:
    """began: by time.perf_counter."""
    path = path.encode("unicode_escape").decode()[:LONGEST]  # no line can be forged
    took = 1000 * (time.perf_counter() - began)
    logger.info("%s %s key %s trace %s: %s in %.1f ms", method, path, key, trace, status, took)
