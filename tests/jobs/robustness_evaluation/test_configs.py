"""The specs of the study: the small one in miniature, on untrained models of the same names; the others validated."""

from pathlib import Path

import pytest

from jobs.common.models.classifiers import classifier
from service import models, spec
from service.execution import runner
from service.execution.runner import Execution
from service.planning import plan
from service.store import open_store
from tests.jobs.shared import draft

CONFIGS = Path(__file__).parents[3] / "configs" / "robustness_evaluation"


@pytest.mark.parametrize("name", sorted(file.stem for file in CONFIGS.glob("*.yaml")))
def test_specs_are_valid(name: str) -> None:
    assert plan.trials(spec.load(str(CONFIGS / f"{name}.yaml")))


def test_the_small_spec_runs(store_uri: str) -> None:
    small = ["params.first=20", "params.slice=10", "params.epsilons=[0.1]", "params.attacks.autoattack.queries=20"]
    loaded = spec.load(str(CONFIGS / "small.yaml"), [*small, "params.attacks.fab.steps=5", f"store={store_uri}"])
    arguments = {"classes": 10, "channels": 1}
    for each in plan.trials(loaded):
        card = draft("jobs.common.models.classifiers:digits_net", arguments)
        name = each.spec.params.network.name
        models.publish(open_store(store_uri), name, classifier("digits_net", **arguments).state_dict(), card)
    state = runner.start(loaded, Execution(serial=True))
    assert state.status == "finished", state.failure
    assert (open_store(store_uri) / "runs" / state.id).exists("figures/security_curves.png")


def test_the_models_are_those_that_training_publishes() -> None:
    trained = {
        trial.spec.params.model_name
        for name in ("digits_small", "cifar10_paper")
        for trial in plan.trials(spec.load(str(CONFIGS.parent / "free_training" / f"{name}.yaml")))
    }
    for name in ("small", "cifar10_paper"):
        for trial in plan.trials(spec.load(str(CONFIGS / f"{name}.yaml"))):
            assert trial.spec.params.network.name in trained
