"""Counts how often a computation waits for a GPU, without a GPU.

A CPU that reads a number, copies to itself, or asks for a shape that depends on values, waits until a GPU has computed
all that it was given. Here the tensors that would lie on the GPU are followed: those that are named, and all that is
computed from them. What is read of them is counted, with the line of the project that reads it.

Not followed is what is made on the CPU and sent there on the way, or drawn there: for that some loops go through the
meta device, which can read nothing (tests/jobs/test_devices.py).
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jobs.common.attacks import square_windows
from jobs.common.models import fused_convolution
from jobs.common.training.engine import Batch, Engine

ROOT = Path(__file__).parents[1] / "jobs"
aten = torch.ops.aten
WAITING = {  # their result, or its shape, depends on values
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten._unique2.default,
    aten.unique_consecutive.default,
    aten.unique_dim.default,
}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
COPYING = {Tensor.cpu, Tensor.numpy, Tensor.tolist, Tensor.__array__}


class Synchronisations:
    """Waits for the device, by the line of `jobs/` that caused them."""

    def __init__(self) -> None:
        self.lines: Counter[str] = Counter()

    @property
    def count(self) -> int:
        return self.lines.total()

    def __str__(self) -> str:
        return "\n".join(f"{count:5d} times {line}" for line, count in self.lines.most_common())

    def add(self) -> None:
        frame = sys._getframe(2)
        while frame is not None and not Path(frame.f_code.co_filename).is_relative_to(ROOT):
            frame = frame.f_back  # type: ignore[assignment]
        place = "a test" if frame is None else f"{Path(frame.f_code.co_filename).relative_to(ROOT)}:{frame.f_lineno}"
        self.lines[place] += 1


class _Dispatch(TorchDispatchMode):
    """Follows the storages that lie on the device."""

    def __init__(self, found: Synchronisations) -> None:
        super().__init__()
        self.found = found
        self.storages: dict[int, Any] = {}  # kept: the place of one that is freed would be given to another

    def follow(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self.storages[storage._cdata] = storage

    def follows(self, tensor: object) -> bool:
        return isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata in self.storages

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        leaves = [leaf for leaf in tree_leaves((arguments, named)) if isinstance(leaf, Tensor)]
        on_device = any(self.follows(leaf) for leaf in leaves)
        if on_device and self._waits(function, arguments):
            self.found.add()
        result = function(*arguments, **(named or {}))
        if on_device:
            self.follow(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result

    def _waits(self, function: Any, arguments: Any) -> bool:
        if function in INDEXING:
            masks = [each for each in arguments[1] if isinstance(each, Tensor) and each.dtype is torch.bool]
            return any(self.follows(mask) for mask in masks)
        return function in WAITING


class _Calls(TorchFunctionMode):
    """Sees what only copies from the device: nothing is computed then."""

    def __init__(self, dispatch: _Dispatch) -> None:
        super().__init__()
        self.dispatch = dispatch

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        copies = function in COPYING or (function is Tensor.to and "cpu" in (*arguments[1:], *(named or {}).values()))
        if not copies or not self.dispatch.follows(arguments[0]):
            return function(*arguments, **(named or {}))
        self.dispatch.found.add()
        result = arguments[0].detach().clone()
        self.dispatch.storages.pop(result.untyped_storage()._cdata, None)
        return function(result, *arguments[1:], **(named or {}))


@contextmanager
def followed(tensors: Iterable[Tensor]) -> Iterator[Synchronisations]:
    """Inside, waits are counted. tensors: what would lie on the device, such as weights; batches do by themselves."""
    found = Synchronisations()
    dispatch = _Dispatch(found)
    dispatch.follow(tensors)
    send = Engine.send

    def sent(engine: Engine, batch: Batch) -> Batch:
        batch = tuple(each.clone() for each in send(engine, batch))
        dispatch.follow(batch)
        return batch

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Engine, "send", sent))
        # a GPU has neither of the two
        stack.enter_context(mock.patch.object(fused_convolution, "can_fuse", lambda: False))
        stack.enter_context(mock.patch.object(square_windows, "windows", lambda model, images, side: None))
        stack.enter_context(dispatch)
        stack.enter_context(_Calls(dispatch))
        yield found
