"""What the tests of all studies share: a handle on a folder of its own, and a package of the user's own."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.run import Run
from service.store import open_store


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Any]:
    """A handle with a model store; the same `name` is the same folder, as for a trial that is started again."""

    def make(name: str = "trial", seed: int = 0, kind: type[Run] = Run, **options: Any) -> Any:
        root = open_store(str(tmp_path))
        return kind(root / name, seed, **{"store": root / "store", **options})

    return make


@pytest.fixture
def own_package(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mypackage.module, which can be imported: its text is OWN of the module of the test."""
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "module.py").write_text(request.module.OWN)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("mypackage", "mypackage.module"):
        monkeypatch.delitem(sys.modules, name, raising=False)
