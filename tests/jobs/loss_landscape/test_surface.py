"""Grids, the surface over them, and how it is refined, censored and resumed."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs.common.mean_loss.plain import PlainEvaluation, mean_scores
from jobs.common.mean_loss.samples import Samples
from jobs.common.mean_loss.scores import plain_scores
from jobs.common.models.directions import moved, random_direction
from jobs.common.models.fused_convolution import has_bfloat16
from jobs.common.models.weights import tensors
from jobs.loss_landscape.surface.computation import Subject, compute_surface, loss_at
from jobs.loss_landscape.surface.evaluator import EvaluatorParams
from jobs.loss_landscape.surface.grid import AxisParams, GridParams
from jobs.loss_landscape.surface.refinement import RefinementParams, interpolate, measure
from service.execution.fan_out.mapping import InProcess

GRID = GridParams(x=AxisParams(low=-1, high=1, steps=5), y=AxisParams(low=-0.5, high=0.5, steps=3))


@pytest.fixture
def subject(make_network, points):
    network = make_network("digits_net")
    weights = tensors(network, "weights")
    axes = [random_direction(weights, "filter", "biasbn", torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    return Subject(network, axes, Samples(*points), population=400, params=EvaluatorParams())


def test_a_surface_has_a_row_for_each_y_and_a_column_for_each_x(subject, make_run):
    surface = compute_surface(subject, GRID, None, make_run())
    assert surface.loss.shape == (3, 5)
    start = tensors(subject.network)
    for row, y in enumerate((-0.5, 0.0, 0.5)):
        for column, x in enumerate((-1.0, -0.5, 0.0, 0.5, 1.0)):
            weights = moved(start, subject.axes, (x, y))
            plain = plain_scores(
                subject.network, weights, subject.samples.images, subject.samples.labels, "cross_entropy"
            )
            assert surface.loss[row, column] == pytest.approx(plain.loss, rel=1e-5)
            assert surface.accuracy[row, column] == plain.accuracy
            assert surface.error[row, column] == pytest.approx(plain.standard_error(400), rel=1e-4)
    assert surface.measured.all() and not surface.censored.any() and surface.not_finite == 0
    assert (surface.images == 40).all()


def test_a_line_is_a_surface_of_one_row(subject, make_run):
    line = Subject(subject.network, subject.axes[:1], subject.samples, 400, subject.params)
    surface = compute_surface(line, GridParams(x=GRID.x), None, make_run())
    assert surface.loss.shape == (1, 5) and surface.y is None
    whole = compute_surface(subject, GRID, None, make_run("whole"))
    np.testing.assert_allclose(surface.loss[0], whole.loss[1], rtol=1e-6)


class Killed(BaseException):
    """As by a signal."""


def test_after_a_kill_only_what_is_missing_is_computed_and_the_surface_is_the_same(subject, make_run, monkeypatch):
    undisturbed = compute_surface(subject, GRID, None, make_run("undisturbed"))
    computed: list[list[float]] = []

    def kill(progress: object) -> None:
        if len(computed) >= 4:
            raise Killed

    evaluate = Subject.evaluator.func(subject).at.__func__

    def counted(self, point, precision="float32"):
        computed.append(point)
        return evaluate(self, point, precision)

    monkeypatch.setattr("jobs.loss_landscape.surface.evaluator.Evaluator.at", counted)
    monkeypatch.setattr("service.execution.fan_out.mapping.FLUSH_SECONDS", 0.0)
    with pytest.raises(Killed):
        compute_surface(subject, GRID, None, make_run("disturbed", executor=InProcess(kill)))
    before = len(computed)
    assert 4 <= before < 15
    resumed = compute_surface(subject, GRID, None, make_run("disturbed"))
    assert len(computed) == 15 and len({tuple(point) for point in computed}) == 15
    for name in ("loss", "accuracy", "error"):
        assert getattr(resumed, name).tobytes() == getattr(undisturbed, name).tobytes()


@pytest.mark.skipif(not has_bfloat16(), reason="this processor has no bfloat16")
def test_bfloat16_is_checked_at_the_centre_and_where_the_loss_is_low(subject):
    params = EvaluatorParams(precision="bfloat16")
    low = Subject(subject.network, subject.axes, subject.samples, 40, params)
    exact = loss_at({"at": [0.5, 0.5], "exact": False}, subject)
    checked = loss_at({"at": [0.5, 0.5], "exact": True}, low)
    assert checked["loss"] == exact["loss"] and 0 < checked["deviation"] < 0.05
    left = loss_at({"at": [0.5, 0.5], "exact": False}, low)
    assert left["deviation"] is None and left["loss"] != exact["loss"]


def test_means_over_parts_are_those_over_the_whole(subject, make_run):
    states = [{}, {"network.11.bias": torch.ones(10)}]
    whole = PlainEvaluation(subject.network, states, subject.samples, "cross_entropy")
    found = mean_scores(whole, make_run(), "parts", part=7)
    for state, (loss, accuracy) in zip(states, found, strict=True):
        plain = plain_scores(subject.network, state, subject.samples.images, subject.samples.labels, "cross_entropy")
        assert loss == pytest.approx(plain.loss) and accuracy == plain.accuracy


@pytest.mark.parametrize(
    ("axis", "sentence"),
    [
        ({"steps": 1}, "greater than or equal to 2"),
        ({"low": 1.0, "high": 1.0}, "low must be below high, which is 1; it is 1"),
        ({"low": 2.0, "high": -2.0}, "below high"),
        ({"low": float("nan")}, "finite number"),
    ],
)
def test_grids_that_are_none_are_refused(axis, sentence):
    with pytest.raises(ValidationError, match=sentence):
        AxisParams(**axis)


def test_grids_too_large_are_refused():
    with pytest.raises(ValidationError, match="must be at most 1,000,000; it is 1,002,001"):
        GridParams(x=AxisParams(steps=1001), y=AxisParams(steps=1001))


@given(st.integers(1, 30).map(lambda half: 2 * half + 1), st.floats(0.01, 100))
def test_the_middle_of_a_symmetric_axis_is_the_model(steps, high):
    coordinates = AxisParams(low=-high, high=high, steps=steps).coordinates
    assert coordinates[steps // 2] == 0 and len(coordinates) == steps


# ---- refinement ----------------------------------------------------------------------------------------------------


def bowl(shape):
    rows, columns = np.indices(shape)
    return 0.02 * ((rows - shape[0] // 2) ** 2 + (columns - shape[1] // 3) ** 2)


@pytest.mark.parametrize("shape", [(33, 33), (20, 41), (1, 50), (2, 2)])
def test_refinement_measures_a_part_and_is_near_the_rest(shape):
    truth, looked = bowl(shape), []

    def losses_at(points):
        looked.extend(points)
        return [truth[point] for point in points]

    losses, known = measure(shape, RefinementParams(stride=8, levels=(1.0,), bend=0.7), losses_at)
    assert len(looked) == len(set(looked)) == known.sum()
    assert np.array_equal(losses[known], truth[known])
    assert known[0, 0] and known[-1, -1] and np.isfinite(losses).all()
    assert np.abs(np.log(losses + 0.1) - np.log(truth + 0.1)).max() < 0.7
    if shape == (33, 33):
        assert known.mean() < 0.7
        inside = losses <= 1.0
        assert (inside != (truth <= 1.0)).mean() < 0.02, "the contour is where it is"


def test_without_refinement_every_point_is_measured_once():
    truth = bowl((4, 7))
    losses, known = measure((4, 7), None, lambda points: [truth[point] for point in points])
    assert known.all() and np.array_equal(losses, truth)


def test_what_is_not_finite_is_looked_at_closely_only_at_its_border():
    truth = bowl((33, 33))
    truth[:, 20:] = np.nan
    flat = RefinementParams(stride=8, levels=(), bend=1e9)
    losses, known = measure((33, 33), flat, lambda points: [truth[point] for point in points])
    assert known[:, 17:24].any() and known[:, 25:].mean() < 0.1
    assert np.isnan(losses[:, 24:]).all() and np.isfinite(losses[:, :19]).all()


def test_a_refined_surface_is_the_whole_one_where_it_is_measured(subject, make_run):
    grid = GridParams(x=AxisParams(steps=9), y=AxisParams(steps=7))
    whole = compute_surface(subject, grid, None, make_run("whole"))
    refined = compute_surface(subject, grid, RefinementParams(bend=0.3, levels=()), make_run("refined"))
    assert 0 < refined.measured.sum() < 63
    assert np.array_equal(refined.loss[refined.measured], whole.loss[refined.measured])
    assert np.isfinite(refined.accuracy).all()


def test_other_quantities_come_from_the_nearest_point():
    known = np.array([[True, False, True]])
    assert interpolate(np.array([[0.0, np.nan, 1.0]]), known).tolist() == [[0.0, 0.5, 1.0]]
