"""From a sweep to its trials."""

from typing import Any

import pytest
from ray import tune

from service import spec
from service.errors import SpecError
from service.planning import plan
from service.provenance import derive_seed


def plans(sweep: dict[str, Any], seed: int = 0) -> list[plan.TrialPlan]:
    return plan.trials(spec.build({"job": "tests.service.walk", "seed": seed, "sweep": sweep}))


def test_variants_times_grid() -> None:
    found = plans({"variants": {"a": {"params.drift": 1}, "b": {"params.drift": 2}}, "grid": {"seed": [3, 4]}})
    assert [each.label for each in found] == ["a seed=3", "a seed=4", "b seed=3", "b seed=4"]
    assert [each.id for each in found] == ["000-a-seed-3", "001-a-seed-4", "002-b-seed-3", "003-b-seed-4"]
    assert [(each.spec.params.drift, each.spec.seed) for each in found] == [(1, 3), (1, 4), (2, 3), (2, 4)]  # type: ignore[attr-defined]
    assert all(each.spec.sweep is None for each in found)


def test_random_draws_come_from_the_seed_alone() -> None:
    sweep = {
        "random": {"params.drift": {"loguniform": [1e-4, 1]}, "params.pace.steps": {"randint": [1, 9]}},
        "samples": 5,
    }
    first, again, other = plans(sweep), plans(sweep), plans(sweep, seed=1)
    assert [each.overrides for each in first] == [each.overrides for each in again]
    assert [each.overrides for each in first] != [each.overrides for each in other]
    assert all(1e-4 <= each.overrides["params.drift"] <= 1 for each in first)
    assert {type(each.overrides["params.pace.steps"]) for each in first} == {int}


@pytest.mark.parametrize(
    ("space", "domain"),
    [
        ({"uniform": [-2.0, 5.0]}, tune.uniform(-2.0, 5.0)),
        ({"loguniform": [1e-4, 3.0]}, tune.loguniform(1e-4, 3.0)),
        ({"randint": [3, 90]}, tune.randint(3, 90)),
    ],
)
def test_draws_are_those_of_ray_tune(space: dict[str, Any], domain: Any) -> None:
    field = "params.pace.steps" if "randint" in space else "params.drift"
    drawn = [each.overrides[field] for each in plans({"random": {field: space}, "samples": 20}, seed=5)]
    seeds = [derive_seed(5, "sweep", field, sample) % 2**32 for sample in range(20)]
    assert drawn == [domain.sample(random_state=seed) for seed in seeds]


@pytest.mark.parametrize(
    ("sweep", "sentence"),
    [
        ({"grid": {"params.drif": [1]}}, "sweep.grid: params.drif: unknown field"),
        ({"grid": {"params.pace.steps": [1, 0]}}, "sweep.grid: params.pace.steps must be above 0; it is 0"),
        ({"grid": {"store": ["a"]}}, "'store' cannot be swept"),
        ({"variants": {"a": {"params.nope": 1}}}, "sweep.variants.a: params.nope: unknown field"),
        ({"random": {"params.drift": {"uniform": [2, 1]}}}, "bounds [2.0, 1.0] are reversed"),
        ({"random": {"params.drift": {"loguniform": [0, 1]}}}, "out of range"),
        ({"random": {"seed": {"randint": [0, 10**20]}}}, f"seed: bounds [0, {10**20}] are reversed, equal or out of"),
        ({"random": {"params.drift": {"uniform": [-1.7e308, 1.7e308]}}}, "out of range"),
        ({"grid": {"seed": list(range(101)), "params.drift": list(range(100))}}, "at most 10,000"),
        (
            {"variants": {"a": {}, "b": {"params.drift": 0}}},
            "sweep: '000-a' and '001-b' are the same trial (a draw replaces",
        ),
        (
            {"grid": {"seed": [1, 2]}, "random": {"seed": {"choice": [7]}}},
            "sweep: '000-seed-7' and '001-seed-7' are the same trial",
        ),
        (
            {"variants": {"a": {"params.drift": 1}, "b": {"params.drift": 2}}, "grid": {"params.drift": [3]}},
            "sweep: '000-a-drift-3' and '001-b-drift-3' are the same trial",
        ),
        ({"grid": {"params.pace": [{}, {"steps": 10}]}}, "are the same trial"),
    ],
)
def test_a_sweep_over_what_cannot_be_swept(sweep: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        plans(sweep)
    assert sentence in str(caught.value)


def test_draws_of_several_samples_may_be_equal() -> None:
    assert len(plans({"random": {"seed": {"choice": [7]}}, "samples": 2})) == 2


def trained(kind: str, sweep: dict[str, Any] | None = None) -> list[plan.TrialPlan]:
    params = {"method": {"kind": kind}, "threat": {"norm": "Linf", "epsilon": 0.1}}
    return plan.trials(spec.build({"job": "free_training", "params": params, "sweep": sweep}))


@pytest.mark.parametrize("kind", ["free", "pgd"])
def test_a_swept_kind_keeps_nothing_of_another_kind(kind: str) -> None:
    (alone,) = trained(kind)
    _, swept = trained("natural", {"grid": {"params.method": [{"kind": "natural"}, {"kind": kind}]}})
    assert swept.spec.params == alone.spec.params
    hint = f"params.method.kind: '{kind}' has fields of its own (sweep the section: `params.method: {{kind: {kind}}}`)"
    for place, sweep in [
        ("sweep.grid", {"grid": {"params.method.kind": ["natural", kind]}}),
        ("sweep.random", {"random": {"params.method.kind": {"choice": [kind]}}}),
        ("sweep.variants.a", {"variants": {"a": {"params.method.kind": kind}}}),
    ]:
        with pytest.raises(SpecError) as caught:
            trained("natural", sweep)
        assert str(caught.value) == f"{place}: {hint}"


def test_kinds_of_one_class_can_be_swept() -> None:
    adam, sgd = trained("natural", {"grid": {"params.training.optimizer.kind": ["adam", "sgd"]}})
    rules = [each.spec.params.training.optimizer for each in (adam, sgd)]  # type: ignore[attr-defined]
    assert [each.kind for each in rules] == ["adam", "sgd"] and rules[0].learning_rate == rules[1].learning_rate
    with pytest.raises(SpecError, match="be 'adam'"):
        trained("natural", {"grid": {"params.training.optimizer.kind": ["adma"]}})


def test_samples_without_anything_to_draw() -> None:
    with pytest.raises(SpecError, match="would repeat the same trial"):
        plans({"samples": 2})
