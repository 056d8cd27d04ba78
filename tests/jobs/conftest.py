"""What the tests of all studies share: a handle on a folder of its own, a package of the user's own, networks."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from jobs.common.models.classifiers import classifier
from service.run import Run
from service.store import open_store


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Any]:
    """A handle with a model store; the same `name` is the same folder, as for a trial that is started again."""

    def make(name: str = "trial", seed: int = 0, kind: type[Run] = Run, **options: Any) -> Any:
        root = open_store(str(tmp_path))
        return kind(root / name, seed, **{"store": root / "store", **options})

    return make


@pytest.fixture(scope="session")
def rendered() -> set[tuple[str, str]]:
    """The studies and names of the pictures that runs of this process have kept."""
    return set()


@pytest.fixture(autouse=True)
def rendered_once(
    request: pytest.FixtureRequest, rendered: set[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pictures are made, and of each name in a study the first is rendered: that takes longer than the rest of
    small runs.
    """
    study, keep = request.path.relative_to(Path(__file__).parent).parts[0], Run.figure

    def figure(run: Run, name: str, figure: Figure, title: str = "") -> None:
        keep(run, name, Figure((0.1, 0.1)) if (study, name) in rendered else figure, title)
        rendered.add((study, name))

    monkeypatch.setattr(Run, "figure", figure)


@pytest.fixture
def own_package(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mypackage.module, which can be imported: its text is OWN of the module of the test."""
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "module.py").write_text(request.module.OWN)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("mypackage", "mypackage.module"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.fixture
def make_network() -> Callable[..., nn.Module]:
    """A classifier in evaluation mode with statistics and weights of batch norm that are not those of the start."""

    def make(name: str = "cifar_resnet", side: int = 8, channels: int = 1, **options: object) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = classifier(name, classes=10, channels=channels, **options)
            for module in network.modules():
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                    nn.init.uniform_(module.weight, 0.5, 1.5)
                    nn.init.normal_(module.bias, std=0.1)
            network.train()(torch.rand(32, channels, side, side))
        return network.eval()

    return make
