"""What is drawn is what was measured."""

import numpy as np
import pytest
import torch

from jobs.robustness_evaluation.figures import Curve, Example, adversarial_images, security_curves


def test_a_security_curve_and_its_band() -> None:
    curves = [
        Curve("pgd", [0, 0.1], [0.9, 0.5], [0.8, 0.4], [0.95, 0.6]),
        Curve("worst case", [0, 0.1], [0.9, 0.3], [0.8, 0.2], [0.95, 0.4], bold=True),
    ]
    (axes,) = security_curves(curves, "L2").axes
    worst, pgd = axes.lines
    assert pgd.get_xydata() == pytest.approx(np.array([[0, 90], [0.1, 50]]))
    assert worst.get_ydata() == pytest.approx([90, 30]) and worst.get_linewidth() > pgd.get_linewidth()
    assert "L2" in axes.get_xlabel()
    corners = axes.collections[1].get_paths()[0].vertices
    assert {tuple(each) for each in corners.round(6)} >= {(0, 80), (0, 95), (0.1, 40), (0.1, 60)}


@pytest.mark.parametrize("channels", [1, 3])
def test_differences_are_grey_where_there_is_none(channels: int) -> None:
    clean = torch.rand(channels, 4, 4, generator=torch.Generator().manual_seed(0))
    adversarial = clean.clone()
    adversarial[0, 1, 2] += 0.05
    figure = adversarial_images([Example(clean, adversarial, "cat", "dog", "pgd")])
    drawn = [axes.images[0].get_array() for axes in figure.axes]
    assert [axes.get_title() for axes in figure.axes] == ["cat", "dog", "±0.05"]
    difference = np.asarray(drawn[2]) if channels == 1 else np.asarray(drawn[2])[:, :, 0]
    assert difference[1, 2] == pytest.approx(1.0) and np.delete(difference.ravel(), 6) == pytest.approx(0.5)
    assert np.asarray(drawn[0]).shape == ((4, 4) if channels == 1 else (4, 4, 3))
