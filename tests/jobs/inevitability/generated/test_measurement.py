"""Networks on generated images: one that reaches the ceiling exactly, the alarm, and the whole section of a spec."""

from dataclasses import replace
from typing import Any

import pytest
from scipy.stats import norm

from jobs.inevitability.bounds.generative import GenerativeBound
from jobs.inevitability.bounds.shares import ClassShare
from jobs.inevitability.generated.generators import Generator
from jobs.inevitability.generated.measurement import Robustness, alarms
from jobs.inevitability.job import estimate, run, summarize
from service.errors import SpecError
from service.run import Trial
from tests.jobs.inevitability.small import HERE, LINEAR, params
from tests.jobs.inevitability.subjects import noise_images
from tests.jobs.inevitability.test_curves import curve

OWN = {"kind": "model", "name": f"{HERE}:noise_images", "latent": [64]}
NETWORKS = {"first_pixel": {"kind": "model", "name": f"{HERE}:first_pixel"}, "linear": LINEAR}
ATTACKS = {"ddn": {"kind": "ddn", "steps": 40}}
EPSILONS = (0.02, 0.05, 0.1)


def asked(**generated: Any) -> Any:
    section = {"generator": OWN, "images": 400, "samples": 4000, **generated}
    epsilons = {"L2": list(EPSILONS)}
    return params(networks=NETWORKS, epsilons=epsilons, curves__attacks=ATTACKS, slice=200, generated=section)


def rows(handle: Any, table: str) -> list[dict[str, Any]]:
    return handle.folder.read_table(f"tables/{table}.parquet").to_pylist()


def test_two_half_spaces_reach_the_ceiling(make_run: Any) -> None:
    """x = 1/2 + 0.05 z, and classes by the sign of one coordinate: no classifier is more robust, and by how much is
    known.
    """
    handle, summary = make_run(), make_run("summary")
    spec = asked()
    run(spec, handle)
    by_network = {row["network"]: row for row in rows(handle, "generated")}
    row = by_network["first_pixel"]
    assert row["lipschitz"] == pytest.approx(0.05, rel=1e-5) and row["lipschitz_is"] == "upper limit"
    assert row["verdict"] == "useful" and "in the range of the generator" in row["sentence"]
    assert 0.5 < row["largest_share"] < 0.54
    lines = [each for each in rows(handle, "generated_curves") if each["network"] == "first_pixel"]
    assert [each["epsilon"] for each in lines] == [0.0, *EPSILONS] and lines[0]["accuracy"] == lines[0]["value"] == 1
    for each in lines[1:]:
        exact = 2 * norm.cdf(-each["epsilon"] / 0.05)
        assert each["low"] <= exact <= each["high"]
        assert exact <= each["value"] <= exact + 0.08, "shares are known to within their intervals"
    assert row["median_distance"] == pytest.approx(0.05 * norm.ppf(0.75), rel=0.15)
    assert by_network["linear"]["median_distance"] <= by_network["linear"]["half"]
    assert handle.metrics["alarms"] == 0 and 0 < handle.metrics["generated"] < 1.15
    described = {"id": "a", "label": "a", "variant": None, "seed": 0, "overrides": {}, "best": False}
    trial = Trial(handle.folder, params=spec, status="finished", metrics=handle.metrics, **described)
    summarize([trial], summary)
    assert summary.folder.exists("figures/generated.png") and summary.folder.exists("figures/inevitability.png")


def test_more_than_the_bound_allows_raises_the_alarm() -> None:
    generator = Generator("noise", noise_images(), (64,), 0.05, True)
    whole = curve([[1] * 40, [1] * 39 + [0]], (0.0, 0.1), norm="L2")
    bound = GenerativeBound(lipschitz=0.05, shares=(0.5, 0.5))
    robust = Robustness("net", generator, (ClassShare(50, 100), ClassShare(50, 100)), whole, bound)
    (sentence,) = alarms([robust])
    assert sentence.startswith(
        "generated images: net at resolution 1 keeps 97.5% in L2 at epsilon 0.1, above the ceiling"
    )
    assert "the attack is too weak, or the data are not what the bound supposes" in sentence
    (sentence,) = alarms([replace(robust, generator=replace(generator, certain=False))])
    assert sentence.endswith("the ceiling rests on an estimate that is too low")
    assert not alarms([replace(robust, bound=GenerativeBound(lipschitz=5.0))])


def test_a_class_of_more_than_half_leaves_the_papers_form_without_a_verdict() -> None:
    bound = GenerativeBound(lipschitz=0.05, shares=(0.9, 0.2), form="paper")
    shares = (ClassShare(90, 100), ClassShare(10, 100))
    whole = curve([[1, 1], [1, 0]], (0.0, 0.1), norm="L2")
    robust = Robustness("net", Generator("noise", noise_images(), (64,), 0.05, True), shares, whole, bound)
    assert robust.row()["verdict"] == "not applicable" and robust.ceiling.values == (1.0,) and not alarms([robust])


def test_it_is_estimated() -> None:
    assert estimate(asked()).details["generated images"] == 400
    without = estimate(asked().model_copy(update={"generated": None}))
    assert estimate(asked()).pieces == without.pieces + 2 * 2, "networks and slices, one search for all epsilons"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epsilons": {"Linf": [0.1]}}, "epsilons must hold L2, in which generated images are attacked"),
        ({"curves": None}, "curves must be given, whose attacks generated images are attacked by"),
        ({"generated": {"generator": {"kind": "gan"}}}, "params.generated.generator"),
        ({"generated": {"generator": {"kind": "model", "name": "a:b", "latent": []}}}, "latent"),
        ({"generated": {"images": 0}}, "params.generated.images"),
    ],
)
def test_parameters_that_cannot_work(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        params(**{"generated": {}, **changes})
