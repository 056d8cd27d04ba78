"""A surface that can be turned and read off in a browser: one page with all that it needs inside."""

import html

import numpy as np
import plotly.graph_objects as go

from jobs.loss_landscape.drawing.parts import COLOURS
from jobs.loss_landscape.drawing.scale import DEPTH, is_wide
from service.errors import FieldError


def interactive(surface: np.ndarray, x: np.ndarray, y: np.ndarray, title: str) -> str:
    """A whole HTML document: plotly's script is inside, and nothing is loaded from anywhere.

    surface: (steps_y, steps_x), x: (steps_x,), y: (steps_y,). The height is the decimal logarithm of the loss where it
    varies much; what is not finite is a hole. Pointing at it tells the coordinates and the loss itself.
    """
    if surface.shape != (len(y), len(x)):
        raise FieldError("shape of the surface", f"be ({len(y)}, {len(x)}), that of the grid", surface.shape)
    loss = np.where(np.isfinite(surface), surface, np.nan)
    logarithmic = is_wide(loss)
    heights = np.log10(loss.clip(min=DEPTH * np.nanmax(loss))) if logarithmic else loss
    height = "log10 of the loss" if logarithmic else "loss"
    drawn = go.Surface(
        x=x,
        y=y,
        z=heights,
        customdata=loss,
        colorscale=COLOURS,
        colorbar={"title": {"text": height}},
        contours={"z": {"show": True, "usecolormap": True, "project": {"z": True}}},
        hovertemplate="x %{x:.4g}<br>y %{y:.4g}<br>loss %{customdata:.4g}<extra></extra>",
    )
    figure = go.Figure(drawn)
    figure.update_layout(
        title={"text": html.escape(title)},
        scene={"zaxis": {"title": {"text": height}}, "aspectmode": "cube"},
        margin={"l": 0, "r": 0, "t": 48, "b": 0},
    )
    page: str = figure.to_html(
        include_plotlyjs=True, div_id="surface", config={"displaylogo": False, "responsive": True}
    )
    return page
