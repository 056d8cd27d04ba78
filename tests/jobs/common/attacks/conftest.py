"""What the tests of attacks share: a linear model on digits whose robustness is known exactly, and a library."""

import importlib
import warnings
from types import ModuleType

import pytest

from tests.jobs.common.attacks.linear import LinearDigits


@pytest.fixture(scope="session")
def digits() -> LinearDigits:
    return LinearDigits()


@pytest.fixture(scope="session")
def foolbox() -> ModuleType:
    """The library, which imports modules of scipy under their old names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module("foolbox")
