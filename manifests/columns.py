"""Read a manifest of any size as Arrow columns, with the checks that every manifest has.

A Parquet file all of whose rows are seen to be right, a column at a time, needs no `Row` for each of them. Any other
file is read by `authored`, which names what is wrong.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gaussianverse.manifests import authored, parquet, runform
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.files import read_bytes
from gaussianverse.manifests.schema import (
    ARROW,
    FORMATS,
    LISTS,
    MAX_CAPTION,
    MAX_CAPTIONS,
    MAX_EXTRAS,
    MAX_TEXT,
    MAX_UID,
    SPLITS,
    TEXTS,
    Scalar,
    arrow_schema,
    is_column_name,
)
from gaussianverse.manifests.table import NO_RULES, Rules, kind_of, kinds_of

_CONTROLS = r"[\x00-\x08\x0b\x0c\x0e-\x1f]"
_NUMBERS = {"integer", "number"}
_WIDER = ("integer", "number")


class Unsure(Exception):
    """Something may be wrong, or is rare: the reader of rows decides."""


class Columns:
    """The rows of a checked manifest, in its order, as columns of the run form."""

    def __init__(self, table: pa.Table, kinds: Mapping[str, str]) -> None:
        self._table, self.kinds = table, dict(kinds)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of `schema.FIELDS`, or of the manifest's author."""
        return self._table[name]


class _Quick(Columns):
    """Columns that are read when they are asked for, of rows that are all seen to be right.

    Raises:
        Unsure: they may not be.
    """

    def __init__(self, schema: pa.Schema, rows: int, rules: Rules) -> None:
        self._defaults, self._rows = rules.defaults, rows
        self._there = set(parquet.columns_of(schema))
        if not self._rows or not {"uid", "views"} <= self._there:
            raise Unsure
        self._types = {field.name: field.type for field in schema}
        own = sorted((self._there - {*TEXTS, *LISTS}) | set(self._defaults))
        if len(own) > MAX_EXTRAS or not all(map(is_column_name, own)):
            raise Unsure
        self.kinds = {name: self._kind(name) for name in own}

    def __len__(self) -> int:
        return int(self._rows)

    def column(self, name: str) -> pa.ChunkedArray:
        if name in ("caption", "captions"):
            return self._captions("caption", "captions")[name]
        if name in ("caption_source", "caption_sources"):
            return self._sources()[name]
        return self._text(name) if name in TEXTS else self._own(name)

    def _read(self, name: str) -> pa.ChunkedArray:
        raise NotImplementedError

    def _text(self, name: str) -> pa.ChunkedArray:
        if name not in self._there:
            return pa.chunked_array([pa.repeat(pa.scalar(_absent(name)), self._rows)])
        column = _plain(self._read(name), pa.string())
        if name in ("uid", "views") and column.null_count:
            raise Unsure
        return column.fill_null(_absent(name))

    def _kind(self, name: str) -> str:
        """The kind of an author's column: that of its type and of its default together."""
        found = set()
        if name in self._defaults:
            found.add(kind_of(self._defaults[name]))
        if name in self._there:
            kind = self._types[name]
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            known = (pa.types.is_boolean, "truth"), (pa.types.is_integer, "integer"), (pa.types.is_floating, "number")
            found.add(next((name for test, name in known if test(kind)), "text"))
        if len(found) > 1 and found != _NUMBERS:
            raise Unsure
        return "number" if len(found) > 1 else found.pop()

    def _own(self, name: str) -> pa.ChunkedArray:
        """A column of the author, whose rows all have a value."""
        kind = ARROW[self.kinds[name]]
        default = self._defaults.get(name)
        if name not in self._there:
            return pa.chunked_array([pa.repeat(pa.scalar(default, kind), self._rows)])
        column = _plain(self._read(name), kind)
        if pa.types.is_floating(kind):
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
        if default is not None:
            column = column.fill_null(pa.scalar(default, kind))
        if column.null_count:
            raise Unsure
        return column

    def _captions(self, one: str, many: str) -> dict[str, pa.ChunkedArray]:
        """The first text, and the list of all texts, filled in from each other."""
        first = self._text(one)
        values, lengths = self._lists(many)
        has = pc.not_equal(first, "").to_numpy()
        counts = np.where(lengths > 0, lengths, has)
        lists = _joined(values, lengths, counts, first, np.arange(self._rows))
        if len(values):
            first = _filled(first, values, lengths)
        return {one: first, many: lists}

    def _sources(self) -> dict[str, pa.ChunkedArray]:
        first = self._text("caption_source")
        values, lengths = self._lists("caption_sources")
        captions = pc.list_value_length(self._captions("caption", "captions")["captions"]).to_numpy()
        if (lengths[lengths > 0] != captions[lengths > 0]).any():
            raise Unsure
        lists = _joined(values, lengths, captions, first, np.arange(self._rows))
        if len(values):
            first = _filled(first, values, lengths)
        return {"caption_source": first, "caption_sources": lists}

    def _lists(self, name: str) -> tuple[pa.Array, np.ndarray]:
        """All texts of a column of lists, and how many each row has."""
        if name not in self._there or pa.types.is_null(self._types[name]):
            return pa.array([], pa.string()), np.zeros(self._rows, np.int64)
        column = self._read(name)
        lengths = pc.list_value_length(column).fill_null(0).to_numpy().astype(np.int64)
        values = _plain(pc.list_flatten(column), pa.string())
        if values.null_count or (len(lengths) and lengths.max() > MAX_CAPTIONS):
            raise Unsure
        return values, lengths

    def _check(self, name: str) -> None:
        column = self.column(name) if name not in ("caption", "caption_source") else self._text(name)
        if name == "uid":
            _require(_longest(column) <= MAX_UID and _all(pc.match_substring_regex(column, "^[A-Za-z0-9_-]+$")))
        elif name in ("format", "split"):
            allowed = FORMATS if name == "format" else (*SPLITS, "")
            _require(set(pc.unique(column).to_pylist()) <= set(allowed))
        elif name in TEXTS or pa.types.is_string(column.type):
            _check_texts(column, lines=name == "caption" or name not in TEXTS)
        elif pa.types.is_floating(column.type):
            _require(_all(pc.is_finite(column)))
        if name == "views":
            _require(not _any(pc.equal(column, "")))
            urls = column.filter(pc.match_substring(column, "://"))
            _require(_all(pc.match_substring_regex(urls, r"^(?s)s3://[^/]+/.+$")))

    def _check_captions(self) -> None:
        if not {"captions", "caption_sources"} & self._there:
            return
        for found, lists, lines in (
            (self._captions("caption", "captions"), "captions", True),
            (self._sources(), "caption_sources", False),
        ):
            column = found[lists]
            first = found["caption" if lines else "caption_source"]
            there = pc.greater(pc.list_value_length(column), 0)
            _require(_all(pc.equal(pc.list_element(column.filter(there), 0), first.filter(there))))
            _check_texts(pc.list_flatten(column), lines=lines)


class _FromParquet(_Quick):
    """A whole file, a column at a time."""

    def __init__(self, data: bytes, rules: Rules) -> None:
        self._file = file = pq.ParquetFile(pa.BufferReader(data))
        super().__init__(file.schema_arrow, file.metadata.num_rows, rules)
        if runform.is_run_form(data):
            self._check_run_form([file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)])
        _require(_are_distinct(pc.ascii_lower(self._text("uid"))))
        for column in (*TEXTS, *self.kinds):
            self._check(column)
            pa.default_memory_pool().release_unused()
        self._check_captions()
        pa.default_memory_pool().release_unused()

    def _read(self, name: str) -> pa.ChunkedArray:
        # not pq.read_table, whose threads may outlive the interpreter and then abort the process
        return self._file.read(columns=[name], use_threads=False)[name]

    def _check_run_form(self, groups: list[int]) -> None:
        """Check what `authored` asks of a run form beside its rows."""
        uid, fault, index = (self._read(name).combine_chunks() for name in ("uid", "fault", "index"))
        _require(_all(pc.less(uid[:-1], uid[1:])) and not _any(pc.not_equal(fault, "")))
        _require(index.null_count == 0 and (index.to_numpy() == np.arange(self._rows)).all())
        _require(len(set(groups[:-1])) <= 1 and 0 < groups[-1] <= groups[0])


class _OfTable(_Quick):
    """A table in memory, with the kinds of the whole manifest."""

    def __init__(self, table: pa.Table, rules: Rules, kinds: Mapping[str, str]) -> None:
        self._table = table
        super().__init__(table.schema, len(table), rules)
        own = self.kinds
        if own.keys() != kinds.keys() or any(own[n] != k and (own[n], k) != _WIDER for n, k in kinds.items()):
            raise Unsure
        self.kinds = dict(kinds)
        for column in (*TEXTS, *kinds):
            self._check(column)
        self._check_captions()

    def _read(self, name: str) -> pa.ChunkedArray:
        return self._table[name]


def checked_table(table: pa.Table, rules: Rules, kinds: Mapping[str, str]) -> pa.Table:
    """Rows of a part of a manifest as columns of the run form, without `index`, if all are seen to be right.

    Args:
        table: the part; a null is a value that is not there.
        rules: defaults of columns, and sources that views may lie under.
        kinds: {column of the author: its kind} of the whole manifest.

    Raises:
        Unsure: a row may be wrong, or the part has something rare; `table.checked_rows` tells.
    """
    if rules.sources:
        raise Unsure
    try:
        found = _OfTable(table, rules, kinds)
        schema = arrow_schema(kinds)
        fault = pa.chunked_array([pa.repeat(pa.scalar(""), len(table))])
        columns = [fault if name == "fault" else found.column(name) for name in schema.names[1:]]
        return pa.Table.from_arrays(columns, schema=pa.schema(list(schema)[1:]))
    except (KeyError, ManifestError, pa.ArrowException) as error:
        raise Unsure from error


def read(path: Path, rules: Rules = NO_RULES) -> Columns:
    """Read a manifest, JSON Lines or Parquet.

    Args:
        path: the manifest.
        rules: defaults of columns, and sources that views may lie under.

    Raises:
        ManifestError: the file cannot be read, or has any fault; the message names each.
    """
    if path.suffix == ".parquet" and not rules.sources:
        try:
            return _FromParquet(read_bytes(path), rules)
        except (Unsure, KeyError, *parquet.UNREADABLE):
            pass  # read again, row by row
    rows = authored.read(path, strict=True, rules=rules).rows
    faulty = [f"{path}: {row.uid}: {row.fault}" for row in rows if row.fault]
    if faulty:
        raise ManifestError(faulty)
    kinds = kinds_of(rows)
    schema = arrow_schema(kinds)
    table = pa.Table.from_pylist([runform.flat(row) | {"index": 0} for row in rows], schema=schema)
    return Columns(table, kinds)


def constant(value: Scalar, kind: str, count: int) -> pa.ChunkedArray:
    """A column of one value."""
    return pa.chunked_array([pa.repeat(pa.scalar(value, ARROW[kind]), count)])


def _absent(name: str) -> str:
    return "auto" if name == "format" else ""


def _plain(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """The column in a type of the run form."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(kind)


def _joined(
    values: pa.Array, lengths: np.ndarray, counts: np.ndarray, single: pa.ChunkedArray, rows: np.ndarray
) -> pa.ChunkedArray:
    """Lists of `counts` texts: those of `values` where `lengths` is not 0, else the row's single text repeated."""
    offsets = np.concatenate([[0], counts.cumsum()])
    if not len(values) and (not len(counts) or counts.max() <= 1):
        texts = single.filter(pa.array(counts > 0)).combine_chunks()
        return pa.chunked_array([pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), texts)])
    starts = np.concatenate([[0], lengths.cumsum()])[:-1]
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    own = np.repeat(lengths > 0, counts)
    chosen = np.where(own, np.repeat(starts, counts) + within, len(values) + np.repeat(rows, counts))
    texts = pa.chunked_array([*_chunks(values), *single.chunks], type=pa.string()).take(pa.array(chosen))
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), texts.combine_chunks())
    return pa.chunked_array([lists])


def _filled(first: pa.ChunkedArray, values: pa.Array, lengths: np.ndarray) -> pa.ChunkedArray:
    """`first` with the first text of the row's list where it is empty."""
    starts = np.concatenate([[0], lengths.cumsum()])[:-1]
    at = pa.array(np.where(lengths > 0, starts, -1))
    heads = values.take(pc.if_else(pc.equal(at, -1), pa.scalar(None, pa.int64()), at))
    heads = heads.fill_null("") if isinstance(heads, pa.ChunkedArray) else pa.chunked_array([heads.fill_null("")])
    return pc.if_else(pc.equal(first, ""), heads, first)


def _chunks(values: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    return list(values.chunks) if isinstance(values, pa.ChunkedArray) else [values]


def _check_texts(column: pa.ChunkedArray, *, lines: bool) -> None:
    """Check lengths and characters as `schema.faults_of` does; those with `lines` may have several."""
    _require(_longest(column) <= (MAX_CAPTION if lines else MAX_TEXT))
    if lines:
        _require(not _any(pc.match_substring_regex(column, _CONTROLS)))
    else:
        rare = column.filter(pc.invert(pc.match_substring_regex(column, r"^[\x20-\x7e]*$")))
        _require(all(text.isprintable() for text in pc.unique(rare).to_pylist()))


def _are_distinct(column: pa.ChunkedArray) -> bool:
    """Whether no two are equal, by sorting: a table of hashes takes several times the memory."""
    ordered = column.combine_chunks().take(pc.sort_indices(column))
    return not _any(pc.equal(ordered[:-1], ordered[1:]))


def _longest(column: pa.ChunkedArray) -> int:
    return int(pc.max(pc.utf8_length(column)).as_py() or 0)


def _all(truths: pa.ChunkedArray) -> bool:
    return bool(pc.all(truths, min_count=0).as_py())


def _any(truths: pa.ChunkedArray) -> bool:
    return bool(pc.any(truths, min_count=0).as_py())


def _require(truth: bool) -> None:
    if not truth:
        raise Unsure
