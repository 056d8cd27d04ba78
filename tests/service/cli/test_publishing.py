"""A network that is there already becomes a model of the store."""

from pathlib import Path

import pytest
import torch
from torch import nn

from service import models
from service.cli.commands import main
from service.models import CardDraft
from service.store import open_store

HERE = "tests.service.cli.test_publishing"


def line(width: int = 2, slope: float = 3.0) -> tuple[nn.Module, CardDraft]:
    """A network of one weight, and its card."""
    network = nn.Linear(width, 1, bias=False)
    nn.init.constant_(network.weight, slope)
    draft = CardDraft(
        architecture="torch.nn:Linear", arguments={"in_features": width, "out_features": 1, "bias": False},
        study="walk", task="walking", inputs=(), outputs=(), settings={}, metrics={}, description="a line",
    )  # fmt: skip
    return network, draft


def wrong() -> nn.Module:
    return nn.Linear(1, 1)


NOTHING = 3


def test_what_is_published_is_loaded_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = str(tmp_path / "store")
    for slope in (3, -1.5):
        assert main(["publish", f"{HERE}:line", "width=4", f"slope={slope}", "--as", "line", "--store", store]) == 0
    assert "model line/2: a line" in capfd.readouterr().out
    folder = open_store(store)
    loaded = models.load(folder, models.find(folder, "line"), trusted=("torch",))
    assert torch.equal(next(loaded.parameters()), torch.full((1, 4), -1.5))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([f"{HERE}:line", "--as", "Line"], "lower-case letters"),
        ([f"{HERE}:line", "width", "--as", "line"], "an option must be NAME=VALUE; it is 'width'"),
        ([f"{HERE}:line", "wide=3", "--as", "line"], "refuses its options"),
        ([f"{HERE}:lines", "--as", "line"], "cannot import"),
        (["nowhere:line", "--as", "line"], "cannot import 'nowhere:line'"),
        ([".nowhere:line", "--as", "line"], "cannot import '.nowhere:line'"),
        ([HERE, "--as", "line"], "must be MODULE:FUNCTION"),
        ([f"{HERE}:NOTHING", "--as", "line"], "cannot be called: it is a int"),
        ([f"{HERE}:wrong", "--as", "line"], "must return a torch module and its CardDraft; it returns a Linear"),
    ],
)
def test_what_cannot_be_published(
    words: list[str], sentence: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", *words, "--store", str(tmp_path / "store")]) == 2
    assert sentence in capfd.readouterr().err and not (tmp_path / "store" / "models").exists()
