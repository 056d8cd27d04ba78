"""The specs of the study in miniature: fewer instances, epochs and channels, everything else as it is."""

from pathlib import Path

import pytest
import yaml

from service import spec
from service.execution import history, runner
from service.execution.runner import Execution
from service.store import open_store

CONFIGS = Path(__file__).parents[3] / "configs" / "deep_thinking"


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("prefix_sums_paper", 32),
        ("mazes_paper", 9),
        pytest.param("prefix_sums_small", 16, marks=pytest.mark.slow),
        pytest.param("mazes_small", 7, marks=pytest.mark.slow),
    ],
)
def test_every_variant_of_a_spec_runs(name: str, size: int, store_uri: str) -> None:
    tree = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())  # as it is, its networks would be tried in full
    data = (
        ["params.training.data.updates=2"]
        if tree["params"]["training"]["data"]["kind"] == "fresh"
        else ["params.training.data.instances=10", "params.training.data.epochs=1"]
    )
    variants = tree["sweep"]["variants"]
    small = [
        *data,
        "params.network.width=8",
        "params.training.batch=4",
        f"params.evaluation.sizes=[{{size: {size}, iterations: 12, instances: 2}}]",
        f"params.evaluation.show={{size: {size}, iterations: 6, instances: 2}}",
        "sweep.grid.seed=[0]",
        "resources.gpus=0",
        f"store={store_uri}",
        *(f"sweep.variants.{each}={{{', '.join(fields)}}}" for each, fields in _short(variants).items()),
    ]
    state = runner.start(spec.load(CONFIGS / f"{name}.yaml", small), Execution(serial=True))
    assert state.status == "finished", state.failure
    assert state.trials == len(variants)
    folder = open_store(store_uri) / "runs" / state.id
    assert {each.status for each in history.trials(folder)} == {"finished"}
    assert folder.exists("figures/accuracy.png")


def _short(variants: dict[str, dict[str, object]]) -> dict[str, list[str]]:
    """The variants, without what makes one of them train for longer."""
    return {
        name: [f"{field}: {value}" for field, value in fields.items() if not field.endswith("epochs")]
        for name, fields in variants.items()
    }
