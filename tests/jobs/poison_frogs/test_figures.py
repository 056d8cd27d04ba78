"""What is drawn is what was measured."""

import numpy as np
import pytest
import torch

from jobs.poison_frogs import figures
from jobs.poison_frogs.figures import Curve, Example, Projection


@pytest.mark.parametrize("channels", [1, 3])
def test_differences_are_grey_where_there_is_none(channels):
    base = torch.rand(channels, 4, 4, generator=torch.Generator().manual_seed(0))
    poison = base.clone()
    poison[0, 1, 2] -= 0.1
    figure = figures.poison_rows([Example(base.flip(1), base, poison, "bird", "dog", "base class")] * 2)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:4] == ["target: bird", "base: dog", "poison: dog", "difference ±0.1"] and len(titles) == 8
    drawn = np.asarray(figure.axes[3].images[0].get_array())
    difference = drawn if channels == 1 else drawn[:, :, 0]
    assert difference[1, 2] == pytest.approx(0.0) and np.delete(difference.ravel(), 6) == pytest.approx(0.5)
    assert figure.axes[0].get_ylabel() == "base class"


def row(victim: str, control: str, poisons: int, success: float, defence: str = "") -> dict[str, object]:
    low, high = success - 0.1, success + 0.1
    told = {"victim": victim, "defence": defence, "control": control, "poisons": poisons}
    return {**told, "success": success, "low": low, "high": high}


def test_success_and_its_controls():
    rows = [
        row("head", "no poison", 0, 0.1),
        *(row("head", "poison", 1, 0.4), row("head", "poison", 5, 0.7)),
        row("head", "poison", 1, 0.2, "knn"),
        row("head", "flipped label", 5, 0.9),
    ]
    curves = figures.curves(rows)
    assert curves[0] == Curve(
        "head", [1, 5], [0.4, 0.7], [pytest.approx(0.3), pytest.approx(0.6)], [0.5, pytest.approx(0.8)]
    )
    assert [curve.label for curve in curves] == ["head", "head behind knn"]
    (axes,) = figures.success(curves, figures.controls_of(rows, "head")).axes
    assert [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() in (":", "--")] == [10, 90]
    first = axes.containers[0].lines[0]
    assert first.get_ydata() == pytest.approx([40, 70]) and first.get_xdata() == pytest.approx([1, 5], abs=0.1)


def test_histograms_hold_every_target_and_victim():
    left, right = figures.histograms([0.9, 0.95, 0.1], [0.0, 0.01], [20.0, float("nan"), 24.0]).axes
    assert sum(patch.get_height() for patch in left.patches) == 5
    assert sum(patch.get_height() for patch in right.patches) == 2
    assert "mean 22°" in right.get_legend().get_texts()[0].get_text()


def test_distances_tell_who_fell():
    (axes,) = figures.distances([1.0, 2.0, 3.0], [5.0, 6.0, 7.0], [True, False, True]).axes
    fell, stood = axes.lines
    assert fell.get_xydata().tolist() == [[5, 1], [7, 3]] and stood.get_xydata().tolist() == [[6, 2]]


def test_the_plane_is_spanned_by_the_classes_and_the_boundary():
    draw = torch.Generator().manual_seed(0)
    features, weight = torch.randn(20, 6, generator=draw), torch.randn(6, generator=draw)
    of_base = torch.arange(20) % 2 == 0
    axes = figures.plane(features, of_base, weight)
    torch.testing.assert_close(axes @ axes.T, torch.eye(2))
    between = features[of_base].mean(0) - features[~of_base].mean(0)
    torch.testing.assert_close(axes[0] * between.norm(), between)
    inside = axes.T @ (axes @ weight)
    torch.testing.assert_close(inside, weight)  # the weights lie in the plane
    points = (features @ axes.T).numpy()
    shown = Projection(points, of_base.numpy(), points[:2], points[2:4], points[4:6], ("cat", "dog"))
    (drawn,) = figures.projection(shown).axes
    assert len(drawn.lines[0].get_xdata()) == len(drawn.lines[1].get_xdata()) == 10
