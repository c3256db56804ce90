"""Manifests in authoring form: JSON Lines, one object a line, views relative to the manifest's folder."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.files import locked, parse_json, read_bytes, write_whole
from gaussianverse.manifests.schema import FIELDS, Row, faults_of, row_from


class Line(NamedTuple):
    """A row and the number of its line, from 1."""

    number: int
    row: Row


class Fault(NamedTuple):
    """A fault of one line; line 0 means the whole file."""

    number: int
    message: str


def describe(path: Path, faults: Iterable[Fault]) -> list[str]:
    """Format faults as "<path>:<line>: <message>", in the order of lines."""
    ordered = sorted(faults, key=lambda fault: fault.number)
    return [
        f"{path}:{fault.number}: {fault.message}" if fault.number else f"{path}: {fault.message}" for fault in ordered
    ]


def parse(path: Path) -> tuple[list[Line], list[Fault]]:
    """Parse a manifest into its well-formed rows and all its faults.

    Blank lines are skipped. Rows with bad values or duplicate uids are returned, and are faults too.

    Raises:
        ManifestError: the file cannot be read.
    """
    lines: list[Line] = []
    faults: list[Fault] = []
    first: dict[str, int] = {}
    for number, raw in enumerate(read_bytes(path).split(b"\n"), start=1):
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
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise ManifestError(f"expected a JSON object, got {type(value).__name__}")
    return value


def read(path: Path) -> list[Row]:
    """Read all rows of a manifest, in its order, with `views` as written.

    Raises:
        ManifestError: the file cannot be read, or has faults; lists all of them.
    """
    lines, faults = parse(path)
    if faults:
        raise ManifestError(describe(path, faults))
    return [line.row for line in lines]


def resolve_views(rows: Iterable[Row], folder: Path) -> list[Row]:
    """Make relative paths absolute, as seen from `folder`; URLs stay."""
    root = folder.resolve()
    return [row if "://" in row.views else replace(row, views=os.path.normpath(root / row.views)) for row in rows]


def dumps(row: Row) -> str:
    """Format a row as JSON without a newline; empty fields except the caption are left out."""
    entries = {key: value for key, value in asdict(row).items() if key in FIELDS}
    kept = {key: value for key, value in entries.items() if value or key == "caption"}
    return json.dumps(kept, ensure_ascii=False)


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write a manifest atomically.

    Raises:
        ManifestError: `rows` is empty.
        OSError: the folder cannot be written.
    """
    text = "".join(dumps(row) + "\n" for row in rows)
    if not text:
        raise ManifestError(f"{path}: no rows to write")
    write_whole(path, text.encode())


def append(path: Path, row: Row) -> None:
    """Append a row to a manifest, which need not exist; safe for several processes at once.

    Raises:
        ManifestError: as `extended` raises.
        OSError: the folder cannot be written.
    """
    with locked(path):
        write(path, extended(path, row))


def extended(path: Path, row: Row) -> list[Row]:
    """Rows of a manifest, which need not exist, and one more.

    Raises:
        ManifestError: the row or the manifest has faults, or the manifest has the uid already.
    """
    rows = read(path) if path.exists() else []
    faults = faults_of(row)
    if any(other.uid == row.uid for other in rows):
        faults.append(f"duplicate uid {row.uid!r}")
    if faults:
        raise ManifestError(f"{path}: {fault}" for fault in faults)
    return [*rows, row]
