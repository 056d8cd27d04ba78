"""The specs of the study are valid, and the small one runs in miniature; as it is, it shows what it says."""

from pathlib import Path
from typing import Any

import pytest

from service import spec
from service.planning import plan
from tests.jobs.specs import finish, results

CONFIGS = Path(__file__).parents[3] / "configs" / "invisibility_cloak"


@pytest.mark.parametrize("name", sorted(file.stem for file in CONFIGS.glob("*.yaml")))
def test_specs_are_valid(name: str) -> None:
    assert plan.trials(spec.load(str(CONFIGS / f"{name}.yaml")))


def test_the_small_spec_runs(store_uri: str) -> None:
    few = [
        "params.data.side=48",
        "params.data.train_limit=12",
        "params.data.test_limit=4",
        *(
            f"params.detectors.{name}.training.{each}"
            for name in "ab"
            for each in ("updates=2", "batch=4", "held_out=4")
        ),
        *(f"params.detectors.{name}.options={{width: 0.25}}" for name in "ab"),
        "params.search.size=[10, 6]",
        "params.search.iterations=2",
        "params.controls.levels=2",
        "params.controls.images=2",
        "params.examples=1",
    ]
    folder = finish(CONFIGS / "small.yaml", few, store_uri)
    (row,) = results(folder).values()
    assert 0 <= row["recall_min_max_b"] <= 1 and "ap50_tuned_a" in row
    assert folder.exists("figures/hidden_000.png")
    assert "Does the patch hide people, and more than a grey one does?" in folder.read("report.html").decode()


@pytest.mark.slow  # two minutes; what it shows is not seen in less
def test_the_small_spec_shows_what_it_says(store_uri: str) -> None:
    folder = finish(CONFIGS / "small.yaml", [], store_uri)
    (row,) = results(folder).values()

    def recall(patch: str, victim: str) -> Any:
        return row[f"recall_{patch}_{victim}"]

    for victim, other in (("a", "b"), ("b", "a")):
        own, transferred = recall(f"on_{victim}", victim), recall(f"on_{other}", victim)
        assert own <= 0.5 * recall("grey", victim), "a patch hides more than a plain one"
        assert recall("both", victim) < 0.55 * recall("clean", victim), "a patch against both hides from both"
        assert own < transferred, "on a detector that a patch was not made against it does less"
