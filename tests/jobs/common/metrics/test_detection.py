"""ROC, area and thresholds: against scikit-learn, against pairs that are counted, against draws of a known law."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from jobs.common.metrics.detection import area, roc, threshold_at
from service.errors import FieldError, InputError


def scores(seed: int, shift: float = 1.0, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    positives, negatives = generator.normal(shift, 1, 40), generator.normal(0, 1, 60)
    return (positives.round(0), negatives.round(0)) if ties else (positives, negatives)


@pytest.mark.parametrize("ties", [False, True])
def test_the_curve_and_the_area_are_those_of_scikit_learn(ties: bool) -> None:
    positives, negatives = scores(0, ties=ties)
    labels = np.repeat([1, 0], [len(positives), len(negatives)])
    both = np.concatenate([positives, negatives])
    alarms, detections = roc(positives, negatives)
    theirs = roc_curve(labels, both, drop_intermediate=False)
    np.testing.assert_allclose(np.stack([alarms, detections]), np.stack(theirs[:2]))
    assert area(positives, negatives).value == pytest.approx(roc_auc_score(labels, both))
    pairs = [(p > n) + 0.5 * (p == n) for p in positives for n in negatives]
    assert area(positives, negatives).value == pytest.approx(np.mean(pairs))


def test_the_interval_of_the_area_holds_the_true_one() -> None:
    """Of two normal laws a standard deviation apart it is the normal distribution at 1 over the root of 2."""
    true = 0.7602499389065233
    areas = [area(*scores(seed)) for seed in range(300)]
    inside = np.mean([each.low <= true <= each.high for each in areas])
    assert 0.92 <= inside <= 0.99


@pytest.mark.parametrize(("shift", "end"), [(100.0, 1.0), (-100.0, 0.0)])
def test_scores_that_do_not_overlap_are_no_certainty(shift: float, end: float) -> None:
    found = area(*scores(1, shift))
    assert found.value == end and 0.02 < found.high - found.low < 0.2
    assert found.high == 1 if end else found.low == 0


def test_a_threshold_has_the_rate_that_was_asked_for() -> None:
    negatives = np.arange(100.0)
    found = threshold_at(negatives, 0.05)
    assert found.value == 94 and found.false_alarms == 0.05 and found.negatives == 100
    assert found.low < 94 < found.high < np.inf
    assert found.false_alarms_low < 0.05 < found.false_alarms_high
    few = threshold_at(np.arange(10.0), 0.01)
    assert few.value == 9 and few.false_alarms == 0 and few.high == np.inf


def test_its_interval_holds_the_quantile() -> None:
    generator = np.random.default_rng(0)
    inside = [found.low <= 0.9 <= found.high for found in (threshold_at(generator.random(80), 0.1) for _ in range(150))]
    assert 0.92 <= np.mean(inside) <= 1


def test_equal_scores_are_never_more_alarms_than_asked_for() -> None:
    assert threshold_at(np.array([0.0] * 50 + [3.0] * 50), 0.2).false_alarms == 0


def test_what_is_no_score_is_refused() -> None:
    with pytest.raises(InputError, match="positives must be scores"):
        area(np.array([np.nan]), np.array([0.0]))
    with pytest.raises(InputError, match="negatives must be scores"):
        roc(np.array([1.0]), np.zeros(0))
    with pytest.raises(FieldError, match="rate must be above 0"):
        threshold_at(np.array([1.0]), 1.0)
