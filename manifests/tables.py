"""Tables that people have, Parquet, CSV, JSON Lines or JSON, with one type for each column."""

import csv
import io
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from gaussianverse import foreign
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.files import parse_json, read_bytes
from gaussianverse.manifests.keys import looks_like_key
from gaussianverse.manifests.parquet import UNREADABLE

KEY, VALUE = "key", "value"
"""Columns of a JSON object {key: value}; `KEY` alone of a JSON list of texts, and of a text file, a key a line."""
_INTEGER = r"^-?(0|[1-9][0-9]*)$"
_NUMBER = r"^([-+]?((0|[1-9][0-9]{0,17})(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?|[nN]a[nN])$"
"""Of codes such as 007 the zeros count: they are texts."""
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_TYPES: dict[type, pa.DataType] = {
    str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), list: pa.list_(pa.string()),
}  # fmt: skip
_WORDS = {str: "text", int: "integer", float: "number", bool: "truth", list: "list"}


def read(path: Path, texts: Collection[str] = (), wanted: Collection[str] = ()) -> pa.Table:
    """Read a table; what is missing is null.

    A CSV of two columns whose first line begins with a key of an object, as Cap3D's, has no header: its columns are
    `uid` and `caption`. The type of a CSV's column is that of all its values; those named in `texts` are texts. Of
    the columns only those in `wanted`, if it is given, need to have one type.

    Raises:
        ManifestError: the file cannot be read, or a column has two types.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            # with Arrow's own threads, one may outlive the interpreter and then abort the process
            return pq.ParquetFile(io.BytesIO(read_bytes(path))).read(use_threads=False)
        if suffix == ".csv":
            return _csv(path, texts, wanted)
    except UNREADABLE as error:
        raise ManifestError(f"{path}: cannot be read as {suffix[1:]}: {' '.join(str(error).split())}") from error
    if suffix == ".json":
        return _json(path, wanted)
    if suffix in (".jsonl", ".ndjson"):
        return _columns(path, _lines(path), wanted)
    if suffix in (".txt", ""):
        lines = read_bytes(path).decode("utf-8-sig", "replace").splitlines()
        return pa.table({KEY: pa.array([line.strip() for line in lines if line.strip()], pa.string())})
    raise ManifestError(f"{path}: expected .parquet, .csv, .json, .jsonl, or .txt with one key a line")


def column(table: pa.Table, name: str, path: Path) -> pa.ChunkedArray:
    """A column as texts, integers, numbers, truth values or lists of texts; NaN is null, as pandas writes it.

    Raises:
        ManifestError: there is no such column, or it has another type.
    """
    if table.column_names.count(name) != 1:
        found = "two columns" if name in table.column_names else "no column"
        raise ManifestError(f"{path}: {found} {name!r}; it has {', '.join(table.column_names)}")
    values = table[name]
    kind = values.type
    if pa.types.is_dictionary(kind):
        values, kind = values.cast(kind.value_type), kind.value_type
    if pa.types.is_null(kind):
        return values.cast(pa.string())
    wanted = {
        pa.string(): pa.types.is_string(kind) or pa.types.is_large_string(kind),
        pa.bool_(): pa.types.is_boolean(kind),
        pa.int64(): pa.types.is_integer(kind),
        pa.float64(): pa.types.is_floating(kind),
        pa.list_(pa.string()): (pa.types.is_list(kind) or pa.types.is_large_list(kind))
        and (pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)),
    }
    target = next((one for one, fits in wanted.items() if fits), None)
    if target is None:
        raise ManifestError(
            f"{path}: column {name!r} has the type {kind}; texts, integers, numbers, truth values and lists of texts "
            "can be joined: name the columns by --take"
        )
    try:
        values = values.cast(target)
    except pa.ArrowInvalid as error:
        raise ManifestError(f"{path}: column {name!r}: {error}") from error
    if target == pa.float64():
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
    return values


def _csv(path: Path, texts: Collection[str], wanted: Collection[str]) -> pa.Table:
    with foreign.opened(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        try:
            first = next(rows, [])
            for _ in rows:  # Arrow takes all that follows an open quote for one value
                pass
        except csv.Error as error:
            raise ManifestError(
                f"{path}: cannot be read as CSV: {error}, in the row that ends in line {rows.line_num}; a quote "
                'within quotes is written ""'
            ) from error
    bare = bool(first) and looks_like_key(first[0])
    if bare and len(first) != 2:
        count = f"{len(first)} columns" if len(first) > 1 else "one column"
        raise ManifestError(f"{path}: {count} without a header; put the names into the first line")
    names = ["uid", "caption"] if bare else first
    with foreign.opened(path) as raw:
        table = pa_csv.read_csv(
            raw,
            read_options=pa_csv.ReadOptions(use_threads=False, column_names=names, skip_rows=0 if bare else 1),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    plain = {*texts, *(name for name in names if wanted and name not in wanted)}
    arrays = [_typed(table.column(i), name, path, name in plain) for i, name in enumerate(names)]
    return pa.table(arrays, names=names)


def _typed(values: pa.ChunkedArray, name: str, path: Path, as_text: bool) -> pa.ChunkedArray:
    """A CSV's column of the type that all its values have; "" is null."""
    values = pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)
    count = len(values) - values.null_count
    if as_text or not count:
        return values
    number = pc.match_substring_regex(values, _NUMBER)
    numbers = pc.sum(number).as_py()
    if numbers == count:
        whole = pc.all(pc.match_substring_regex(values, _INTEGER)).as_py()
        try:
            return values.cast(pa.int64() if whole else pa.float64())
        except pa.ArrowInvalid as error:
            raise ManifestError(f"{path}: column {name!r}: {error}") from error
    if pc.all(pc.is_in(values.drop_null(), pa.array(list(_TRUTH)))).as_py():
        return pa.chunked_array([pa.array([_TRUTH.get(value) for value in values.to_pylist()], pa.bool_())])
    if 2 * numbers > count:
        row = pc.index(pc.fill_null(number, True), False).as_py()
        raise ManifestError(
            f"{path}: column {name!r} is a number in most rows, and {values[row].as_py()[:80]!r} in row {row + 1}; a "
            f"column has one type: mend it, leave unknown values empty, or pass --text {name}"
        )
    return values


def _json(path: Path, wanted: Collection[str]) -> pa.Table:
    text = read_bytes(path)
    try:
        found = parse_json(text)
    except ManifestError as error:
        raise ManifestError(f"{path}: {error}; JSON Lines are called .jsonl") from error
    if isinstance(found, dict):
        if all(isinstance(value, dict) for value in found.values()):
            return _columns(path, ({**value, KEY: key} for key, value in found.items()), wanted)
        return _columns(path, ({KEY: key, VALUE: value} for key, value in found.items()), wanted)
    if isinstance(found, list):
        return _columns(path, (one if isinstance(one, dict) else {KEY: one} for one in found), wanted)
    raise ManifestError(f"{path}: expected a list of objects or keys, or an object by key")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with foreign.opened(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        found = parse_json(line)
                    except ManifestError as error:
                        raise ManifestError(f"{path}:{number}: {error}") from error
                    if not isinstance(found, dict):
                        raise ManifestError(f"{path}:{number}: expected a JSON object")
                    yield found
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error


def _columns(path: Path, rows: Iterable[dict[str, Any]], wanted: Collection[str]) -> pa.Table:
    """The columns of rows of JSON; of those that are not wanted only the names."""
    found: dict[str, list[Any]] = {}
    for count, row in enumerate(rows):
        for name in row:
            if name not in found:
                found[name] = [None] * count
        for name, values in found.items():
            values.append(row.get(name))
    return pa.table(
        {
            name: _one_type(values, name, path) if not wanted or name in wanted else pa.nulls(len(values))
            for name, values in found.items()
        }
    )


def _one_type(values: Sequence[Any], name: str, path: Path) -> pa.Array:
    first: dict[type, int] = {}
    for row, value in enumerate(values, start=1):
        if value is not None:
            first.setdefault(type(value), row)
    if set(first) == {int, float}:
        first = {float: 1}
    if dict in first:  # `column` refuses it by its name, if it is used
        return pa.array([None if value is None else {"json": json.dumps(value)} for value in values])
    if len(first) > 1:
        (one, there), (other, here) = sorted(first.items(), key=lambda item: item[1])[:2]
        raise ManifestError(
            f"{path}: column {name!r} is {_WORDS[one]} in row {there} and {_WORDS[other]} in row {here}; a column "
            "has one type"
        )
    try:
        return pa.array(values, _TYPES[next(iter(first), str)])
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise ManifestError(f"{path}: column {name!r}: {error}") from error
