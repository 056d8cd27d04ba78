"""Paths through weight space, against scikit-learn, numpy's least squares and paths whose planes are known."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from torch import Tensor

from jobs.loss_landscape.planes.trajectory import principal_axes, project, surrounding
from service.errors import InputError

SHAPES = {"first.weight": (4, 3), "first.bias": (4,), "second.weight": (2, 4)}
State = dict[str, Tensor]


def state(seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}


def flat(each: State) -> np.ndarray:
    return np.concatenate([tensor.double().numpy().reshape(-1) for tensor in each.values()])


def moved(centre: State, *terms: tuple[float, State]) -> State:
    return {name: tensor + sum(times * each[name] for times, each in terms) for name, tensor in centre.items()}


@pytest.fixture
def path() -> list[State]:
    return [state(seed) for seed in range(6)]


def test_the_axes_are_those_of_scikit_learn(path: list[State]) -> None:
    found = principal_axes(path, centred=True)
    differences = np.stack([flat(each) for each in path]) - flat(path[-1])
    expected = PCA(2).fit(differences)
    np.testing.assert_allclose(found.explained, expected.explained_variance_ratio_, rtol=1e-10)
    for axis, component in zip(found.axes, expected.components_, strict=True):
        assert abs(flat(axis) @ component) == pytest.approx(1, abs=1e-10)


def test_without_centring_the_axes_are_the_singular_vectors(path: list[State]) -> None:
    found = principal_axes(path, count=3, centred=False)
    differences = np.stack([flat(each) for each in path]) - flat(path[-1])
    _, singular, vectors = np.linalg.svd(differences, full_matrices=False)
    np.testing.assert_allclose(found.explained, (singular**2 / (singular**2).sum())[:3], rtol=1e-10)
    for axis, vector in zip(found.axes, vectors, strict=False):
        assert abs(flat(axis) @ vector) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("centred", [True, False])
def test_a_straight_path_has_one_axis(centred: bool) -> None:
    centre, direction = state(0), state(1)
    straight = [moved(centre, (step, direction)) for step in (5.0, 3.0, 1.5, 0.0)]
    found = principal_axes(straight, centred=centred)
    assert len(found.axes) == 1
    assert found.explained == pytest.approx([1.0])
    length = np.linalg.norm(flat(direction))
    coordinates = project(straight, centre, found.axes).coordinates[:, 0]
    np.testing.assert_allclose(coordinates, -length * np.array([5, 3, 1.5, 0]), atol=1e-9)  # paths come from the left


def test_a_path_in_a_plane_is_explained_by_two_axes() -> None:
    centre, one, two = state(0), state(1), state(2)
    bent = [moved(centre, (a, one), (b, two)) for a, b in [(4, 0), (2, 1), (1, 2), (0, 0)]]
    found = principal_axes(bent, count=3)
    assert len(found.axes) == 2 and found.explained.sum() == pytest.approx(1)
    np.testing.assert_allclose(project(bent, centre, found.axes).captured, 1, atol=1e-10)


def test_ignored_entries_do_not_move(path: list[State]) -> None:
    wild = [{**each, "first.bias": each["first.bias"] * 1e6} for each in path]
    found = principal_axes(wild, ignore="biasbn")
    expected = principal_axes([{**each, "first.bias": torch.zeros(4)} for each in path])
    np.testing.assert_allclose(found.explained, expected.explained)
    assert all(not axis["first.bias"].any() for axis in found.axes)


def test_counters_take_no_part(path: list[State]) -> None:
    counted = [{**each, "batches": torch.tensor(1000 * index)} for index, each in enumerate(path)]
    found = principal_axes(counted)
    np.testing.assert_allclose(found.explained, principal_axes(path).explained)
    assert "batches" not in found.axes[0]


def test_axes_keep_the_type_of_the_weights(path: list[State]) -> None:
    halves = [{name: tensor.float() for name, tensor in each.items()} for each in path]
    axes = principal_axes(halves).axes
    assert {tensor.dtype for axis in axes for tensor in axis.values()} == {torch.float32}
    assert {name: tuple(tensor.shape) for name, tensor in axes[0].items()} == SHAPES


@given(
    st.lists(st.tuples(*[st.floats(-100, 100)] * 2), min_size=1, max_size=5),
    st.floats(1e-3, 1e3),
    st.floats(-0.99, 0.99),
)
def test_points_of_a_plane_are_found_in_units_of_its_axes(
    points: list[tuple[float, float]], long: float, lean: float
) -> None:
    """Whatever the lengths of the axes and the angle between them: filter-normalised ones are neither 1 nor square."""
    centre, one = state(0), state(1)
    two = moved({name: long * tensor for name, tensor in state(2).items()}, (lean * long, one))
    checkpoints = [moved(centre, (a, one), (b, two)) for a, b in points]
    found = project(checkpoints, centre, [one, two])
    np.testing.assert_allclose(found.coordinates, points, rtol=1e-6, atol=1e-6)
    far = np.abs(points).max(1) > 1e-3
    np.testing.assert_allclose(found.captured[far], 1, atol=1e-6)


def test_points_beside_the_plane_fall_on_the_nearest_one(path: list[State]) -> None:
    centre, axes = path[-1], [state(10), state(11)]
    found = project(path, centre, axes)
    matrix = np.stack([flat(axis) for axis in axes], 1)
    differences = np.stack([flat(each) for each in path]) - flat(centre)
    expected, residuals, *_ = np.linalg.lstsq(matrix, differences.T)
    np.testing.assert_allclose(found.coordinates, expected.T, atol=1e-10)
    squared = (differences[:-1] ** 2).sum(1)
    np.testing.assert_allclose(found.captured[:-1], 1 - residuals[:-1] / squared, atol=1e-10)
    assert found.captured[-1] == 1 and not found.coordinates[-1].any()


def test_an_entry_that_an_axis_lacks_is_zero(path: list[State]) -> None:
    axis = state(10)
    whole = project(path, path[-1], [{**axis, "first.bias": torch.zeros(4)}])
    partial = project(path, path[-1], [{name: axis[name] for name in axis if name != "first.bias"}])
    np.testing.assert_array_equal(whole.coordinates, partial.coordinates)


def test_surroundings_hold_the_path_and_the_centre() -> None:
    (left, right), (low, high) = surrounding(np.array([[2.0, 0.0], [1.0, 0.0]]), margin=0.5)
    assert (left, right) == (-1.0, 3.0)
    assert (low, high) == (-1.0, 1.0)  # does not move: as far as the other
    with pytest.raises(InputError, match="does not move"):
        surrounding(np.zeros((3, 2)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"first.bias": torch.zeros(5)},
            r"checkpoint 1 is of another architecture: 'first.bias' is \(5,\), not \(4,\)",
        ),
        ({"third": torch.zeros(1)}, "checkpoint 1 is of another architecture: it has 'third' besides"),
        ({"first.bias": torch.full((4,), float("nan"))}, "checkpoint 1: the weights 'first.bias' are not finite"),
    ],
)
def test_checkpoints_that_do_not_fit(path: list[State], change: State, said: str) -> None:
    path[1] = {**path[1], **change}
    with pytest.raises(InputError, match=said):
        principal_axes(path)
    with pytest.raises(InputError, match=said):
        project(path[:-1], path[-1], [state(1)])


def test_a_path_needs_two_checkpoints_that_differ() -> None:
    for path in ([state(0)], [state(0)] * 3):
        with pytest.raises(InputError, match="checkpoints must be at least 2|at least two checkpoints that differ"):
            principal_axes(path)


def test_axes_that_span_no_plane(path: list[State]) -> None:
    axis = state(10)
    twice = {name: -2 * tensor for name, tensor in axis.items()}
    zero = {name: 0 * tensor for name, tensor in axis.items()}
    for axes, said in [([axis, twice], "parallel"), ([axis, zero], "zero"), ([{"x": torch.ones(1)}], "moves 'x'")]:
        with pytest.raises(InputError, match=said):
            project(path, path[-1], axes)
