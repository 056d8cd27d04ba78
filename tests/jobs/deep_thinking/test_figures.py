"""What is drawn, read back from the figures."""

import numpy as np
import pytest

from jobs.deep_thinking.figures import Line, Panel, accuracy_against_iterations, frame, spread, strip


def test_every_size_and_trial_has_a_line_and_the_chosen_one_is_bold():
    lines = [Line(16, [0.5, 1.0]), Line(48, [0.0, 0.25]), Line(48, [0.0, 0.1], bold=False)]
    figure = accuracy_against_iterations([Panel("recall", 15, lines), Panel("plain", 8, lines[:1])], 16, "bits")
    recall, plain = figure.axes
    drawn = [line for line in recall.lines if len(line.get_ydata())]
    assert [list(line.get_ydata()) for line in drawn] == [[50, 100], [0, 25], [0, 10]]
    assert drawn[1].get_linewidth() > drawn[2].get_linewidth()
    assert drawn[1].get_color() == drawn[2].get_color() != drawn[0].get_color()
    assert [axes.get_title(loc="left") for axes in (recall, plain)] == ["recall", "plain"]
    bands = [axes.patches[0].get_extents().transformed(axes.transData.inverted()) for axes in (recall, plain)]
    assert [round(band.x1) for band in bands] == [15, 8]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["16 bits (trained on)", "48 bits", "iterations in training"]


def test_more_panels_than_a_row_holds():
    panels = [Panel(str(index), 5, [Line(7, [0.5])]) for index in range(4)]
    figure = accuracy_against_iterations(panels, 7, "pixels")
    assert [axes.axison for axes in figure.axes] == [True] * 4 + [False] * 2


@pytest.mark.parametrize(("height", "width", "shape"), [(20, 20, (1, 3)), (4, 100, (3, 1))])
def test_wide_pictures_are_stacked(height, width, shape):
    pictures = [np.zeros((height, width, 3), np.uint8)] * 3
    figure = strip(pictures, ["1", "2", "3"])
    grid = figure.axes[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == shape


def test_a_frame_is_enlarged_by_a_whole_number_and_has_its_caption_below():
    picture = np.zeros((9, 9, 3), np.uint8)
    picture[4, 4] = (10, 200, 30)
    drawn = frame(picture, "iteration 1")
    assert drawn.dtype == np.uint8 and drawn.shape[1] == 360
    assert drawn.shape[0] > 360
    assert (drawn[180, 180] == (10, 200, 30)).all() and (drawn[100, 100] == 0).all()
    assert (drawn[360:] < 128).any()  # the text


def test_spread_keeps_both_ends():
    assert spread([1, 2, 5], 6) == [1, 2, 5]
    assert spread(list(range(1, 101)), 4) == [1, 34, 67, 100]
