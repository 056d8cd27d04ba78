"""The specs of the study: the small ones in miniature, the paper's as `assay check` sees them."""

from pathlib import Path

import pytest

from jobs.poison_frogs import illustrations
from service import spec
from service.execution import runner
from service.execution.runner import Execution
from service.planning import plan
from service.planning.costs import costs as costs_of
from service.store import open_store

CONFIGS = Path(__file__).parents[3] / "configs" / "poison_frogs"
PAIRS = ["params.targets.count=2", "params.targets.only_correct=false", "params.attack.iterations=3"]
ADAM = ["params.victims.head.solver=adam", "params.victims.head.updates=50"]  # of a network that has not learnt much
SETUPS = ["params.setups.count=2", "params.attack.steps=3", *ADAM]
HEADS = (
    "head: {kind: head, l2: 1e-4}, l2_of_0_01: {kind: head, l2: 1e-2}, "
    "adam_600_steps: {kind: head, solver: adam, updates: 60, l2: 0.0}, "
    "adam_1800_steps: {kind: head, solver: adam, updates: 180, l2: 0.0}"
)  # those of the spec, a tenth of the updates
BRIEF = "params.victims.end_to_end.epochs=1"
MINIATURE = {
    "small": [*PAIRS, f"sweep.variants.one_shot={{params.victims: {{{HEADS}}}}}"],
    "defences_small": PAIRS,
    "end_to_end_small": [*PAIRS, BRIEF, "params.targets.count=1", "params.poisons=[1,3]"],
    "ablations_small": [*PAIRS, BRIEF, "params.poisons=[2]"],
    "benchmark_small": SETUPS,
    "polytope_small": SETUPS,
    "gradient_matching_small": [
        *("params.targets.count=1", "params.targets.only_correct=false", BRIEF, "params.victims.from_scratch.epochs=1"),
        *("params.poisons=[2]", "params.attack.steps=3", "params.attack.restarts=1", "params.repeats=1"),
    ],
}


@pytest.mark.parametrize("name", sorted(file.stem for file in CONFIGS.glob("*.yaml")))
def test_specs_are_valid(name):
    assert plan.trials(spec.load(str(CONFIGS / f"{name}.yaml")))
    assert name in MINIATURE or not name.endswith("small"), "what a laptop can run is run here"


# ablations_small names the job and the victims of end_to_end_small
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name == "ablations_small" else name for name in sorted(MINIATURE)],
)
def test_a_small_spec_runs(name, store_uri, monkeypatch):
    pictures = ("poisons", "success", "histograms", "features", "distances")
    if name not in ("small", "end_to_end_small", "benchmark_small"):  # whose pictures are those of others
        monkeypatch.setattr(illustrations, "draw", lambda *_: None)
        pictures = ()
    changes = ["params.network.training.epochs=1", *MINIATURE[name], f"store={store_uri}"]
    loaded = spec.load(str(CONFIGS / f"{name}.yaml"), changes)
    if loaded.sweep is not None:
        some = dict(list(loaded.sweep.variants.items())[:1])
        loaded = loaded.model_copy(update={"sweep": loaded.sweep.model_copy(update={"variants": some})})
    state = runner.start(loaded, Execution(serial=True))
    assert state.status == "finished", state.failure
    folder = open_store(store_uri) / "runs" / state.id
    for trial in plan.trials(loaded):
        for picture in pictures:
            assert (folder / "trials" / trial.id).exists(f"figures/{picture}.png")


@pytest.mark.parametrize(
    ("name", "crafts", "retrainings", "craft_flops"),
    [
        # 30 targets, 70 poisons, 12,000 steps of 0.131 GFLOP in layers and 0.008 in sums over neighbouring channels; 15
        # numbers, the flipped label and the control
        ("cifar10_paper", [30 * 70] * 3 + [50 * 50], [30 * 16 + 1] * 3 + [50 * 2 + 1], 30 * 70 * 12_000 * 0.139e9),
        # 1,099 poisons of 1,500 steps; cold and warm
        ("dogfish_paper", [1099] * 2, [2 * (1099 * 2 + 1)] * 2, 1099 * 1500 * 22.9e9),
    ],
)
def test_the_papers_specs_say_what_they_cost(name, crafts, retrainings, craft_flops, tmp_path, monkeypatch):
    monkeypatch.setenv("ASSAY_DATA", str(tmp_path))
    estimates = [each.estimate for each in costs_of(plan.trials(spec.load(str(CONFIGS / f"{name}.yaml"))))]
    costs = [each.details for each in estimates]
    assert [each["crafts, at most"] for each in costs] == crafts
    assert [each["retrainings, at most"] for each in costs] == retrainings
    assert costs[0]["multiply-adds of crafting, at most"] == pytest.approx(craft_flops / 2, rel=0.02)
    assert costs[0]["multiply-adds of retraining, at most"] > 0 and estimates[0].core_seconds > 3600
