"""Frames of a film, as images."""

from pathlib import Path

import numpy as np

from service.errors import InputError

MOST_PIXELS = 1 << 24  # of a frame


def frames(file: Path, every: int, most: int) -> list[np.ndarray]:
    """Every so-many-th frame from the first on, up to a number: uint8 (height, width, 3) each, red green blue.

    InputError if the file is no film, its frames are too large, or what decodes films is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise InputError("films need the package av", hint="pip install '.[video]'") from error
    taken: list[np.ndarray] = []
    try:
        with av.open(str(file)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if len(taken) == most:
                    break
                if frame.width * frame.height > MOST_PIXELS:
                    raise InputError(f"frames of {file.name} must have at most {MOST_PIXELS:,} pixels")
                if number % every == 0:
                    taken.append(frame.to_ndarray(format="rgb24"))
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise InputError(f"{file.name} cannot be read as a film: {error}") from error
    return taken
