"""Joins other people's files, captions, scores, splits, credits, onto the rows of a manifest; takes lists of keys.

The rows pass by twice, once for their names and once to be completed and written, so that memory holds the files and
not the manifest.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gaussianverse.manifests import jsonl, licenses, tables
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.files import whole_file
from gaussianverse.manifests.joined_files import CAPTIONS, JOIN, KEEP, OWN, File, Given, check_columns, opened
from gaussianverse.manifests.keys import FORMS, SOURCE, UID, Names, names_of
from gaussianverse.manifests.matching import Ints
from gaussianverse.manifests.schema import TEXTS, Row, Scalar, completed, faults_of
from gaussianverse.manifests.table import kind_of

_BATCH = 4096
_MOST_FAULTS = 100
Rows = Callable[[], Iterator[Row]]
"""The rows of a manifest, from the first, whenever it is called."""


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
    files = [opened(one, names) for one in given]
    check_columns(files)
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


def _write(
    out: Path, rows: Rows, files: list[File], keep: Any, defaults: Mapping[str, Scalar], wanted: Collection[str]
) -> tuple[int, Counter[str]]:
    """Write the completed rows; returns their number, and that of rows under other licences."""
    written, unlicensed, faults = 0, Counter[str](), list[str]()
    kinds, lacking = dict[str, dict[str, str]](), dict[str, Counter[str]]()
    extras = {name for file in files for name in file.columns if name not in OWN} | set(defaults)
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


def _completed(batch: list[Row], files: list[File], start: int, stop: int) -> list[Row]:
    """The rows `start` to `stop` with what the files say."""
    changes: list[dict[str, Any]] = [{} for _ in batch]
    extras: list[dict[str, Scalar]] = [dict(row.extras) for row in batch]
    captions: list[list[tuple[str, str]]] = [[] for _ in batch]
    for file in files:
        single = file.match.single(start, stop)
        for name, column in file.columns.items():
            if name in CAPTIONS:
                continue
            for k, value in enumerate(_values(column, single)):
                if value is not None:
                    (extras[k] if name not in OWN else changes[k])[name] = value
        if set(file.columns) & set(CAPTIONS):
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


def _captions(file: File, start: int, stop: int) -> Iterator[list[tuple[str, str]]]:
    """The captions of each object and their sources, in the order of the file."""
    rows, counts = file.match.of(start, stop)
    nothing = [None] * len(rows)
    one, many, source, sources = (_values(file.columns[n], rows) if n in file.columns else nothing for n in CAPTIONS)
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


def _unmatched(files: Iterable[File], names: Names) -> Iterator[str]:
    for file in files:
        name = str(file.given.path)
        for key in file.match.strange:
            yield json.dumps({"file": name, "key": key, "missing": "manifest"}) + "\n"
        if file.columns:
            for uid in names[UID].filter(pa.array(file.match.key_of < 0)).to_pylist():
                yield json.dumps({"file": name, "uid": uid, "missing": "file"}) + "\n"
