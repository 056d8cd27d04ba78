"""The specs of the study: all valid, and the small ones in miniature."""

from pathlib import Path

import pytest

from service import spec
from service.execution import runner
from service.execution.runner import Execution
from service.planning import plan
from service.store import open_store

CONFIGS = Path(__file__).parents[3] / "configs" / "inevitability"
NETWORKS = {"small": ("mlp_natural", "mlp_pgd", "cnn_natural", "cnn_pgd"), "cube_small": ("linear", "mlp", "mlp_pgd")}
CHANGES = {
    "small": [
        "params.data.test_limit=10",
        "params.resolutions=[1, 2]",
        "params.curves.attacks.pgd.steps=1",
        "params.epsilons={Linf: [0.1], L2: [0.5]}",
        "params.concentration.seeds=[0]",
    ],
    "cube_small": ["params.data.test_limit=20", "params.curves.attacks.apgd.steps=2"],
}


@pytest.mark.parametrize("name", sorted(file.stem for file in CONFIGS.glob("*.yaml")))
def test_specs_are_valid(name: str) -> None:
    assert plan.trials(spec.load(str(CONFIGS / f"{name}.yaml")))


@pytest.mark.parametrize("name", CHANGES)
def test_small_specs_run(name: str, store_uri: str) -> None:
    few = ["params.data.train_limit=300", "params.slice=10", "params.bounds.samples=10", f"store={store_uri}"]
    few += [f"params.networks.{network}.training.updates=2" for network in NETWORKS[name]]
    loaded = spec.load(str(CONFIGS / f"{name}.yaml"), [*CHANGES[name], *few])
    state = runner.start(loaded, Execution(serial=True))
    assert state.status == "finished", state.failure
    folder = open_store(store_uri) / "runs" / state.id
    assert folder.exists("figures/inevitability.png")
    assert "Robust accuracy of networks" in folder.read("report.html").decode()
