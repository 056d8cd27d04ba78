"""What of the current folder a submitted run takes along: what `.gitignore` and `.rayignore` leave, as one zip file."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pathspec import GitIgnoreSpec

from service.cluster import launcher
from service.errors import InputError, TooLargeError, first_line
from service.formatting import encodable

MOST_BYTES = 100 << 20  # Ray's head refuses a larger upload (ray._private.ray_constants.DASHBOARD_CLIENT_MAX_SIZE)
IGNORE_FILES = (".gitignore", ".rayignore")
NEVER = (".git/", "__pycache__/", ".venv*/", "/assay-store/")
SPEC = "assay-spec.yaml"  # where the run's spec is in the zip
LAUNCHER = "assay-launcher.py"  # where what starts the run is in the zip
_DATE = (1980, 1, 1, 0, 0, 0)  # of all entries: the same files make the same zip, and Ray uploads it once


def pack(folder: Path, target: Path, spec: bytes | None) -> None:
    """Write the folder's files, and the spec and the launcher beside them, into the zip `target`.

    TooLargeError names the largest file if they are too many for Ray.
    """
    sizes = {path: (folder / path).stat().st_size for path in sorted(files(folder))}
    for path in sizes:
        if (readable := encodable(path)) != path:
            raise InputError(
                f"the name of a file to be shipped must be text; it is {readable!r}",
                hint="rename it, or name it in .rayignore",
            )
    if (total := sum(sizes.values())) > MOST_BYTES:
        largest = max(sizes, key=lambda path: sizes[path])
        raise TooLargeError(
            f"the current folder has {total / 2**20:,.0f} MiB to be shipped, the largest file is {largest} "
            f"({sizes[largest] / 2**20:,.0f} MiB); at most {MOST_BYTES >> 20} MiB are allowed",
            hint="name in .rayignore what the run does not need, or submit from another folder",
        )
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sizes:
            _put(archive, path, (folder / path).read_bytes())
        _put(archive, LAUNCHER, Path(launcher.__file__).read_bytes())
        if spec is not None:
            _put(archive, SPEC, spec)


def _put(archive: zipfile.ZipFile, path: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(path, _DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)


def files(folder: Path) -> Iterator[str]:
    """Paths of the files to be shipped, relative to the folder. Links to files count as files, links to folders do not.

    An ignore file rules over its own folder and all below it, as for git: those above count up to the root of the
    repository, unless they ignore the folder itself.
    """
    never = GitIgnoreSpec.from_lines(NEVER)
    above = _repository_folders(folder)
    inside = folder.relative_to(above[0]).as_posix() + "/" if above else ""  # where the folder is in the repository
    rules: list[tuple[str, GitIgnoreSpec]] = []

    def ignored(path: str) -> bool:
        if never.match_file(path):
            return True
        for base, spec in reversed(rules):  # the deepest that has something to say is right
            place = f"{inside}{path}"
            if place.startswith(base) and (verdict := spec.check_file(place[len(base) :]).include) is not None:
                return verdict
        return False

    def read_rules(place: Path, base: str) -> None:
        for name in IGNORE_FILES:
            if (place / name).is_file():
                rules.append((base, _rules_of(place / name)))

    for each in above:
        base = each.relative_to(above[0]).as_posix()
        read_rules(each, "" if base == "." else f"{base}/")
    if ignored(""):
        rules.clear()
    for place, folders, names in os.walk(folder):
        base = "" if (relative := os.path.relpath(place, folder)) == "." else f"{relative}/"
        read_rules(Path(place), f"{inside}{base}")
        folders[:] = [name for name in folders if not ignored(f"{base}{name}/")]
        for name in names:
            if not ignored(f"{base}{name}") and (Path(place) / name).is_file():
                yield f"{base}{name}"


def _rules_of(file: Path) -> GitIgnoreSpec:
    """What an ignore file says. InputError names the line that says nothing."""
    lines = file.read_text(errors="replace").splitlines()
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise InputError(f"{file}: {first_line(error)}", hint="remove the line") from error


def _repository_folders(folder: Path) -> list[Path]:
    """The folders above this one that belong to the same git repository, its root first; none outside of one."""
    if (folder / ".git").exists():
        return []
    above = list(folder.parents)
    roots = [index for index, each in enumerate(above) if (each / ".git").exists()]
    return above[roots[0] :: -1] if roots else []
