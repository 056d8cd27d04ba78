"""Where runs and models live: a folder on any file system that pyarrow or fsspec speaks.

A write is whole or absent: on a local disk written aside, flushed and renamed; on an object store one put, which such
stores make atomic.
"""

import contextlib
import errno
import io
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from pyarrow import fs

from service import json_text
from service.errors import StoreError, first_line
from service.formatting import encodable

_PART = re.compile(r"[^/\\\x00]+")
_ASIDE = ".aside-"  # how the name of a file begins while it is being written


def open_store(uri: str) -> "Folder":
    """The store at a folder path (`runs`, `/data/assay`) or URI (`file://…`, `s3://bucket/prefix`, `memory://…`).

    The folder need not exist yet: the first write makes it. Raises StoreError if the URI is not understood.
    """
    if encodable(uri) != uri or "\0" in uri:
        raise StoreError(f"store: {encodable(uri)!r} has characters that are not text")
    if re.match(r"[a-z][a-z0-9+]*:/(?!/)", uri):
        raise StoreError(f"store: {uri!r} is neither a folder nor a URI", hint="a URI has two slashes after the colon")
    if "://" not in uri:
        try:
            return Folder(fs.LocalFileSystem(), str(Path(uri).expanduser().absolute()), "")
        except RuntimeError as error:
            raise StoreError(f"store: {uri!r} begins with the home of nobody who is known here") from error
    if "#" in uri or (uri.startswith("file:") and "?" in uri):  # pyarrow would leave out what follows
        raise StoreError(f"store: {uri!r} must have no # and, for files, no ?", hint="write %23, %3F or a plain path")
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
        return Folder(filesystem, path.rstrip("/"), "" if isinstance(filesystem, fs.LocalFileSystem) else uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, OSError):
        pass  # not one of pyarrow's own: fsspec may know it
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError, OSError) as error:
        raise StoreError(f"store: {uri!r} cannot be opened: {error}") from error
    return Folder(fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path.rstrip("/"), uri)


class Folder:
    """A folder of a store and all that is below it. Nothing outside of the store can be reached through it.

    A symbolic link that leads out of the store, in which somebody else's may differ from one's own, is neither followed
    nor there; the store itself may be behind one. A folder that was opened by itself is a store of its own.

    uri: opens the same folder in another process; of a local one it is the path. fs, path: the pyarrow file system and
    the place on it. root: the path of the store; none: this folder is the store.
    """

    def __init__(self, filesystem: fs.FileSystem, path: str, uri: str, root: str | None = None) -> None:
        self.fs, self.path = filesystem, path
        self.uri = uri or path
        self._root = root or path
        self._local = isinstance(filesystem, fs.LocalFileSystem)

    def __repr__(self) -> str:
        return f"Folder({self.uri!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.uri,)

    def __truediv__(self, name: str) -> "Folder":
        """A folder below this one."""
        return Folder(self.fs, self._at(name), self.uri_of(name), self._root)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    def uri_of(self, name: str) -> str:
        """Where a file below is, as a user or another program names it."""
        if self._local:  # where a question mark is part of a name
            return self._at(name)
        base, question, query = self.uri.partition("?")
        return f"{base.rstrip('/')}/{_safe(name)}{question}{query}"

    def _at(self, name: str) -> str:
        return f"{self.path}/{_safe(name)}"

    def _leads_out(self, path: str) -> bool:
        """Whether a symbolic link on the way leads out of the store."""
        if not self._local:
            return False
        root = os.path.realpath(self._root)
        return os.path.commonpath([root, os.path.realpath(path)]) != root

    def _inside(self, name: str | None = None) -> str:
        """The path of a file or folder below, or of this one, to do something with it."""
        path = self.path if name is None else self._at(name)
        if self._leads_out(path):
            raise StoreError(f"{path} is behind a symbolic link that leads out of the store")
        return path

    @contextlib.contextmanager
    def _said(self, what: str, name: str | None = None) -> Iterator[None]:
        """Turn whatever a file system raises into one sentence."""
        try:
            yield
        except (OSError, ValueError, pa.ArrowException) as error:
            place = self.uri_of(name) if name else self.uri
            raise StoreError(f"cannot {what} {place}: {_reason(error)}") from error

    def read(self, name: str) -> bytes:
        """The whole file. StoreError if it is absent or unreadable."""
        with self._said("read", name), self.fs.open_input_stream(self._inside(name)) as stream:
            data: bytes = stream.read()
        return data

    def write(self, name: str, data: bytes) -> None:
        """Replace the file: afterwards it is whole, or what it was."""
        with self._said("write", name):
            path = self._inside(name)
            if self._local:
                aside = self._write_aside(path, data)
                os.replace(aside, path)
            else:
                with self.fs.open_output_stream(path) as stream:
                    stream.write(data)

    def create(self, name: str, data: bytes) -> bool:
        """Write the file only if it is absent; False if it is there.

        Exclusive on a local disk; one without hard links may show the file empty for a moment. An object store has no
        such operation here: two that create the same file within the same moment may both go on, so what is created is
        read back.
        """
        with self._said("write", name):
            path = self._inside(name)
            if self._local:
                aside = self._write_aside(path, data)
                try:
                    _name_once(aside, path)
                except FileExistsError:
                    return False
                finally:
                    _discard(aside)
                return True
        if self.exists(name):
            return False
        self.write(name, data)
        return self.read(name) == data

    def _write_aside(self, path: str, data: bytes) -> str:
        folder, _, name = path.rpartition("/")
        os.makedirs(folder, exist_ok=True)
        aside = f"{folder}/{_ASIDE}{uuid.uuid4().hex[:12]}"
        try:
            with open(aside, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            _discard(aside)
            raise
        return aside

    def exists(self, name: str) -> bool:
        path = self._at(name)
        with self._said("look for", name):
            info = self.fs.get_file_info(path)
        return bool(info.type != fs.FileType.NotFound) and not self._leads_out(path)

    def names(self) -> list[str]:
        """Files and folders directly below, sorted; none if the folder is absent."""
        return sorted(name for name, _ in self._listed(recursive=False))

    def folders(self) -> list[str]:
        """Folders directly below, sorted; none if the folder is absent."""
        return sorted(name for name, kind in self._listed(recursive=False) if kind == fs.FileType.Directory)

    def files(self) -> list[str]:
        """Paths of all files below, relative to this folder, sorted."""
        return sorted(name for name, kind in self._listed(recursive=True) if kind == fs.FileType.File)

    def _listed(self, recursive: bool) -> list[tuple[str, fs.FileType]]:
        """Relative paths, each with what is there."""
        if self._leads_out(self.path):
            return []
        selector = fs.FileSelector(self.path, allow_not_found=True, recursive=recursive)
        with self._said("list"):
            try:
                infos = self.fs.get_file_info(selector)
            except FileNotFoundError:  # the folder was made just after pyarrow had not found it
                infos = self.fs.get_file_info(selector)
        found = [(info.path[len(self.path) :].lstrip("/"), info.type) for info in infos]
        return [(name, kind) for name, kind in found if not name.rpartition("/")[2].startswith(_ASIDE)]

    def size(self, name: str) -> int:
        """Bytes of a file."""
        with self._said("look for", name):
            info = self.fs.get_file_info(self._inside(name))
            if info.type != fs.FileType.File:
                raise FileNotFoundError(errno.ENOENT, "no such file")
        return int(info.size)

    def delete(self, name: str | None = None) -> None:
        """Remove a file or a folder below, or (None) this folder itself. What is absent is fine."""
        with self._said("delete", name):
            path = self._inside(name)
            match self.fs.get_file_info(path).type:
                case fs.FileType.Directory:
                    self.fs.delete_dir(path)
                case fs.FileType.File:
                    self.fs.delete_file(path)

    def read_json(self, name: str) -> Any:
        try:
            return json_text.loads(self.read(name))
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{self.uri_of(name)} is damaged: not JSON") from error

    def write_json(self, name: str, value: Any) -> None:
        self.write(name, json_text.dumps(value, indent=2).encode())

    def read_table(self, name: str) -> pa.Table:
        try:
            return pyarrow.parquet.read_table(io.BytesIO(self.read(name)))
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"{self.uri_of(name)} is damaged: not a parquet table") from error

    def read_rows(self, name: str, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The rows of a table, or these columns of them. StoreError if it lacks one, or holds what Python has not."""
        return plain_rows(self.read_table(name), self.uri_of(name), columns)

    def write_table(self, name: str, table: pa.Table) -> None:
        data = io.BytesIO()
        pyarrow.parquet.write_table(table, data)
        self.write(name, data.getvalue())

    def check(self) -> None:
        """StoreError, one sentence, if this folder cannot be written and read."""
        name = f"check-{uuid.uuid4().hex[:12]}"
        self.write(name, name.encode())
        try:
            if self.read(name) != name.encode():
                raise StoreError(f"{self.uri} does not give back what was written to it")
        finally:
            self.delete(name)


def plain_rows(table: pa.Table, place: str, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a table as Python's values. place: of the table, for the sentence about one that cannot be read."""
    try:
        rows: list[dict[str, Any]] = (table if columns is None else table.select(columns)).to_pylist()
    except Exception as error:  # texts that are none, days beyond the calendar, zones that nobody knows, no such column
        raise StoreError(f"{place} is damaged: {first_line(error)}") from error
    return rows


def _name_once(aside: str, path: str) -> None:
    """Give a file its name. FileExistsError if the name is taken."""
    try:
        os.link(aside, path)
    except FileExistsError:
        raise
    except OSError:  # exFAT, SMB and many file systems in user space know no hard links
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # whoever makes it owns the name
        try:
            os.replace(aside, path)
        except OSError:
            os.unlink(path)
            raise


def _discard(aside: str) -> None:
    """Remove what was written aside, and a folder that was made for it alone."""
    with contextlib.suppress(OSError):
        os.unlink(aside)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(aside))  # which fails if there is anything in it


def _safe(name: str) -> str:
    """The relative path, if none of its parts leads out of the folder."""
    parts = name.split("/")
    if not all(_PART.fullmatch(part) and part not in (".", "..") for part in parts):
        raise StoreError(f"{name!r} is not a name inside the store")
    return "/".join(parts)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
