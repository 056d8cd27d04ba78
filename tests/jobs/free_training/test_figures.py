"""The figures draw what they are given, and names do not lie on each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.free_training.figures import Cost, Curve, accuracy_during_training, robustness_against_cost, spread

PLACES = st.lists(st.floats(0, 100), min_size=1, max_size=12)


@given(PLACES)
def test_names_keep_their_order_and_their_distance(places: list[float]) -> None:
    found = spread(places, 4.0)
    order = sorted(range(len(places)), key=lambda index: places[index])
    gaps = [found[after] - found[before] for before, after in zip(order, order[1:], strict=False)]
    assert all(gap >= 4.0 - 1e-9 for gap in gaps)
    assert sum(found) == pytest.approx(sum(places), abs=1e-6)


def test_names_that_have_room_stay_where_they_belong() -> None:
    assert spread([50.0, 10.0, 90.0], 4.0) == [50.0, 10.0, 90.0]
    assert spread([50.0, 52.0, 90.0], 4.0) == [49.0, 53.0, 90.0]


def test_every_trial_is_a_point_and_every_method_has_a_name() -> None:
    costs = [
        Cost("natural", 2000, 0.99, 0.40),
        Cost("Free-4", 2000, 0.99, 0.78),
        Cost("Free-4", 2000, 0.98, 0.80),
        Cost("PGD-7", 16_000, 0.99, 0.89),
    ]
    (axes,) = robustness_against_cost(costs, "PGD-20, Linf 0.1").axes
    points = [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in axes.lines]
    assert sorted(points) == sorted(
        [(each.gradient_evaluations, 100 * value) for each in costs for value in (each.robust, each.clean)]
    )
    assert sorted(text.get_text() for text in axes.texts) == ["Free-4", "PGD-7", "natural"]


def test_curves_are_drawn_clean_and_robust() -> None:
    figure = accuracy_during_training([Curve("natural", [5, 10], [0.5, 0.9], [0.1, 0.2])])
    clean, robust = (list(axes.lines[0].get_ydata()) for axes in figure.axes)
    assert clean == pytest.approx([50, 90]) and robust == pytest.approx([10, 20])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["natural"]
