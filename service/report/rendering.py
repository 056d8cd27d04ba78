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
class Picture:
    """A figure, an image or an animation.

    name: what it is called in every run of the job; title: what is said of it in this one. path: from the run's folder.
    """

    title: str
    name: str
    path: str
    mime: str
    content: bytes


@dataclass(frozen=True)
class Sound:
    """A sound with its player and its spectrogram. seconds: how long it is."""

    title: str
    name: str
    path: str
    mime: str
    content: bytes
    spectrogram: bytes
    """PNG"""
    seconds: float

    @property
    def spectrogram_path(self) -> str:
        """Where the spectrogram lies, where it is a file of its own, from the folder of the run."""
        return f"{self.path}.png"


@dataclass(frozen=True)
class Table:
    """The first rows of a table."""

    title: str
    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Link:
    """A file beside the page: its path from the folder of the run, and its format and size in words."""

    title: str
    path: str
    facts: str


@dataclass(frozen=True)
class ReportPage:
    """What the page shows. Everything in it is escaped: titles, labels and values may hold anything."""

    title: str
    run_id: str
    status: str
    spec_yaml: str
    facts: Sequence[tuple[str, str]]
    figures: Sequence[Picture]
    sounds: Sequence[Sound]
    warnings: Sequence[str]
    tables: Sequence[Table]
    links: Sequence[Link]
    trials: Sequence[tuple[str, str, bool, str, dict[str, float]]]
    """label, status, whether it is the best of its variant, how long it took, the value last logged of each metric"""
    errors: Sequence[tuple[str, str, str]]
    """where, one sentence, traceback"""
    provenance: dict[str, Any]


def render(page: ReportPage) -> bytes:
    """The page as HTML: styles and pictures inside, no script, nothing loaded; links lead to files beside it."""
    metrics = list(dict.fromkeys(name for trial in page.trials for name in trial[4]))
    return filled("page.html", page=page, verdict=VERDICTS.get(page.status, ""), metrics=metrics)


def filled(template: str, **values: Any) -> bytes:
    """One of the templates of this room, as HTML. Every value is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (resources.files("service.report") / name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["value"] = value_text
    environment.filters["data_uri"] = _data_uri
    environment.filters["relative_url"] = _relative_url
    environment.filters["minute"] = _minute
    return encodable(environment.get_template(template).render(**values)).encode()


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


def _minute(moment: str) -> str:
    """A moment in the form of ISO 8601, in UTC, to the minute."""
    return moment[:16].replace("T", " ")
