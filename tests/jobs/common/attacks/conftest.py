"""What the tests of attacks share: one thread, and a linear model on digits whose robustness is known exactly."""

import importlib
import warnings
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

from tests.jobs.common.attacks.linear import LinearDigits


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As trials run: with several threads, tiny networks spend their time waiting for each other's end."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits() -> LinearDigits:
    return LinearDigits()


@pytest.fixture(scope="session")
def foolbox() -> ModuleType:
    """The library, which imports modules of scipy under their old names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module("foolbox")
