"""The specs of the study are valid, and the small one runs in miniature."""

from pathlib import Path

import pytest

from service import spec
from service.planning import plan
from tests.jobs.specs import finish, results

CONFIGS = Path(__file__).parents[3] / "configs" / "copyright_attack"


@pytest.mark.parametrize("name", sorted(file.stem for file in CONFIGS.glob("*.yaml")))
def test_specs_are_valid(name: str) -> None:
    assert plan.trials(spec.load(str(CONFIGS / f"{name}.yaml")))


def test_the_small_spec_runs(store_uri: str) -> None:
    few = [
        "params.data.seconds=5",
        "params.data.enrolled=2",
        "params.data.others=2",
        "params.seconds=3",
        "params.songs=2",
        "params.attacks.overlap.steps=2",
        "params.attacks.ring.steps=2",
        "params.attacks.remix.steps=2",
        "params.judges.names=[wang]",
        "params.encodings=[]",
        "params.database_false_alarms=0.4",
        "params.examples=0",
    ]
    folder = finish(CONFIGS / "small.yaml", few, store_uri)
    (row,) = results(folder).values()
    assert row["identified_wang_original"] == 1.0
    assert folder.exists("figures/identified_000.png")
    assert "Does the attack beat the noise?" in folder.read("report.html").decode()
