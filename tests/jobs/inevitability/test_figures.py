"""What is drawn is what was measured."""

import numpy as np
import pytest
import torch

from jobs.inevitability import drawing, figures
from tests.jobs.inevitability.test_curves import curve


def test_curves_and_ceilings_of_a_panel() -> None:
    line = figures.Line("net", [0, 0.1], [0.9, 0.5], [0.8, 0.4], [0.95, 0.6])
    ceiling = figures.CeilingLine("concentration", "half-spaces", [0.1], [0.7])
    silent = {"k-NN": 4.0, "noise": float("inf")}
    (axes,) = figures.curves_under_ceilings([figures.Panel("L2", [line], [ceiling], silent)]).axes
    measured, above = axes.lines
    assert measured.get_xydata() == pytest.approx(np.array([[0, 90], [0.1, 50]]))
    assert above.get_xydata() == pytest.approx(np.array([[0.1, 70]])) and above.get_color() == "#000000"
    words = " ".join(axes.get_xlabel().split())
    assert "L2" in words and "say nothing below 4 (k-NN) the bounds say nothing at any epsilon (noise)" in words


@pytest.mark.parametrize("source", ["bound", "concentration"])
def test_every_ceiling_has_a_look_of_its_own(source: str) -> None:
    """The same in all panels."""
    names = [f"{source} {number}" for number in range(10)]
    ceilings = [figures.CeilingLine(source, name, [0, 0.1], [0.9, 0.7]) for name in names]
    shown = [figures.Panel("L2", [], ceilings), figures.Panel("Linf", [], ceilings[3:])]
    first, second = (
        {line.get_label(): (str(line._dash_pattern), line.get_marker(), line.get_color()) for line in axes.lines}
        for axes in figures.curves_under_ceilings(shown).axes
    )
    assert len(set(first.values())) == 10 and second == {name: first[name] for name in names[3:]}


def test_panels_are_made_of_the_rows_of_tables() -> None:
    curves = [row for norm in ("L2", "Linf") for row in curve([[1, 1], [1, 0]], (0.0, 0.1), norm=norm).rows()]
    large = curve([[1, 1], [1, 1]], (0.0, 0.2), resolution=2).rows()
    ceiling = {"source": "bound", "ceiling": "bound, density k-NN", "norm": "L2", "epsilon": 0.1}
    vacuous, useful = ({**ceiling, "value": value, "first_useful": 3.0} for value in (1.0, 0.5))
    l2, linf = drawing.panels_of({"a": (curves + large, [vacuous])})
    assert [line.label for line in l2.lines] == ["net"] and l2.lines[0].accuracy == [1.0, 0.5]
    assert l2.silent == {"k-NN": 3.0} and not l2.ceilings and not linf.silent
    both, _ = drawing.panels_of({"a": (curves, [vacuous]), "b": (curves, [useful])})
    assert [line.label for line in both.lines] == ["a: net", "b: net"]
    assert [line.label for line in both.ceilings] == ["b: bound, density k-NN"] and both.silent == {"a: k-NN": 3.0}
    lines = drawing.resolution_lines(curves + large)["net"]["L2"]
    assert [(line.resolution, line.scaled) for line in lines] == [(1, [0.0, 0.1]), (2, [0.0, 0.1])]
    assert drawing.resolution_lines(curves) == {}


def test_ceilings_are_named_by_their_trials_where_these_differ() -> None:
    curves = curve([[1, 1], [1, 0]], (0.0, 0.1), norm="L2").rows()
    low, high = (
        {"source": "bound", "ceiling": "b", "norm": "L2", "epsilon": 0.1, "value": value, "first_useful": 0.0}
        for value in (0.5, 0.7)
    )
    (differing,) = drawing.panels_of({"a": (curves, [low]), "b": (curves, [high])})
    assert [(line.label, line.values) for line in differing.ceilings] == [("a: b", [0.5]), ("b: b", [0.7])]
    (same,) = drawing.panels_of({"a": (curves, [low]), "b": (curves, [low])})
    assert [(line.label, line.values) for line in same.ceilings] == [("b", [0.5])]
    (one,) = drawing.panels_of({"a": (curves, [low]), "b": (curves, [])})
    assert [line.label for line in one.ceilings] == ["a: b"], "of the other trial nothing is said"


def test_a_row_for_each_network_and_a_column_for_each_way_of_scaling() -> None:
    small = figures.ResolutionLine(1, False, [0, 0.1], [0, 0.1], [0.9, 0.5])
    large = figures.ResolutionLine(2, False, [0, 0.1, 0.2], [0, 0.05, 0.1], [0.9, 0.7, 0.5])
    same = figures.ResolutionLine(2, True, [0, 0.2], [0, 0.1], [0.9, 0.5])
    figure = figures.resolutions({"net": {"L2": [small, large, same]}}, ["L2"])
    scaled, as_it_is = figure.axes
    assert scaled.lines[1].get_xdata() == pytest.approx([0, 0.05, 0.1])
    assert as_it_is.lines[1].get_xdata() == pytest.approx([0, 0.1]), "no farther than the small images were measured"
    assert scaled.lines[2].get_linestyle() == "None" and scaled.get_title("left") == "L2: against epsilon / b"


@pytest.mark.parametrize("channels", [1, 3])
def test_perturbed_images_stand_under_their_budgets(channels: int) -> None:
    images = torch.rand(2, channels, 4, 4, generator=torch.Generator().manual_seed(0))
    columns = [figures.Column("original", images, ["a (90%)", "b (80%)"]), figures.Column("L2 1", images, ["c", "d"])]
    figure = figures.perturbed_images(columns)
    assert [axes.get_title(loc="center") for axes in figure.axes[:2]] == ["original", "L2 1"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["a (90%)", "c", "b (80%)", "d"]
    shown = np.asarray(figure.axes[2].images[0].get_array())
    expected = images[1, 0].numpy() if channels == 1 else images[1].permute(1, 2, 0).numpy()
    assert shown == pytest.approx(expected)
