"""Manifests in authoring form: JSON Lines, one object a line, views relative to the manifest's folder."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gaussianverse import foreign
from gaussianverse.manifests import parquet
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.files import locked, parse_json, read_bytes, write_whole
from gaussianverse.manifests.schema import LISTS, TEXTS, Row, completed, faults_of, row_from
from gaussianverse.manifests.table import Entry, Fault, Line, checked


def describe(path: Path, faults: Iterable[Fault]) -> list[str]:
    """Format faults as "<path>:<line>: <message>", in the order of lines."""
    ordered = sorted(faults, key=lambda fault: fault.number)
    return [
        f"{path}:{fault.number}: {fault.message}" if fault.number else f"{path}: {fault.message}" for fault in ordered
    ]


def entries(path: Path) -> Iterator[Entry]:
    """Yield the lines of a manifest that are not blank, parsed.

    Raises:
        ManifestError: the file cannot be read.
    """
    for number, raw in enumerate(read_bytes(path).split(b"\n"), start=1):
        if not raw.strip():
            continue
        yield number, entry(raw)


def entry(raw: bytes) -> Mapping[str, Any] | ManifestError:
    """The values of a line by their keys, or the error in reading them."""
    try:
        return _entries(raw)
    except ManifestError as error:
        return error


def parse(path: Path) -> tuple[list[Line], list[Fault]]:
    """Parse a manifest into its well-formed rows and all its faults.

    Blank lines are skipped. Rows with bad values or duplicate uids are returned, and are faults too.

    Raises:
        ManifestError: the file cannot be read.
    """
    found = checked(entries(path))
    return found.lines, found.faults


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


def stream(path: Path) -> Iterator[Row]:
    """Yield the rows of a manifest, JSON Lines or Parquet of any columns, in little memory.

    Only keys and types are checked: uids may repeat, and values may have faults.

    Raises:
        ManifestError: the file cannot be read, or a row is not well-formed.
    """
    found = parquet.entries(read_bytes(path), path.name) if path.suffix == ".parquet" else _streamed(path)
    for number, values in found:
        try:
            if isinstance(values, ManifestError):
                raise values
            row = row_from(values)
        except ManifestError as error:
            raise ManifestError(f"{path}:{number}: {fault}" for fault in error.faults) from error
        yield row


def moved(path: Path, to: Path) -> Iterator[Row]:
    """`stream`, with relative `views` as seen from the folder of another manifest."""
    here, there = path.parent.resolve(), to.parent.resolve()
    for row in stream(path):
        if here != there and "://" not in row.views and not row.views.startswith("/"):
            row = replace(row, views=os.path.relpath(here / row.views, there))
        yield row


def _streamed(path: Path) -> Iterator[Entry]:
    try:
        with foreign.opened(path) as file:
            for number, raw in enumerate(file, start=1):
                if raw.strip():
                    yield number, _entries(raw)
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error


def resolve_views(rows: Iterable[Row], folder: Path) -> list[Row]:
    """Make relative paths absolute, as seen from `folder`; URLs stay."""
    root = folder.resolve()
    return [row if "://" in row.views else replace(row, views=os.path.normpath(root / row.views)) for row in rows]


def dumps(row: Row) -> str:
    """Format a row as one line of JSON; empty fields but the caption, and lists of one caption, are left out."""
    row = completed(row)
    kept = {key: getattr(row, key) for key in TEXTS if getattr(row, key) or key == "caption"}
    if len(row.captions) > 1:
        kept |= {key: getattr(row, key) for key in LISTS}
    return json.dumps({**kept, **row.extras}, ensure_ascii=False)


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
    if any(other.uid.lower() == row.uid.lower() for other in rows):
        faults.append(f"duplicate uid {row.uid!r}")
    if faults:
        raise ManifestError(f"{path}: {fault}" for fault in faults)
    return [*rows, row]
