"""The specs of the study are valid, and the small one runs in miniature."""

from pathlib import Path

import pytest

from service import spec
from service.execution import runner
from service.execution.runner import Execution
from service.planning import plan
from service.store import open_store

CONFIGS = Path(__file__).parents[3] / "configs" / "sonification"


@pytest.mark.parametrize("name", sorted(file.stem for file in CONFIGS.glob("*.yaml")))
def test_specs_are_valid(name: str) -> None:
    assert plan.trials(spec.load(str(CONFIGS / f"{name}.yaml")))


def test_the_small_spec_runs(store_uri: str, tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the package espeakng-loader is not installed")
    few = [
        f"store={store_uri}",
        f"params.data.root={tmp_path}",
        "params.data.speech={voices: [en-us+m1, en+f3], pitches: [20, 80], speeds: [160]}",
        "params.network.training.epochs=1",
        "params.network.training.batch=8",
        "params.sonifications.channels.count=1",
        "params.sonifications.channels.ascent.steps=2",
        "params.sonifications.digits.ascent.steps=2",
        "params.inversion.steps=2",
        "params.inversion.clips=1",
        "params.examples=0",
        "params.sonifications.channels.layers=[conv1, conv5]",
        "params.sonifications.digits.classes=[three]",
        "params.inversion.layers=[conv1]",
    ]
    state = runner.start(spec.load(str(CONFIGS / "small.yaml"), few), Execution(serial=True))
    assert state.status == "finished", state.failure
    folder = open_store(store_uri) / "runs" / state.id
    assert folder.exists("figures/depth_000.png")
    assert "<audio" in folder.read("report.html").decode()
