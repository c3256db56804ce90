"""Every table and every JSON member, column by column. Nothing is ever null: a missing number is -1 (or 0
where it counts), a missing word is "".

An object's **facts** are what its fragment's JSON member holds and what its row repeats: on a CPU they are a
function of the manifest, the configuration and the views alone. What differs between two runs of the same
work (seconds, hosts, attempts, memory) is the **journal**, kept apart, so that a dataset's bytes can be
compared.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.errors import PipelineError

SCHEMA_VERSION = 1

OK = "ok"
QUARANTINED = "quarantined"
REASONS = (
    "bad_input", "missing_views", "decode_error", "too_few_gaussians", "nan_loss", "low_psnr", "cuda_error",
    "out_of_memory", "timeout", "worker_killed", "transport_failed", "rough_atlas", "unknown",
)  # fmt: skip

MESSAGE_LIMIT = 500

Value = str | int | float
Facts = dict[str, Value]

_S, _I, _F = pa.string(), pa.int64(), pa.float64()


def _columns(kind: pa.DataType, *names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, kind) for name in names]


_IDENTITY = [("index", _I), ("uid", _S), ("source_id", _S), ("shard", _I)]
_STATE = _columns(_S, "status", "reason", "error_class", "error_message")
_SOURCE = _columns(_S, "category", "license", "caption", "caption_source")
_RUN = [("config_digest", _S), ("schema_version", _I)]
_BBOX = _columns(_F, *(f"bbox_{end}_{axis}" for end in ("min", "max") for axis in "xyz"))
_FIT = [
    ("seed", _I),
    *_columns(_I, "n_views", "n_heldout", "n_blank", "n_anchors", "n_gaussians", "n_pruned", "steps"),
    *_columns(_F, "loss", "psnr", "psnr_min", "ssim", "ssim_min", "lpips", "lpips_max"),
    *_columns(_S, "metrics_on", "background", "lpips_sha256"),
    *_BBOX,
]
_VIEWS = [("n_reference_views", _I), ("reference_size", _I), ("images_sha256", _S)]
_ADDRESS = [("sample", _I), ("offset", _I), ("nbytes", _I), ("sha256", _S)]
_HEAD = [*_IDENTITY, *_STATE, *_SOURCE]


def _atlas_columns() -> list[tuple[str, pa.DataType]]:
    return [
        *_columns(_I, "n_gaussians", "n_padded", "n_dropped"),
        *_columns(_F, "transport_cost", "transport_gap", "smoothness", "smoothness_appearance"),
        *_columns(_F, "smoothness_unrolled", "round_trip_error", "atlas_psnr"),
        ("size", _I),
        *_columns(_S, "pad", "layout", "dtype"),
    ]


FACTS: dict[str, pa.Schema] = {
    layout.SPLATS: pa.schema([*_HEAD, *_FIT, *_RUN]),
    layout.ATLAS: pa.schema([*_HEAD, *_atlas_columns(), *_RUN]),
    layout.VIEWS: pa.schema([*_HEAD, *_VIEWS, *_RUN]),
}
"""The JSON member of a fragment, whatever became of the object."""

STATS: dict[str, pa.Schema] = {
    stage: pa.schema([*facts, *(pa.field(n, t) for n, t in _ADDRESS)]) for stage, facts in FACTS.items()
}
"""A shard's table: the facts and where the main member lies in the tar (sample -1 if quarantined)."""

_SECONDS = {
    layout.SPLATS: ("seconds_load", "seconds_init", "seconds_fit", "seconds_metrics"),
    layout.ATLAS: ("transport_seconds",),
    layout.VIEWS: (),
}
JOURNAL: dict[str, pa.Schema] = {
    stage: pa.schema(
        [
            ("index", _I), ("uid", _S), ("stage", _S), ("status", _S), ("attempts", _I),
            ("started", _F), ("seconds", _F), *_columns(_F, *names), ("peak_mb", _F),
            ("host", _S), ("device", _S), ("backend", _S), ("fragment_sha256", _S),
        ]
    )
    for stage, names in _SECONDS.items()
}  # fmt: skip
"""What making each fragment took. `started` is in seconds since 1970, UTC."""

_SHARED = {name for name, _ in [*_HEAD, *_RUN]} | {"n_gaussians"}


def metadata_schema(families: Sequence[str]) -> pa.Schema:
    """metadata.parquet: the rows of these families in one, of every object that has a splat, an atlas or neither."""
    first, *others = families
    return pa.schema(
        [
            *FACTS[first],
            *(f for family in others for f in FACTS[family] if f.name not in _SHARED),
            *(pa.field(f"{family}_{n}", t) for family in families for n, t in _ADDRESS),
        ]
    )


METADATA: pa.Schema = metadata_schema(layout.STAGES)
"""Of a run without reference views."""

QUARANTINE: pa.Schema = pa.schema([*_IDENTITY, ("stage", _S), *_STATE, *_SOURCE])


def default_of(kind: pa.DataType) -> Value:
    """What stands for "not known" in a column of this type."""
    if kind == _S:
        return ""
    return -1.0 if kind == _F else -1


def row(schema: pa.Schema, values: Mapping[str, Any]) -> Facts:
    """A row of `schema`: its columns in order, of their types, defaults where `values` has none.

    Raises:
        PipelineError: `values` has a column that the schema lacks, or a value of another kind.
    """
    unknown = sorted(set(values) - set(schema.names))
    if unknown:
        raise PipelineError(f"no column for {', '.join(unknown)}; pipeline/schemas.py names every column")
    return {f.name: _typed(f, values[f.name]) if f.name in values else default_of(f.type) for f in schema}


def known(schema: pa.Schema, values: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `values` that `schema` has columns for."""
    return {name: value for name, value in values.items() if name in schema.names}


def _typed(field: pa.Field, value: Any) -> Value:
    if field.type == _S:
        if isinstance(value, str):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if field.type == _F:
            return float(value) if math.isfinite(value) else -1.0
        if int(value) == value:
            return int(value)
    raise PipelineError(f"column {field.name}: {value!r} is no {field.type}")


def message(fault: BaseException | str) -> str:
    """One line of at most `MESSAGE_LIMIT` characters about what went wrong."""
    text = " ".join(str(fault).split()) or type(fault).__name__
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 3] + "..."


def to_json(values: Mapping[str, Any]) -> bytes:
    """Canonical JSON: one line, keys as given, no NaN."""
    return json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def from_json(schema: pa.Schema, data: bytes) -> Facts:
    """Read what `to_json(row(schema, ..))` wrote, strictly.

    Raises:
        PipelineError: not JSON, other keys than the schema's, or a value of another type or not finite.
    """
    values = json_object(data)
    if list(values) != schema.names:
        raise PipelineError("expected a JSON object with exactly the schema's keys, in its order")
    for field in schema:
        kind: type[Any] = str if field.type == _S else float if field.type == _F else int
        value = values[field.name]
        if type(value) is not kind or (kind is float and not math.isfinite(value)):
            raise PipelineError(f"{field.name} is {value!r}, expected {field.type}")
    return values


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`.

    Raises:
        PipelineError: not JSON, or not an object.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as fault:
        raise PipelineError(f"not JSON: {fault}") from fault
    if not isinstance(value, dict):
        raise PipelineError(f"a JSON {type(value).__name__}, expected an object")
    return value


def is_count(value: object) -> bool:
    """Whether a value out of JSON is a whole number >= 0. True and 2.0 are not, and 1e999 is no reason to fail."""
    return type(value) is int and value >= 0


def is_sha256(value: object) -> bool:
    """Whether a value out of JSON is a hash as this package writes it."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def to_parquet(schema: pa.Schema, rows: Iterable[Mapping[str, Any]], *, checksums: bool = False) -> bytes:
    """Rows as a Parquet file; the same rows always give the same bytes.

    Args:
        schema: of the table.
        rows: complete rows, as `row` gives them.
        checksums: with a checksum per page, for files that SHA256SUMS does not cover.
    """
    table = pa.Table.from_pylist(list(rows), schema=exact(schema))
    return table_to_parquet(table, checksums=checksums)


def exact(schema: pa.Schema) -> pa.Schema:
    """The schema with every column declared to have no nulls."""
    return pa.schema([pa.field(f.name, f.type, nullable=False) for f in schema])


def table_to_parquet(table: pa.Table, *, checksums: bool = False) -> bytes:
    """A table as a Parquet file; the same table always gives the same bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=checksums)
    return sink.getvalue()


class ParquetSink:
    """A Parquet file in the making, whose rows come in pieces of any size.

    Row groups have `ROW_GROUP` rows whatever the pieces were, so the same rows always give the same bytes, and
    those of `table_to_parquet` while they fit in one group.
    """

    ROW_GROUP = 1 << 16

    def __init__(self, schema: pa.Schema) -> None:
        self._schema, self._sink = exact(schema), io.BytesIO()
        self._writer = pq.ParquetWriter(self._sink, self._schema, compression="zstd")
        self._waiting: list[pa.Table] = []
        self._written = False

    def add(self, rows: pa.Table) -> None:
        """Append rows of the schema."""
        self._waiting.append(pa.Table.from_arrays(rows.columns, schema=self._schema))
        while sum(map(len, self._waiting)) >= self.ROW_GROUP:
            whole = pa.concat_tables(self._waiting)
            self._write(whole[: self.ROW_GROUP])
            self._waiting = [whole[self.ROW_GROUP :]]

    def finish(self) -> bytes:
        """The file."""
        rest = pa.concat_tables([self._schema.empty_table(), *self._waiting])
        if len(rest) or not self._written:
            self._write(rest)
        self._writer.close()
        return self._sink.getvalue()

    def _write(self, rows: pa.Table) -> None:
        self._writer.write_table(rows.combine_chunks(), row_group_size=self.ROW_GROUP)
        self._written = True


def same_rows(schema: pa.Schema, data: bytes, expected: bytes) -> bool:
    """Whether two files of a `ParquetSink` hold the same rows, a row group at a time.

    Raises:
        PipelineError: `data` is not a Parquet file, or damaged.
    """
    files = [_opened(one) for one in (data, expected)]
    if files[0].schema_arrow.names != schema.names or files[0].num_row_groups != files[1].num_row_groups:
        return False
    try:
        for k in range(files[1].num_row_groups):
            there, here = (file.read_row_group(k, use_threads=False) for file in files)
            if not there.equals(here):
                return False
    except (pa.ArrowException, OSError) as fault:
        raise PipelineError(f"not a readable Parquet file: {message(fault)}") from fault
    return True


def _opened(data: bytes) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as fault:
        raise PipelineError(f"not a readable Parquet file: {message(fault)}") from fault


def from_parquet(schema: pa.Schema, data: bytes) -> pa.Table:
    """Read what `to_parquet` wrote; page checksums are verified where there are any.

    Raises:
        PipelineError: not a Parquet file, damaged, or of another schema.
    """
    try:
        # not pq.read_table: its threads may outlive the interpreter, and then abort the process
        table = _opened(data).read(use_threads=False)
    except (pa.ArrowException, OSError) as fault:
        raise PipelineError(f"not a readable Parquet file: {message(fault)}") from fault
    names = [(f.name, f.type) for f in table.schema]
    if names != [(f.name, f.type) for f in schema]:
        raise PipelineError(f"columns {table.schema.names} are not those of schema version {SCHEMA_VERSION}")
    return table
