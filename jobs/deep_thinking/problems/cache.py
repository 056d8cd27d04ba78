"""Instances that took long to make are kept on this node, under a name that is the content of what makes them."""

import contextlib
import hashlib
import inspect
import json
import os
import pickle
import tempfile
import time
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from jobs.deep_thinking.problems.base import Problem

WORTH_SECONDS = 0.2  # what is made faster than this is not kept


def cached_sample(problem: Problem, size: int, count: int, seed: int, folder: Path) -> tuple[Tensor, Tensor]:
    """`problem.sample(size, count, seed)`, from the cache if it is there.

    The name of the file is a hash of the arguments, the problem's options and its source code, so another version of
    the code never finds old instances. A damaged file is made again. Anybody may empty the folder at any time.
    """
    name = _name(problem, size, count, seed)
    if name is None:
        return problem.sample(size, count, seed)
    file = folder / name
    if (instances := _read(file)) is not None:
        return instances
    began = time.perf_counter()
    inputs, targets = problem.sample(size, count, seed)
    if time.perf_counter() - began >= WORTH_SECONDS:
        _write(file, inputs, targets)
    return inputs, targets


def _name(problem: Problem, size: int, count: int, seed: int) -> str | None:
    """None for a problem whose source is not found, or whose options cannot be pickled: they could change unnoticed."""
    try:
        folder, options = Path(inspect.getfile(type(problem))).parent, pickle.dumps(vars(problem))
    except (TypeError, OSError, AttributeError, pickle.PicklingError):
        return None
    digest = hashlib.sha256()
    for source in sorted(folder.glob("*.py")):
        digest.update(source.read_bytes())
    arguments = [type(problem).__qualname__, hashlib.sha256(options).hexdigest(), size, count, seed]
    digest.update(json.dumps(arguments).encode())
    return f"{problem.name}-{size}-{digest.hexdigest()[:32]}.safetensors"


def _read(file: Path) -> tuple[Tensor, Tensor] | None:
    try:
        data = file.read_bytes()
        # the digest is of all that follows it, so a file that was cut or overwritten is noticed
        digest, body = data[:32], data[32:]
        if hashlib.sha256(body).digest() != digest:
            return None
        kept = safetensors.torch.load(body)
        return kept["inputs"], kept["targets"]
    except (OSError, safetensors.SafetensorError, KeyError):
        return None


def _write(file: Path, inputs: Tensor, targets: Tensor) -> None:
    """Written aside and renamed. A full or read-only disk costs the cache, not the run."""
    body = safetensors.torch.save({"inputs": inputs.contiguous(), "targets": targets.contiguous()})
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as aside:
        try:
            aside.write(hashlib.sha256(body).digest() + body)
            aside.close()
            os.replace(aside.name, file)
        except OSError:
            os.unlink(aside.name)
            raise
