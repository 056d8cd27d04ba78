"""Networks that run in onnxruntime, an optional package."""

import importlib.util
from pathlib import Path
from typing import Any

from service.errors import InputError, first_line


def session(path: Path, judge: str) -> Any:
    """A network on one thread of a CPU. InputError if onnxruntime is not installed or cannot run the file.

    judge: who needs it, for the sentence.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise InputError(f"{judge} needs the package onnxruntime", hint="pip install 'assay[audio]'")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors: warnings are about how the file was made
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own kinds, which have no common base
        raise InputError(f"{judge}: onnxruntime cannot run {path.name}: {first_line(error)}") from error
