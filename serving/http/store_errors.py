"""What becomes of a StoreError in a replica: the log says where the store is, once in a while, and clients never do."""

import logging
import time

from service.errors import StoreError

logger = logging.getLogger("ray.serve")

SILENT_SECONDS = 10.0  # after the log was told that the store is out of reach

_silent_until = 0.0


def unreadable(error: StoreError, field: str = "") -> StoreError:
    """The error for a client, of one that says where the store is. field: of the request, that the store was read for.

    The log is told the cause, unless it has been a few seconds ago: every request would write a line.
    """
    global _silent_until
    if (now := time.monotonic()) >= _silent_until:
        _silent_until = now + SILENT_SECONDS
        logger.warning("%s", error)
    sentence = "the store cannot be read; the log of the replica says more"
    return StoreError(f"{field}: {sentence}" if field else sentence)
