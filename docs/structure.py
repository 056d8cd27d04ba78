"""Draws docs/structure.svg, the rooms and who imports whom, from the code itself. `make docs` runs it.

Nothing is imported: the files are parsed, so the picture shows what is written, also what is imported late.
"""

import ast
import html
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "structure.svg"
PACKAGES = ("serving", "jobs", "service")
FLAT = ("serving", "jobs.common", "service")
"""packages with modules beside their rooms"""

WIDTH, MARGIN, GAP = 1160, 24, 14
COLUMNS = 4
LINE, CHARACTERS = 15, 39  # height of a line of small print, and how many characters one holds
COLOURS = {"serving": "#D55E00", "jobs": "#009E73", "service": "#0072B2"}


@dataclass
class Room:
    """A folder of modules, or the modules at the top of a package. path: with dots."""

    path: str
    title: str
    about: str
    imports: set[str] = field(default_factory=set)
    """paths of other rooms"""
    imports_ray: bool = False


def rooms() -> dict[str, Room]:
    """Every room by its path, in the order in which it is drawn."""
    known: dict[str, Room] = {}
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    for file in files:
        path = room_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
        if path not in known:
            known[path] = Room(path, title_of(path), about(path))
        for module in imported(file):
            if module.split(".")[0] == "ray":
                known[path].imports_ray = True
            elif module.split(".")[0] in PACKAGES and room_of(module) != path:
                known[path].imports.add(room_of(module))
    return {path: room for path, room in known.items() if path != "jobs"}


def imported(file: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def room_of(module: str) -> str:
    """The room that a module is in: the folder at depth 1, or below jobs/common at depth 2."""
    parts = module.split(".")
    depth = 3 if parts[:2] == ["jobs", "common"] else 2
    folders = [part for end, part in enumerate(parts[:depth], 1) if (ROOT / Path(*parts[:end])).is_dir()]
    return ".".join(folders)


def title_of(path: str) -> str:
    """The name of a room, as its folder is called."""
    if path in FLAT:
        return f"{path.replace('.', '/')}/*.py"
    return f"{path.rpartition('.')[2]}/"


def about(path: str) -> str:
    """What a room holds: the first sentence of its package. Of the top of a package: the names of its modules."""
    folder = ROOT / Path(*path.split("."))
    if path in FLAT:
        return ", ".join(file.stem for file in sorted(folder.glob("[!_]*.py")))
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    return " ".join(text.split("\n\n")[0].split()).partition(". ")[0].rstrip(".").replace("`", "")


def picture() -> str:
    """The whole picture as SVG."""
    known = rooms()
    studies = [room for path, room in known.items() if path.startswith("jobs.") and not within(path, "jobs.common")]
    panels = [
        ("serving", "serving/", "the endpoints", [room for path, room in known.items() if within(path, "serving")]),
        ("jobs", "jobs/", "the science, one folder a study; none imports another", studies),
        ("jobs", "jobs/common/", "what studies share", [known[path] for path in known if within(path, "jobs.common")]),
        ("service", "service/", "the job service", [room for path, room in known.items() if within(path, "service")]),
    ]
    shapes: list[str] = []
    y = MARGIN
    for package, title, subtitle, members in panels:
        drawn, height = panel(package, title, subtitle, members, y)
        shapes += drawn
        if (package, title) != ("service", "service/"):
            shapes.append(arrow(y + height))
        y += height + 34
    notes = [
        "Imports run downwards only. The service reaches jobs/ and serving/ by name alone: jobs through the catalogue,",
        "the endpoints when `assay serve` starts them. Grey print: the other rooms that a room imports.",
    ]
    for line in notes:
        shapes.append(text(MARGIN, y, line, size=12, colour="#555555"))
        y += 18
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img" '
        f'font-family="system-ui, sans-serif">\n<title>The rooms of Assay and who imports whom</title>\n'
        f'<rect width="{WIDTH}" height="{y}" fill="white"/>\n' + "\n".join(shapes) + "\n</svg>\n"
    )


def panel(package: str, title: str, subtitle: str, members: list[Room], top: int) -> tuple[list[str], int]:
    """A frame with its rooms in rows. Returns the shapes and the height."""
    width = (WIDTH - 2 * MARGIN - (COLUMNS + 1) * GAP) // COLUMNS
    colour = COLOURS[package]
    shapes: list[str] = []
    y = top + 40
    for start in range(0, len(members), COLUMNS):
        row = [(room, lines_of(room)) for room in members[start : start + COLUMNS]]
        height = max(34 + LINE * len(lines) for _, lines in row)
        for place, (room, lines) in enumerate(row):
            shapes += box(room, lines, MARGIN + GAP + place * (width + GAP), y, width, height, colour)
        y += height + GAP
    frame = [
        f'<rect x="{MARGIN}" y="{top}" width="{WIDTH - 2 * MARGIN}" height="{y - top}" rx="8" fill="{colour}" '
        f'fill-opacity="0.07" stroke="{colour}"/>',
        text(MARGIN + GAP, top + 25, title, size=16, colour=colour, bold=True),
        text(MARGIN + GAP + 11 * len(title), top + 25, subtitle, size=13, colour="#333333"),
    ]
    return frame + shapes, y - top


def lines_of(room: Room) -> list[tuple[str, str]]:
    """The small print of a room: (line, colour)."""
    lines = [(line, "#333333") for line in textwrap.wrap(room.about, CHARACTERS)]
    others = ", ".join(sorted(short(path, room.path) for path in room.imports))
    return lines + [(line, "#8a8a8a") for line in textwrap.wrap(f"→ {others}" if others else "", CHARACTERS)]


def short(path: str, seen_from: str) -> str:
    """A room as another one names it: without what both begin with."""
    own = [package for package in ("jobs.common", "serving", "service") if within(seen_from, package)]
    if own and path == own[0]:
        return "*.py"
    if path == "service":
        return "service"
    for package in (*own, "jobs.common"):
        path = path.removeprefix(f"{package}.")
    return path.replace("jobs.common", "common").removeprefix("jobs.").replace(".", "/")


def box(
    room: Room, lines: list[tuple[str, str]], x: int, y: int, width: int, height: int, colour: str
) -> Iterator[str]:
    yield f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5" fill="white" stroke="{colour}"/>'
    yield text(x + 10, y + 20, room.title, size=13, colour="#111111", bold=True)
    if room.imports_ray:
        yield (
            f'<rect x="{x + width - 42}" y="{y + 8}" width="32" height="16" rx="8" fill="#111111"/>'
            + text(x + width - 26, y + 20, "Ray", size=11, colour="white", anchor="middle")
        )
    for number, (line, shade) in enumerate(lines):
        yield text(x + 10, y + 38 + LINE * number, line, size=11.5, colour=shade)


def arrow(top: int) -> str:
    """From the panel that ends here to the next one."""
    x = WIDTH // 2
    return f'<path d="M{x} {top + 3} v20 m-6 -7 l6 7 l6 -7" fill="none" stroke="#333333" stroke-width="1.6"/>'


def text(x: float, y: float, words: str, size: float, colour: str, bold: bool = False, anchor: str = "start") -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{colour}" text-anchor="{anchor}"{weight}>'
        f"{html.escape(words)}</text>"
    )


def within(path: str, package: str) -> bool:
    return path == package or path.startswith(f"{package}.")


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
