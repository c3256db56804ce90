"""Turn a manifest of any form and number of rows into objects.parquet, in memory that its rows do not fill.

The file is read in parts. Each is checked a column at a time and, where something may be wrong, row by row; good rows
go to a temporary file. Faults, the rows that have them, and 16 bytes for each row, by which uids that occur twice are
found, stay in memory. In the end the rows are sorted by uid, in parts as well, unless they are sorted already.
"""

from __future__ import annotations

import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gaussianverse.manifests import jsonl, runform
from gaussianverse.manifests.columns import Unsure, checked_table
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.parts import Part, parts_of
from gaussianverse.manifests.schema import Row, arrow_schema
from gaussianverse.manifests.sorting import SortedRows, Spool
from gaussianverse.manifests.table import (
    NO_RULES,
    Fault,
    Line,
    Rules,
    duplicate_of,
    faults_of_extras,
    judged,
    kind_of,
    kinds_from,
    stand_ins,
    with_kinds,
)

LINE = "@line"
"""Column of the number of a row's line."""


@dataclass(frozen=True)
class Intake:
    """A manifest that was checked and written as objects.parquet.

    Attributes:
        objects: number of its rows, with those that have faults.
        shards: number of its shards.
        faults: one message for each fault, with its line.
    """

    objects: int
    shards: int
    faults: list[str]


@dataclass
class _Found:
    """Results of one reading.

    Attributes:
        spool: the good rows, with `LINE`.
        faults: the faults of rows by their lines.
        of_columns: likewise, those of their columns of the author.
        named: uids of these rows by their lines, of those whose keys and types are right.
        kept: rows of a run form that had their faults already.
        hashes, lines: hash of the uid in small letters, and line, of each row whose keys and types are right.
        counts: rows by column of the author and kind of its value.
    """

    spool: Spool
    faults: dict[int, list[str]] = field(default_factory=dict)
    of_columns: dict[int, list[str]] = field(default_factory=dict)
    named: dict[int, str] = field(default_factory=dict)
    kept: list[pa.Table] = field(default_factory=list)
    hashes: array[int] = field(default_factory=lambda: array("q"))
    lines: array[int] = field(default_factory=lambda: array("q"))
    counts: dict[str, Counter[str]] = field(default_factory=dict)


def convert(path: Path, out: IO[bytes], *, shard_size: int, strict: bool = False, rules: Rules = NO_RULES) -> Intake:
    """Check a manifest and write it as objects.parquet.

    Args:
        path: JSON Lines; Parquet of any columns; or the run form, which keeps its shards.
        out: an empty file.
        shard_size: objects per shard, of other forms than the run form.
        strict: whether one faulty row refuses the manifest.
        rules: defaults of columns, and sources that views may lie under.

    Raises:
        ManifestError: the file cannot be read, no row is without a fault, or `strict` and there are faults.
        ValueError: `shard_size` < 1.
    """
    if shard_size < 1:
        raise ValueError(f"shard_size = {shard_size}: expected at least 1")
    with tempfile.TemporaryDirectory(prefix="gaussianverse-") as folder:
        kinds: dict[str, str] | None = None
        while True:
            with parts_of(path) as parts:
                found, kinds = _read(parts.rows, Path(folder), rules, kinds)
                shard_size = parts.shard_size or shard_size
            true = kinds_from(found.counts, len(found.lines))
            if true == kinds:
                break
            kinds = true  # the first part said otherwise
        _add_duplicates(found)
        for number, messages in found.of_columns.items():
            found.faults.setdefault(number, []).extend(messages)
        faults = jsonl.describe(path, (Fault(n, m) for n in sorted(found.faults) for m in found.faults[n]))
        good = len(found.spool) - len(found.spool.lines)
        if good < 1 or (faults and strict):
            raise ManifestError(faults or [f"{path}: the manifest is empty; it needs one object a line"])
        objects = _write(found, Path(folder), out, shard_size, kinds)
    return Intake(objects, -(-objects // shard_size), faults)


def _read(
    parts: Iterable[Part], folder: Path, rules: Rules, kinds: dict[str, str] | None
) -> tuple[_Found, dict[str, str]]:
    """Read and check all parts; without `kinds`, those of the first part's rows are taken for the whole's."""
    found, parts = _Found(Spool(folder / "rows.arrow")), iter(parts)
    if kinds is None:
        first = next(parts, None)
        if first is None:
            return found, {}
        counts: dict[str, Counter[str]] = {}
        rows = [row for _, entry in first.entries() for row, _ in [judged(entry, rules)] if row is not None]
        for row in rows:
            _count(counts, row.extras)
        kinds, parts = kinds_from(counts, len(rows)), chain([first], parts)
    for part in parts:
        if part.kept is not None:
            found.kept.append(part.kept)
        try:
            if part.table is None:
                raise Unsure
            good = checked_table(part.table, rules, kinds)
            _count_table(found.counts, part.table, good, kinds, rules)
            lines = part.lines
            _know(found, pc.ascii_lower(good["uid"]).to_pylist(), lines)
        except Unsure:
            good, lines = _row_by_row(found, part, rules, kinds)
        if len(good):
            found.spool.add(good.append_column(LINE, pa.array(lines)))
    found.spool.close()
    return found, kinds


def _row_by_row(found: _Found, part: Part, rules: Rules, kinds: Mapping[str, str]) -> tuple[pa.Table, np.ndarray]:
    """The good rows of a part, and their lines."""
    good = list[Line]()
    for number, entry in part.entries():
        row, faults = judged(entry, rules)
        if row is not None:
            _count(found.counts, row.extras)
            _know(found, [row.uid.lower()], [number])
            columns = [fault.message for fault in faults_of_extras([Line(number, row)], kinds)]
            if columns:
                found.of_columns[number] = columns
            if faults or columns:
                found.named[number] = row.uid
            else:
                good.append(Line(number, with_kinds(row, kinds)))
        if faults:
            found.faults[number] = faults
    schema = pa.schema(list(arrow_schema(kinds))[1:])
    table = pa.Table.from_pylist([runform.flat(line.row) for line in good], schema=schema)
    return table, np.array([line.number for line in good], np.int64)


def _know(found: _Found, uids: Iterable[str], lines: Iterable[int]) -> None:
    found.hashes.extend(map(hash, uids))
    found.lines.extend(lines)


def _count(counts: dict[str, Counter[str]], extras: Mapping[str, object]) -> None:
    for name, value in extras.items():
        counts.setdefault(name, Counter())[kind_of(value)] += 1  # type: ignore[arg-type]


def _count_table(
    counts: dict[str, Counter[str]], given: pa.Table, good: pa.Table, kinds: Mapping[str, str], rules: Rules
) -> None:
    """`_count` of rows of which each has all columns of the author."""
    for name in kinds:
        own = counts.setdefault(name, Counter())
        there = 0
        if name in given.column_names:
            kind = given.schema.field(name).type
            there = len(given) - given[name].null_count
            if pa.types.is_floating(kind):
                there -= pc.sum(pc.is_nan(given[name])).as_py() or 0
            whole = pa.types.is_integer(kind) and kinds[name] == "number"
            own["integer" if whole else kinds[name]] += there
        if rest := len(good) - there:
            own[kind_of(rules.defaults[name])] += rest


def _add_duplicates(found: _Found) -> None:
    """Add the faults of rows whose uid, in small or capital letters, another row had before."""
    hashes, lines = (np.frombuffer(a, np.int64) for a in (found.hashes, found.lines))
    ordered = np.sort(hashes)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    if not len(twice):
        return
    among = np.unique(lines[np.isin(hashes, twice)])
    uids = {number: found.named[number] for number in among.tolist() if number in found.named}
    for table in found.spool.tables(columns=["uid", LINE]):
        some = table.filter(pc.is_in(table[LINE], pa.array(among)))
        uids |= dict(zip(some[LINE].to_pylist(), some["uid"].to_pylist(), strict=True))
    first: dict[str, tuple[int, str]] = {}
    for number, uid in sorted(uids.items()):
        if text := duplicate_of(number, uid, first):
            own = found.faults.setdefault(number, [])
            own.append(text)
            if number not in found.named:  # it is among the good rows, of which it is none
                found.spool.lines.add(number)
                found.named[number] = uid


def _write(found: _Found, folder: Path, out: IO[bytes], shard_size: int, kinds: Mapping[str, str]) -> int:
    """Write all rows, sorted by uid, and return how many there are."""
    schema = arrow_schema(kinds)
    bad = _stand_ins(found, kinds).values()
    rows = pa.Table.from_pylist([runform.flat(row) for row in bad], schema=pa.schema(list(schema)[1:]))
    more = pa.concat_tables([rows, *(kept.select(rows.column_names).cast(rows.schema) for kept in found.kept)])
    lost = pa.array(sorted(found.spool.lines), pa.int64())

    def good() -> Iterable[pa.Table]:
        for table in found.spool.tables():
            if len(lost):
                table = table.filter(pc.invert(pc.is_in(table[LINE], lost)))
            yield table.drop_columns([LINE])

    ordered: Iterable[pa.Table] = good()
    if len(more) or not found.spool.is_sorted:
        ordered = SortedRows(chain(ordered, [more]), folder / "runs.arrow").tables()
    writer = runform.writer_to(out, schema)
    waiting, count, last = list[pa.Table](), 0, ""
    for table in chain(ordered, [None]):
        waiting += [] if table is None else [table]
        there = sum(map(len, waiting))
        if there < shard_size and table is not None:
            continue
        whole = pa.concat_tables(waiting) if waiting else rows[:0]
        stop = there if table is None else there - there % shard_size
        for start in range(0, stop, shard_size):
            group = whole[start : min(start + shard_size, stop)].combine_chunks()
            uid = group["uid"]
            if last >= uid[0].as_py() or not pc.all(pc.less(uid[:-1], uid[1:]), min_count=0).as_py():
                raise ManifestError(f"two rows have the uid {last!r} or one near it; rename one")
            index = pa.array(np.arange(count, count + len(group)))
            writer.add(group.add_column(0, schema.field(0), index).cast(schema))
            count, last = count + len(group), uid[-1].as_py()
        waiting = [whole[stop:]] if stop < there else []
    writer.finish()
    return count


def _stand_ins(found: _Found, kinds: Mapping[str, str]) -> Mapping[int, Row]:
    """The rows that stand for those with faults, by their lines."""
    wanted = set(found.named.values()) | {f"bad-line-{number}" for number in found.faults}
    names = pa.array(sorted(wanted), pa.string())
    taken = {uid for kept in found.kept for uid in kept["uid"].to_pylist()}
    for table in found.spool.tables(columns=["uid", LINE]) if found.faults else ():
        some = table.filter(pc.is_in(table["uid"], names))
        uids = zip(some["uid"].to_pylist(), some[LINE].to_pylist(), strict=True)
        taken |= {uid for uid, number in uids if number not in found.spool.lines}
    return stand_ins(found.faults, found.named, taken, kinds)
