"""Lists of meshes to render: a path a line, CSV with a header, or JSON Lines."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gaussianverse.manifests import jsonl
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.files import read_bytes
from gaussianverse.manifests.schema import LISTS, Row
from gaussianverse.manifests.table import Entry, checked


class Listed(NamedTuple):
    """A mesh and the row that its object gets, whose `views` is the uid."""

    mesh: Path
    row: Row


def read(path: Path) -> list[Listed]:
    """Read a list of meshes.

    CSV (.csv) and JSON Lines (.jsonl) have the column `mesh`, and may have `uid`, the other fields of a manifest's
    row, and columns of their author. Every other file is a path a line. Paths are relative to the list's folder.
    Where there is no uid, it is the name of the mesh, with _ for characters that a uid cannot have.

    Raises:
        ManifestError: the list cannot be read, is empty, or has faults; lists all of them.
    """
    parsers = {".csv": _csv, ".jsonl": jsonl.entries}
    meshes: dict[int, str] = {}
    entries = list(_rows(parsers.get(path.suffix.lower(), _lines)(path), meshes))
    if not entries:
        raise ManifestError(f"{path}: no meshes in it")
    found = checked(entries)
    if found.faults:
        raise ManifestError(jsonl.describe(path, found.faults))
    return [Listed(path.parent / meshes[line.number], line.row) for line in found.lines]


def uid_of(mesh: Path) -> str:
    """The name of a mesh, with _ for characters that a uid cannot have."""
    return re.sub("[^A-Za-z0-9_-]", "_", mesh.stem)


def _rows(entries: Iterator[Entry], meshes: dict[int, str]) -> Iterator[Entry]:
    """Entries of a manifest made of those of a list; puts each mesh into `meshes` under its line."""
    for number, entry in entries:
        if isinstance(entry, ManifestError):
            yield number, entry
            continue
        row: dict[str, Any] = dict(entry)
        mesh = row.pop("mesh", "")
        if not isinstance(mesh, str) or not mesh:
            yield number, ManifestError("no 'mesh', the path of a mesh")
            continue
        own = sorted({"views", "format"} & set(row))
        if own:
            yield (
                number,
                ManifestError(f"{' and '.join(map(repr, own))} of a mesh that is yet to be rendered; remove it"),
            )
            continue
        meshes[number] = mesh
        uid = row.pop("uid", "") or uid_of(Path(mesh))
        yield number, {**row, "uid": uid, "views": str(uid), "format": "gobjaverse"}


def _lines(path: Path) -> Iterator[Entry]:
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if line.strip():
            yield number, {"mesh": line.strip()}


def _csv(path: Path) -> Iterator[Entry]:
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        if twice := sorted({name for name in reader.fieldnames or () if (reader.fieldnames or ()).count(name) > 1}):
            raise ManifestError(f"{path}: its header has {', '.join(map(repr, twice))} twice; remove one")
        for row in reader:
            if None in row or None in row.values():
                yield (
                    reader.line_num,
                    ManifestError(f"expected {len(reader.fieldnames or ())} columns, as the header has"),
                )
            else:
                yield reader.line_num, {key: value for key, value in row.items() if value or key not in LISTS}
    except csv.Error as error:
        raise ManifestError(f"{path}:{reader.line_num}: invalid CSV: {error}") from error


def _text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: is not UTF-8 text: {error}") from error
