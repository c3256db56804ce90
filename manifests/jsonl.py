"""The authoring form: JSON Lines, one object a line, views relative to the manifest's folder."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.files import locked, write_whole
from gaussianverse.manifests.schema import FIELDS, Row, faults_of, row_from


class Line(NamedTuple):
    """A row and the number of its line, from 1."""

    number: int
    row: Row


class Fault(NamedTuple):
    """What is wrong on a line; line 0 is the whole file."""

    number: int
    message: str


def describe(path: Path, faults: Iterable[Fault]) -> list[str]:
    """Faults in the order of their lines, each as "<path>:<line>: <message>"."""
    ordered = sorted(faults, key=lambda fault: fault.number)
    return [
        f"{path}:{fault.number}: {fault.message}" if fault.number else f"{path}: {fault.message}"
        for fault in ordered
    ]


def parse(path: Path) -> tuple[list[Line], list[Fault]]:
    """The well-formed rows of a manifest, and every fault of its text.

    Blank lines are skipped. Rows with bad values or duplicate uids are both returned and named as faults.

    Raises:
        ManifestError: the file cannot be read.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error
    lines: list[Line] = []
    faults: list[Fault] = []
    first: dict[str, int] = {}
    for number, raw in enumerate(text.split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            row = row_from(_entries(raw))
        except ManifestError as error:
            faults += [Fault(number, message) for message in error.faults]
            continue
        lines.append(Line(number, row))
        faults += [Fault(number, message) for message in faults_of(row)]
        if first.setdefault(row.uid, number) != number:
            faults.append(Fault(number, f"duplicate uid {row.uid!r}, first on line {first[row.uid]}"))
    if not lines and not faults:
        faults.append(Fault(0, "the manifest is empty; it needs one JSON object a line"))
    return lines, faults


def _entries(raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            raise ManifestError(f"the same key twice among {', '.join(key for key, _ in pairs)}")
        return entries

    try:
        value = json.loads(raw, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"invalid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ManifestError(f"expected a JSON object, got {type(value).__name__}")
    return value


def read(path: Path) -> list[Row]:
    """All rows of a manifest, in its order; `views` as they are written there.

    Raises:
        ManifestError: any fault of `parse`, all of them at once.
    """
    lines, faults = parse(path)
    if faults:
        raise ManifestError(describe(path, faults))
    return [line.row for line in lines]


def resolve_views(rows: Iterable[Row], folder: Path) -> list[Row]:
    """The rows with paths made absolute, relative ones being relative to `folder`; URLs stay."""
    root = folder.resolve()
    return [
        row if "://" in row.views else replace(row, views=os.path.normpath(root / row.views)) for row in rows
    ]


def dumps(row: Row) -> str:
    """One line without its end; empty fields but the caption are left out."""
    entries = {key: value for key, value in asdict(row).items() if key in FIELDS}
    kept = {key: value for key, value in entries.items() if value or key == "caption"}
    return json.dumps(kept, ensure_ascii=False)


def write(path: Path, rows: Iterable[Row]) -> None:
    """Writes a manifest whole or not at all.

    Raises:
        ManifestError: no rows.
        OSError: the place cannot be written.
    """
    text = "".join(dumps(row) + "\n" for row in rows)
    if not text:
        raise ManifestError(f"{path}: no rows to write")
    write_whole(path, text.encode())


def append(path: Path, row: Row) -> None:
    """Adds a row to a manifest, which need not exist yet; several processes may, at once.

    Raises:
        ManifestError: what `extended` raises.
        OSError: the place cannot be written.
    """
    with locked(path):
        write(path, extended(path, row))


def extended(path: Path, row: Row) -> list[Row]:
    """The rows of a manifest, which need not exist yet, and one more.

    Raises:
        ManifestError: the row or the manifest has faults, or the uid is there already.
    """
    rows = read(path) if path.exists() else []
    faults = faults_of(row)
    if any(other.uid == row.uid for other in rows):
        faults.append(f"duplicate uid {row.uid!r}")
    if faults:
        raise ManifestError(f"{path}: {fault}" for fault in faults)
    return [*rows, row]
