"""Files that are joined, and lists of what is kept or dropped: opened, checked, matched with a manifest's rows."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from gaussianverse.manifests import tables
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.keys import UID, Names
from gaussianverse.manifests.matching import Match, match
from gaussianverse.manifests.schema import LISTS, TEXTS, is_column

JOIN, KEEP, DROP = "join", "keep", "drop"
_DROP = "drop"
"""Column of the list that `gaussianverse duplicates` writes: whether the object is to be dropped."""
OWN = ("category", "license", "caption", "caption_source", "source_id", "split", "attribution", *LISTS)
"""Columns of the dataset that a file may give."""
CAPTIONS = ("caption", "captions", "caption_source", "caption_sources")


@dataclass
class Given:
    """A file that is joined, or a list of what is kept or dropped.

    Attributes:
        path: the file.
        use: `JOIN`, `KEEP` or `DROP`.
        on: COLUMN or LEFT=RIGHT; for lists "" is the column uid, or the only one.
        take: NAME or NAME=COLUMN for each column to join; empty takes all but the key.
        text: columns of a CSV that are texts whatever they look like.
        caption_source: source of its captions where it does not say.
    """

    path: Path
    use: str = JOIN
    on: str = ""
    take: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    caption_source: str = ""


@dataclass
class File:
    """A file that was read and matched.

    Attributes:
        given: which file, and what is wanted of it.
        match: its rows for each object.
        columns: what is joined, by the names in the manifest; none for lists.
    """

    given: Given
    match: Match
    columns: dict[str, pa.ChunkedArray] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """How many objects it names, and what did not match in each direction."""
        found = {"matched": self.match.matched, "not_in_manifest": len(self.match.strange)}
        return found | ({"not_in_file": len(self.match.key_of) - self.match.matched} if self.columns else {})


def opened(given: Given, names: Names) -> File:
    """Read a file and match it with the rows whose names these are; raises ManifestError, as `joining.build`."""
    left, equals, right = given.on.rpartition("=")
    taken = _taken_by_name(given)
    own = {*TEXTS, *(column for name, column in taken.items() if name in TEXTS)}
    wanted = {right, *taken.values()} if taken else {right, _DROP} if given.use != JOIN and right else ()
    table = tables.read(given.path, {*given.text, right, *own}, wanted)  # keys and captions may look like numbers
    if not len(table.column_names) or (given.use == JOIN and not len(table)):
        raise ManifestError(f"{given.path}: no rows")
    if given.use != JOIN:
        table, right = _list_of(given, table, right, names)
    elif not right:
        raise ManifestError(
            f"{given.path}: --on says which of its columns has the keys: {', '.join(table.column_names)}"
        )
    if equals and left not in names:
        raise ManifestError(f"--on {given.on}: {left!r} is no column of the manifest")
    keys = tables.column(table, right, given.path)
    taken = _taken(given, table, right)
    several = given.use != JOIN or (bool(taken) and set(taken) <= set(CAPTIONS))
    found = File(given, match(names, keys, given.path, left, several=several))
    if given.use == JOIN and not found.match.matched:
        one, other = (next(iter(values), "") for values in (found.match.keys.to_pylist(), names[UID].to_pylist()))
        raise ManifestError(
            f"{given.path}: none of its {len(found.match.keys)} keys, such as {one!r}, names an object, such as "
            f"{other!r}; pass --on LEFT=RIGHT, or --map a file that has both names"
        )
    for name, column in taken.items():
        values = _checked(name, tables.column(table, column, given.path), given)
        found.columns[name] = pa.chunked_array([values.combine_chunks()])
    return found


def _list_of(given: Given, table: pa.Table, right: str, names: Names) -> tuple[pa.Table, str]:
    """The rows that a list of --keep or --drop means, and its column of keys."""
    if _DROP in table.column_names and pa.types.is_boolean(table[_DROP].type):
        if given.use == KEEP:
            raise ManifestError(f"{given.path}: a list of what to drop, as its column 'drop' says; pass it to --drop")
        table = table.filter(table[_DROP])
    if right:
        return table, right
    right = UID if UID in table.column_names else table.column_names[0]
    if right != UID and len(table.column_names) > 1:
        raise ManifestError(
            f"{given.path}: several columns and no 'uid'; --on says which has the keys: "
            + ", ".join(table.column_names)
        )
    if pc.index(names[UID], right).as_py() >= 0:
        raise ManifestError(
            f"{given.path}: its first line, {right!r}, is a key; put the header 'uid' before it, or call it .txt"
        )
    return table, right


def _taken_by_name(given: Given) -> dict[str, str]:
    """{name in the manifest: column of the file} of --take."""
    taken: dict[str, str] = {}
    for one in given.take:
        name, _, column = one.partition("=")
        if name in taken:
            raise ManifestError(f"{given.path}: --take gives {name!r} twice")
        taken[name] = column or name
    return taken


def _taken(given: Given, table: pa.Table, key: str) -> dict[str, str]:
    """{name in the manifest: column of the file} of what is joined."""
    if given.use != JOIN:
        return {}
    taken = _taken_by_name(given) or {name: name for name in table.column_names if name != key}
    if given.path.suffix.lower() == ".json" and not given.take and list(taken) == [tables.VALUE]:
        raise ManifestError(f"{given.path}: an object of values by key; --take NAME=value says what they are")
    faults = [
        f"{given.path}: column {name!r} is reserved or no name of a column; --take says which columns to join, and "
        "--take NAME=COLUMN gives one another name"
        for name in taken
        if name not in OWN and not is_column(name)
    ]
    if not taken:
        faults.append(f"{given.path}: no column beside the key {key!r}")
    if taken and set(taken) <= {"caption_source", "caption_sources"}:
        faults.append(f"{given.path}: sources of captions without captions; --take the captions too")
    if faults:
        raise ManifestError(faults)
    return taken


def _checked(name: str, values: pa.ChunkedArray, given: Given) -> pa.ChunkedArray:
    """A column that is joined, of a type that its name allows; a CSV has lists of captions as JSON."""
    if name in LISTS and pa.types.is_string(values.type):
        try:
            lists = [
                None if text is None else json.loads(text) if text[:1] == "[" else [text]
                for text in values.to_pylist()
            ]
            return pa.chunked_array([pa.array(lists, pa.list_(pa.string()))])
        except (ValueError, pa.ArrowException) as error:
            raise ManifestError(f"{given.path}: column {name!r}: no JSON list of texts: {error}") from error
    is_list = pa.types.is_list(values.type)
    if is_list != (name in LISTS) or (name in TEXTS and not pa.types.is_string(values.type)):
        expected = "lists of texts" if name in LISTS else "texts" if name in TEXTS else "no lists"
        raise ManifestError(f"{given.path}: column {name!r} has {values.type}, expected {expected}")
    return values


def check_columns(files: Iterable[File]) -> None:
    """Refuse a column that comes from two files, but for captions, which follow each other."""
    first: dict[str, Path] = {}
    for file in files:
        for name in file.columns:
            if name not in CAPTIONS and first.setdefault(name, file.given.path) is not file.given.path:
                raise ManifestError(
                    f"column {name!r} comes from {first[name]} and from {file.given.path}; --take one, or give one "
                    "another name by --take NAME=COLUMN"
                )
