"""How jobs of the tests take their time, and stop taking it."""

import os
import time
from pathlib import Path

HURRY = "ASSAY_TEST_HURRY"  # names a file; once it is there, nobody pauses any more


def pause(seconds: float) -> None:
    """Sleep, so that a run can be disturbed in the middle."""
    end = time.monotonic() + seconds
    hurry = os.environ.get(HURRY)
    while (left := end - time.monotonic()) > 0 and not (hurry and Path(hurry).exists()):
        time.sleep(min(left, 0.1))
