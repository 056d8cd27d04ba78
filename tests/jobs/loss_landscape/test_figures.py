"""What is drawn, read back from the figures and the page."""

import base64
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from jobs.loss_landscape.drawing.content import CurvatureMap, Curve, Landscape, Path
from jobs.loss_landscape.drawing.interactive import interactive
from jobs.loss_landscape.drawing.scale import contour_levels, is_wide
from jobs.loss_landscape.figures import (
    contours,
    curves,
    eigenvalue_ratios,
    heat_maps,
    surfaces,
    trajectory,
)
from service.errors import InputError

X, Y = np.linspace(-1, 1, 21), np.linspace(-1, 2, 31)
BOWL = 0.01 + X**2 + 9 * Y[:, None] ** 2  # from 0.01 to 37
CENSORED = BOWL > 30
HOLED = np.where(X + 0 * Y[:, None] < -0.95, np.nan, BOWL)
HOLED[15, 10] = np.inf


def landscape(title: str = "bowl", loss: np.ndarray = BOWL, **more: np.ndarray) -> Landscape:
    return Landscape(title, X, Y, loss, **more)  # type: ignore[arg-type]


def drawn(axes: Axes, kind: type) -> list:
    return [each for each in axes.collections if isinstance(each, kind)]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for each in figure.legends for text in each.get_texts()]


@given(
    st.lists(
        st.one_of(st.floats(-1e6, 1e6), st.floats(1e-9, 1e12), st.sampled_from([np.nan, np.inf, 0.0])), min_size=1
    ),
)
def test_levels_lie_inside_of_the_data(values: list[float]) -> None:
    loss = np.array(values)
    finite = loss[np.isfinite(loss)]
    levels = contour_levels(loss)
    assert levels == sorted(levels) and len(levels) <= 20
    if len(finite) and finite.min() < np.nextafter(finite.max(), -np.inf):
        assert levels and all(finite.min() < level < finite.max() for level in levels)


def test_levels_are_round() -> None:
    assert contour_levels(np.array([0.08, 30.0])) == [0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
    assert contour_levels(np.array([5e-4, 3e7])) == [10.0**power for power in range(-3, 8)]
    assert contour_levels(np.array([1.0, 2.0, np.nan])) == pytest.approx(np.arange(1.1, 2, 0.1))
    assert contour_levels(np.array([3.0, 3.0])) == contour_levels(np.array([np.nan])) == []


def test_a_scale_is_logarithmic_if_the_loss_varies_much() -> None:
    assert is_wide(np.array([0.1, 10.0])) and is_wide(np.array([0.0, 0.1, 10.0, np.inf]))
    assert not is_wide(np.array([1.0, 10.0])) and not is_wide(np.array([-1.0, 0.1, 10.0]))
    assert not is_wide(np.array([0.0, 0.0])) and not is_wide(np.array([np.nan]))


def test_contours_of_two_landscapes_have_one_scale() -> None:
    figure = contours([landscape("one"), landscape("two", 100 * BOWL)])
    one, two = (drawn(axes, QuadContourSet)[0] for axes in figure.axes)
    assert one.get_clim() == two.get_clim() == (pytest.approx(-2), pytest.approx(np.log10(3701)))
    assert set(one.levels) == {-1, 0, 1} and set(two.levels) == {1, 2, 3}  # those that each of them reaches
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["one", "two"]
    assert max(one.levels) < np.log10(BOWL.max())


def test_contours_run_where_the_loss_is() -> None:
    (lines,) = drawn(contours([landscape()]).axes[0], QuadContourSet)
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        x, y = path.vertices[path.vertices.any(1)].T
        assert 0.01 + x**2 + 9 * y**2 == pytest.approx(10.0**level, rel=0.2)


@pytest.mark.parametrize("draw", [contours, lambda each: contours(each, filled=True), heat_maps])
def test_what_is_not_known_is_shown_as_such(draw) -> None:
    figure = draw([landscape(), landscape("holed", HOLED, censored=CENSORED)])
    plain, holed = figure.axes[:2]
    marks = [mesh.get_array() for mesh in drawn(holed, QuadMesh)][-2:]
    np.testing.assert_array_equal(marks[0].mask, np.isfinite(HOLED))
    np.testing.assert_array_equal(marks[1].mask, ~(CENSORED & np.isfinite(HOLED)))
    assert len(drawn(plain, QuadMesh)) == len(drawn(holed, QuadMesh)) - 2
    least = HOLED[CENSORED & np.isfinite(HOLED)].min()
    assert legend(figure) == ["not finite", f"not computed to the end: above {least:.3g}"]
    assert legend(draw([landscape()])) == []


def test_a_heat_map_has_the_loss_of_every_point() -> None:
    measured = np.zeros(BOWL.shape, bool)
    measured[::5, ::5] = True
    axes = heat_maps([landscape(measured=measured)]).axes[0]
    (mesh,) = drawn(axes, QuadMesh)
    np.testing.assert_array_equal(mesh.get_array(), BOWL)
    assert mesh.get_clim() == (BOWL.min(), BOWL.max())
    assert len(axes.lines[-1].get_xdata()) == 5 * 7


def test_surfaces_have_holes_and_one_scale() -> None:
    figure = surfaces([landscape(), landscape("holed", HOLED)])
    (whole,), (holed,) = (drawn(axes, Poly3DCollection) for axes in figure.axes)
    cells = 20 * 30
    assert len(whole.get_array()) == 2 * cells
    assert len(holed.get_array()) == 2 * (cells - 30 - 4)  # a column of cells, and those around a point
    assert whole.get_clim() == holed.get_clim() == (pytest.approx(-2), pytest.approx(np.log10(BOWL.max())))
    assert figure.axes[0].get_zlim() == figure.axes[1].get_zlim()


@pytest.mark.parametrize("loss", [np.full(BOWL.shape, np.nan), np.full(BOWL.shape, 2.0), np.zeros(BOWL.shape), -BOWL])
def test_odd_landscapes_can_be_drawn(loss: np.ndarray) -> None:
    for figure in (contours([landscape(loss=loss)]), contours([landscape(loss=loss)], filled=True)):
        figure.draw_without_rendering()
    heat_maps([landscape(loss=loss)]).draw_without_rendering()
    surfaces([landscape(loss=loss)]).draw_without_rendering()


def test_many_landscapes_go_into_rows() -> None:
    four, five = (contours([landscape(str(number)) for number in range(count)]) for count in (4, 5))
    assert [axes.axison for axes in four.axes] == [True] * 4, "two by two"
    assert [axes.axison for axes in five.axes] == [True] * 5 + [False]


def test_curves_show_repeats_errors_and_what_was_held_out() -> None:
    loss = 0.5 + X**2
    lines = [
        Curve("filter", X, loss, accuracy=loss / 2, error=0.1 * loss),
        Curve("filter", X, loss + 0.1, accuracy=loss / 3),
        Curve("layer", X, np.where(X > 0.95, np.nan, loss), held_out=True),
    ]
    figure = curves(lines)
    above, below = figure.axes
    drawn_lines = [line for line in above.lines if len(line.get_xdata()) == len(X)]
    assert drawn_lines[0].get_color() == drawn_lines[1].get_color() != drawn_lines[2].get_color()
    assert [line.get_linestyle() for line in drawn_lines] == ["-", "-", "--"]
    crosses = [line for line in above.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in crosses] == [[1.0]]
    np.testing.assert_allclose(below.lines[0].get_ydata(), 50 * loss)
    band = drawn(above, PolyCollection)[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(1.2 * 1.5) and band[:, 1].min() == pytest.approx(0.8 * 0.5)
    assert legend(figure) == ["filter", "layer", "held out"]
    assert above.get_yscale() == "linear"
    assert curves([Curve("deep", X, 1e-3 + X**2)]).axes[0].get_yscale() == "log"


def test_a_path_is_drawn_with_both_losses() -> None:
    coordinates = np.array([[-0.9, 1.5], [-0.5, 0.2], [0.0, 0.0]])
    path = Path(coordinates, np.array([0, 10, 20]), np.array([3.0, 2.0, 0.01]), np.array([2.5, 1.0, 0.01]), (0.8, 0.15))
    figure = trajectory(landscape(), path)
    plane, told = figure.axes
    np.testing.assert_array_equal(np.stack(plane.lines[0].get_data(), 1), coordinates)
    assert "80.0 %" in plane.get_xlabel() and "15.0 %" in plane.get_ylabel()
    assert [list(line.get_ydata()) for line in told.lines] == [[3.0, 2.0, 0.01], [2.5, 1.0, 0.01]]
    assert [text.get_text() for text in plane.get_legend().get_texts()] == ["epoch 0", "epoch 20"]


def test_eigenvalue_ratios_of_planes_and_lines() -> None:
    largest = 2 + BOWL
    smallest = np.where(np.isfinite(HOLED), -0.5 * largest, np.nan)
    figure = eigenvalue_ratios(
        [CurvatureMap("a", X, Y, smallest, largest), CurvatureMap("b", X, Y, -smallest, largest)]
    )
    ratios = [drawn(axes, QuadMesh)[0] for axes in figure.axes[:4]]
    known = [set(mesh.get_array().compressed()) for mesh in ratios]
    assert known == [{0.5}, {0.5}, {-0.5}, {0.5}]
    assert ratios[0].get_clim() == (0, 0.5) and legend(figure) == ["not finite"]
    line = eigenvalue_ratios([CurvatureMap("a", X, None, -smallest[3], largest[3])]).axes[0]
    assert line.get_ylim() == (0, 1) and set(line.lines[0].get_ydata()[1:]) == {0.5}


class Parts(HTMLParser):
    """What a page loads, and its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "data")]
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script":
            self.scripts[-1] += data


def shown(page: str) -> dict:
    """The first trace of the figure in a page."""
    script = Parts(page).scripts[-1]
    start = script.index("[", script.index("Plotly.newPlot"))
    traces, _ = json.JSONDecoder().raw_decode(script[start:])
    return dict(traces[0])


def numbers(encoded: dict) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(encoded["bdata"]), encoded["dtype"])
    return values.reshape([int(each) for each in encoded["shape"].split(",")]) if "shape" in encoded else values


def test_the_page_needs_nothing_else_and_has_the_surface() -> None:
    page = interactive(HOLED, X, Y, "</script><script>alert('x')</script>")
    parts = Parts(page)
    assert parts.loads == [] and not {"link", "iframe", "img"} & set(parts.tags)
    assert any(len(script) > 1_000_000 for script in parts.scripts), "plotly's script is inside"
    assert "<script>alert" not in page
    trace = shown(page)
    assert trace["type"] == "surface"
    np.testing.assert_array_equal(numbers(trace["x"]), X)
    np.testing.assert_array_equal(numbers(trace["customdata"]), np.where(np.isfinite(HOLED), HOLED, np.nan))
    np.testing.assert_allclose(numbers(trace["z"]), np.log10(np.where(np.isfinite(HOLED), HOLED, np.nan)))


def test_a_page_with_a_linear_height_and_one_that_does_not_fit() -> None:
    trace = shown(interactive(1 + BOWL / 10, X, Y, "narrow"))
    np.testing.assert_array_equal(numbers(trace["z"]), 1 + BOWL / 10)
    interactive(np.full(BOWL.shape, np.nan), X, Y, "nothing")
    with pytest.raises(InputError, match=r"must be \(21, 31\), that of the grid; it is \[31, 21\]"):
        interactive(BOWL, Y, X, "")
