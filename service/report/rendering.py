"""A run's page: one HTML file that needs nothing else, for today's reader and for the archive."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import quote

import jinja2

from service.formatting import encodable

VERDICTS = {
    "finished": "All trials ended as they should.",
    "partial": "Some trials or cells failed; the rest has its results.",
    "failed": "The run failed.",
    "cancelled": "The run was stopped and can be resumed.",
    "running": "The run is going on.",
    "lost": "The run lost its driver and can be resumed.",
}


@dataclass(frozen=True)
class Sound:
    """A sound with its player and its spectrogram. seconds: how long it is."""

    title: str
    mime: str
    content: bytes
    spectrogram: bytes
    """PNG"""
    seconds: float


@dataclass(frozen=True)
class ReportPage:
    """What the page shows. Everything in it is escaped: titles, labels and values may hold anything."""

    title: str
    run_id: str
    status: str
    spec_yaml: str
    facts: Sequence[tuple[str, str]]
    figures: Sequence[tuple[str, str, bytes]]
    """title, MIME type, content"""
    sounds: Sequence[Sound]
    warnings: Sequence[str]
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[Any]]]]
    """title, columns, rows"""
    links: Sequence[tuple[str, str, str]]
    """title, path relative to the page, format and size"""
    trials: Sequence[tuple[str, str, bool, str, dict[str, float]]]
    """label, status, whether it is the best of its variant, how long it took, the value last logged of each metric"""
    errors: Sequence[tuple[str, str, str]]
    """where, one sentence, traceback"""
    provenance: dict[str, Any]


def render(page: ReportPage) -> bytes:
    """The page as HTML: styles and pictures inside, no script, nothing loaded; links lead to files beside it."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["value"] = value_text
    environment.filters["data_uri"] = _data_uri
    environment.filters["relative_url"] = _relative_url
    template = environment.from_string((resources.files("service.report") / "page.html").read_text(encoding="utf-8"))
    metrics = list(dict.fromkeys(name for trial in page.trials for name in trial[4]))
    html = template.render(page=page, verdict=VERDICTS.get(page.status, ""), metrics=metrics)
    return encodable(html).encode()


def value_text(value: Any) -> str:
    """A cell of a table: numbers with four significant digits, nothing for what is absent."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else str(value)
    return str(value)


def _data_uri(content: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def _relative_url(path: str) -> str:
    """A path below the page as a link: with the dot, no name is taken for a scheme."""
    return f"./{quote(path)}"
