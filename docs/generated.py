"""What pages take from the code and the specs when the site is built, so that it cannot grow old.

A line `<!-- KIND of NAME -->` of a page becomes what SOURCES makes of the name; on GitHub it is not seen.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service import catalog
from service.planning.describe import Parameter, fields

ROOT = Path(__file__).parent.parent
MARKER = re.compile(r"^<!-- (\w+) of ([\w.:/-]+) -->$", re.M)
LONGEST = 60  # characters of a default; a whole section of them is told by its own fields


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page."""
    return MARKER.sub(lambda marker: SOURCES[marker[1]](marker[2]), markdown)


def about(study: str) -> str:
    """What a study says of itself: the docstring of its job, with its metrics and sources."""
    return re.sub(r"(?<!\n)\n(?=    \S)", "\n\n", catalog.load(study).about, count=1)


def parameters(study: str) -> str:
    """All parameters of a study."""
    return table(list(fields(catalog.load(study).params, "params.")))


def settings(place: str) -> str:
    """All fields of a class of settings, `module:Class`."""
    module, _, name = place.partition(":")
    return table([each for each in fields(getattr(importlib.import_module(module), name)) if each.name != "params"])


def table(rows: list[Parameter]) -> str:
    lines = ["| field | type, bounds, default | meaning |", "| --- | --- | --- |"]
    for row in rows:
        default = row.default if len(row.default) <= LONGEST else "default: see its fields"
        facts = [row.type, row.bounds, default, row.only_if and f"only with {row.only_if}"]
        lines.append(f"| `{row.name}` | {escaped('; '.join(filter(None, facts)))} | {escaped(row.description)} |")
    return "\n".join(lines)


def specs(folder: str) -> str:
    """The specs in a folder of configs/: what each costs and the first paragraph of its header."""
    lines = ["| spec | takes | what it shows |", "| --- | --- | --- |"]
    for file in sorted((ROOT / "configs" / folder).glob("*.yaml")):
        first, _, paragraph = header(file)
        cost = first.partition(".yaml")[2].strip().rpartition("  ")[2].strip()
        lines.append(f"| `{file.name}` | {escaped(cost)} | {escaped(paragraph)} |")
    return "\n".join(lines)


def header(file: Path) -> tuple[str, str, str]:
    """The comment that a spec opens with: its command, an empty line, what it shows."""
    lines = []
    for line in file.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return lines[0], lines[1], " ".join(lines[2:])


def file(path: str) -> str:
    """A file at the top of the repository. Its links to pages and to other such files become links between pages."""
    text = (ROOT / path).read_text().replace("](docs/", "](")
    return re.sub(r"\]\(([A-Z]+)\.md\)", lambda link: f"]({link[1].lower()}.md)", text)


def rooms(package: str) -> str:
    """The rooms of a package, one line each: modules at its top, then folders."""
    lines = ["| room | holds |", "| --- | --- |"]
    for place in public(package):
        lines.append(f"| `{place}` | {escaped(first_sentence(place))} |")
    return "\n".join(lines)


def modules(package: str) -> str:
    """The reference of every module and package directly below a package."""
    return "\n\n".join(f"## {place}\n\n::: {place}" for place in public(package))


def public(package: str) -> list[str]:
    """Modules and packages directly below a package."""
    below = pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}.")
    return [each.name for each in below if not each.name.rpartition(".")[2].startswith("_")]


def first_sentence(place: str) -> str:
    """The first sentence of what a module says of itself."""
    text = inspect.getdoc(importlib.import_module(place)) or ""
    return " ".join(re.split(r"\n\n|(?<=\.)\s", text)[0].split())


def escaped(text: str) -> str:
    """As a cell of a table shows it."""
    return re.sub(r"([|*<_])", lambda sign: f"&#{ord(sign[1])};", text)


SOURCES: dict[str, Callable[[str], str]] = {
    "about": about,
    "parameters": parameters,
    "settings": settings,
    "specs": specs,
    "file": file,
    "rooms": rooms,
    "modules": modules,
}
