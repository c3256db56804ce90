"""Joins other people's files, captions, scores, splits, credits, onto the rows of a manifest; takes lists of keys.

The rows pass by twice, once for their names and once to be completed and written, so that memory holds the files and
not the manifest.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gaussianverse.manifests import jsonl, licenses, tables
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.files import whole_file
from gaussianverse.manifests.keys import FORMS, SOURCE, UID, Names, names_of
from gaussianverse.manifests.matching import Ints, Match, match
from gaussianverse.manifests.schema import LISTS, TEXTS, Row, Scalar, completed, faults_of, is_column
from gaussianverse.manifests.table import kind_of

JOIN, KEEP, DROP = "join", "keep", "drop"
_OWN = ("category", "license", "caption", "caption_source", "source_id", "split", "attribution", *LISTS)
"""Columns of ours that a file may give."""
_CAPTIONS = ("caption", "captions", "caption_source", "caption_sources")
_BATCH = 4096
_MOST_FAULTS = 100
Rows = Callable[[], Iterator[Row]]
"""The rows of a manifest, from the first, whenever it is called."""


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
class _File:
    """A file that was read and matched."""

    given: Given
    match: Match
    columns: dict[str, pa.ChunkedArray] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """How many objects it names, and what did not match in each direction."""
        found = {"matched": self.match.matched, "not_in_manifest": len(self.match.strange)}
        return found | ({"not_in_file": len(self.match.key_of) - self.match.matched} if self.columns else {})


@dataclass(frozen=True)
class Joined:
    """What became of a manifest.

    Attributes:
        objects: number of rows written.
        left_out: number of others, by reason.
        files: by file, how many objects it names (matched), how many of its keys name none (not_in_manifest), and
            how many objects it does not name (not_in_file).
    """

    objects: int
    left_out: dict[str, int]
    files: dict[str, dict[str, int]]


def build(
    out: Path,
    rows: Rows,
    given: Iterable[Given],
    *,
    maps: Iterable[Path] = (),
    defaults: Mapping[str, Scalar] = {},
    wanted: Collection[str] = (),
    unmatched: Path | None = None,
) -> Joined:
    """Write the rows with what files say of their objects. Nothing is written on an error.

    A file's value replaces the row's where the file has one. Captions of several files, or of several rows with one
    key, follow each other.

    Args:
        out: the manifest to write, JSON Lines.
        rows: the rows to complete.
        given: files, in their order.
        maps: files that give objects further names, as gobjaverse_280k_index_to_objaverse.json does.
        defaults: {column: value where a row lacks it}.
        wanted: licences of the rows to write, after the joins; empty takes all.
        unmatched: JSON Lines to write, with one line for each key and each object without a match.

    Raises:
        ManifestError: all that is wrong with a file, or with the rows that it makes.
    """
    given = list(given)
    lefts = {one.on.partition("=")[0] for one in given if "=" in one.on} - {UID, SOURCE, *FORMS}
    names = _names(rows, lefts, {str(path): tables.read(path) for path in maps})
    files = [_opened(one, names) for one in given]
    _check_columns(files)
    keep = np.ones(len(names[UID]), np.bool_)
    left_out = Counter[str]()
    for file in files:
        if file.given.use != JOIN:
            stays = (file.match.key_of >= 0) == (file.given.use == KEEP)
            left_out[f"{'not in' if file.given.use == KEEP else 'in'} {file.given.path.name}"] += int(
                (keep & ~stays).sum()
            )
            keep &= stays
    if not keep.any():
        raise ManifestError("no object is left by --keep and --drop")
    with whole_file(unmatched) if unmatched else nullcontext() as told:
        written, unlicensed = _write(out, rows, [file for file in files if file.columns], keep, defaults, wanted)
        if told:
            told.writelines(line.encode() for line in _unmatched(files, names))
    left_out.update({licenses.described(license): n for license, n in sorted(unlicensed.items())})
    counted: dict[str, dict[str, int]] = {}
    for k, file in enumerate(files):
        name = str(file.given.path)
        counted[name if name not in counted else f"{name} ({k + 1})"] = file.counts()
    return Joined(written, {reason: n for reason, n in left_out.items() if n}, counted)


def _names(rows: Rows, lefts: Collection[str], maps: Mapping[str, pa.Table]) -> Names:
    uids, sources = list[str](), list[str]()
    others: dict[str, list[str | None]] = {left: [] for left in lefts}
    for row in rows():
        uids.append(row.uid)
        sources.append(row.source_id)
        for left, values in others.items():
            value = getattr(row, left) if left in TEXTS else row.extras.get(left)
            values.append(None if value in (None, "") else str(value))
    if not uids:
        raise ManifestError("the manifest is empty; there is nothing to join to")
    found = names_of(pa.array(uids), pc.if_else(pc.equal(sources, ""), None, pa.array(sources)), maps)
    lower = pc.utf8_lower(found[UID])
    if pc.count_distinct(lower).as_py() != len(uids):
        twice = pc.value_counts(lower).filter(pc.greater(pc.value_counts(lower).field("counts"), 1))
        raise ManifestError(f"duplicate uid {twice[0]['values'].as_py()!r}, upper and lower case alike")
    for left, values in others.items():
        if not any(values):
            raise ManifestError(f"--on {left}=..: no row of the manifest has a column {left!r}")
        found[left] = pa.array(values, pa.string())
    return found


def _opened(given: Given, names: Names) -> _File:
    left, equals, right = given.on.rpartition("=")
    taken = _taken_by_name(given)
    own = {*TEXTS, *(column for name, column in taken.items() if name in TEXTS)}
    # keys and captions may look like numbers
    table = tables.read(given.path, {*given.text, right, *own}, {right, *taken.values()} if taken else ())
    if not len(table.column_names) or (given.use == JOIN and not len(table)):
        raise ManifestError(f"{given.path}: no rows")
    if given.use == JOIN and not right:
        raise ManifestError(
            f"{given.path}: --on says which of its columns has the keys: {', '.join(table.column_names)}"
        )
    if given.use != JOIN:
        if "drop" in table.column_names and pa.types.is_boolean(table["drop"].type):
            if given.use == KEEP:
                raise ManifestError(
                    f"{given.path}: a list of what to drop, as its column 'drop' says; pass it to --drop"
                )
            table = table.filter(table["drop"])
        right = right or (UID if UID in table.column_names else table.column_names[0])
        if not given.on and right != UID and len(table.column_names) > 1:
            raise ManifestError(
                f"{given.path}: several columns and no 'uid'; --on says which has the keys: "
                + ", ".join(table.column_names)
            )
        if not given.on and pc.index(names[UID], right).as_py() >= 0:
            raise ManifestError(
                f"{given.path}: its first line, {right!r}, is a key; put the header 'uid' before it, or call it .txt"
            )
    if equals and left not in names:
        raise ManifestError(f"--on {given.on}: {left!r} is no column of the manifest")
    keys = tables.column(table, right, given.path)
    taken = _taken(given, table, right)
    several = given.use != JOIN or (bool(taken) and set(taken) <= set(_CAPTIONS))
    found = _File(given, match(names, keys, given.path, left, several=several))
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


def _taken_by_name(given: Given) -> dict[str, str]:
    """{name in the manifest: column of the file} of --take."""
    return {name: column or name for name, _, column in (one.partition("=") for one in given.take)}


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
        if name not in _OWN and not is_column(name)
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


def _check_columns(files: Iterable[_File]) -> None:
    """Refuse a column that comes from two files, but for captions, which follow each other."""
    first: dict[str, Path] = {}
    for file in files:
        for name in file.columns:
            if name not in _CAPTIONS and first.setdefault(name, file.given.path) is not file.given.path:
                raise ManifestError(
                    f"column {name!r} comes from {first[name]} and from {file.given.path}; --take one, or give one "
                    "another name by --take NAME=COLUMN"
                )


def _write(
    out: Path, rows: Rows, files: list[_File], keep: Any, defaults: Mapping[str, Scalar], wanted: Collection[str]
) -> tuple[int, Counter[str]]:
    """Write the completed rows; returns their number, and that of rows under other licences."""
    written, unlicensed, faults = 0, Counter[str](), list[str]()
    kinds, lacking = dict[str, dict[str, str]](), dict[str, Counter[str]]()
    extras = {name for file in files for name in file.columns if name not in _OWN} | set(defaults)
    there = set[str]()
    with whole_file(out) as sink:
        stream, start = rows(), 0
        while batch := list(islice(stream, _BATCH)):
            stop = start + len(batch)
            for row, kept in zip(_completed(batch, files, start, stop), keep[start:stop], strict=True):
                if not kept:
                    continue
                row = replace(row, extras={**defaults, **row.extras})
                there.add(row.license)
                if wanted and row.license not in wanted:
                    unlicensed[row.license] += 1
                    continue
                for name, value in row.extras.items():
                    kinds.setdefault(name, {}).setdefault(kind_of(value), row.uid)
                for name in extras - set(row.extras):
                    lacking.setdefault(name, Counter())[row.uid] += 1
                faults += [f"object {row.uid!r}: {fault}" for fault in faults_of(row)]
                if len(faults) > _MOST_FAULTS:
                    raise ManifestError(faults)
                sink.write(jsonl.dumps(row).encode() + b"\n")
                written += 1
            start = stop
        licenses.check_wanted(wanted, there)
        faults += _faults_of(kinds, lacking, written)
        if not written and not faults:
            faults.append(f"no object is under {', '.join(wanted)}")
        if faults:
            raise ManifestError(faults)
    return written, unlicensed


def _faults_of(kinds: Mapping[str, Mapping[str, str]], lacking: Mapping[str, Counter[str]], count: int) -> list[str]:
    """Columns with two types, and columns that rows lack."""
    faults = []
    for name, found in kinds.items():
        if len(found) > 1 and set(found) != {"integer", "number"}:
            (one, there), (other, here) = list(found.items())[:2]
            faults.append(f"column {name!r} is {one} for {there!r} and {other} for {here!r}; a column has one type")
    for name, uids in lacking.items():
        faults.append(
            f"column {name!r}: {len(uids)} of {count} objects have no value, such as {next(iter(uids))!r}; --default "
            f"{name}=VALUE says what stands there, --keep the same file leaves them out"
        )
    return faults


def _completed(batch: list[Row], files: list[_File], start: int, stop: int) -> list[Row]:
    """The rows `start` to `stop` with what the files say."""
    changes: list[dict[str, Any]] = [{} for _ in batch]
    extras: list[dict[str, Scalar]] = [dict(row.extras) for row in batch]
    captions: list[list[tuple[str, str]]] = [[] for _ in batch]
    for file in files:
        single = file.match.single(start, stop)
        for name, column in file.columns.items():
            if name in _CAPTIONS:
                continue
            for k, value in enumerate(_values(column, single)):
                if value is not None:
                    (extras[k] if name not in _OWN else changes[k])[name] = value
        if set(file.columns) & set(_CAPTIONS):
            for k, texts in enumerate(_captions(file, start, stop)):
                there = {text for text, _ in captions[k]}
                captions[k] += [one for one in texts if one[0] not in there]
    made = []
    for row, change, extra, texts in zip(batch, changes, extras, captions, strict=True):
        if texts:
            change |= {"caption": "", "caption_source": "", "captions": tuple(text for text, _ in texts)}
            change["caption_sources"] = tuple(source for _, source in texts)
        made.append(completed(replace(row, **change, extras=extra)))
    return made


def _values(column: pa.ChunkedArray, rows: Ints) -> list[Any]:
    found: list[Any] = column.take(pa.array(rows, mask=rows < 0)).to_pylist()
    return found


def _captions(file: _File, start: int, stop: int) -> Iterator[list[tuple[str, str]]]:
    """The captions of each object and their sources, in the order of the file."""
    rows, counts = file.match.of(start, stop)
    nothing = [None] * len(rows)
    one, many, source, sources = (_values(file.columns[n], rows) if n in file.columns else nothing for n in _CAPTIONS)
    at = 0
    for count in counts:
        found: dict[str, str] = {}
        for k in range(at, at + int(count)):
            told = [*([one[k]] if one[k] else []), *(many[k] or [])]
            by = sources[k] or []
            for n, text in enumerate(told):
                if text:
                    found.setdefault(text, by[n] if n < len(by) else source[k] or file.given.caption_source)
        at += int(count)
        yield list(found.items())


def _unmatched(files: Iterable[_File], names: Names) -> Iterator[str]:
    for file in files:
        name = str(file.given.path)
        for key in file.match.strange:
            yield json.dumps({"file": name, "key": key, "missing": "manifest"}) + "\n"
        if file.columns:
            for uid in names[UID].filter(pa.array(file.match.key_of < 0)).to_pylist():
                yield json.dumps({"file": name, "uid": uid, "missing": "file"}) + "\n"
