"""Schemas of all tables and JSON members. No value is ever null: an unknown number is -1, an unknown text "".

The **facts** of an object are in its fragment's JSON member and in its row of the tables. On a CPU they depend only
on the manifest, the configuration and the views. Values that differ between two runs of the same work (seconds,
hosts, attempts, memory) are in the **journal** instead, so that the bytes of two datasets can be compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from gaussianverse.atlas.canonical_json import json_object
from gaussianverse.atlas.dataset_format import ADDRESS, ATLAS, SPLATS, VIEWS, address_column
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.errors import PipelineError

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
_ADDRESS = [(name, _S if name == "sha256" else _I) for name in ADDRESS]
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
    SPLATS: pa.schema([*_HEAD, *_FIT, *_RUN]),
    ATLAS: pa.schema([*_HEAD, *_atlas_columns(), *_RUN]),
    VIEWS: pa.schema([*_HEAD, *_VIEWS, *_RUN]),
}
"""Schema of a fragment's JSON member, by family."""

STATS: dict[str, pa.Schema] = {
    family: pa.schema([*facts, *(pa.field(n, t) for n, t in _ADDRESS)]) for family, facts in FACTS.items()
}
"""Schema of a shard's table: the facts and the address of the main member (sample -1 if quarantined)."""

_SECONDS = {
    SPLATS: ("seconds_load", "seconds_init", "seconds_fit", "seconds_metrics"),
    ATLAS: ("transport_seconds",),
    VIEWS: (),
}
JOURNAL: dict[str, pa.Schema] = {
    family: pa.schema(
        [
            ("index", _I), ("uid", _S), ("stage", _S), ("status", _S), ("attempts", _I),
            ("started", _F), ("seconds", _F), *_columns(_F, *names), ("peak_mb", _F),
            ("host", _S), ("device", _S), ("backend", _S), ("fragment_sha256", _S),
        ]
    )
    for family, names in _SECONDS.items()
}  # fmt: skip
"""Schema of a shard's journal: the cost of each fragment. `started` is in seconds since 1970, UTC."""

_SHARED = {name for name, _ in [*_HEAD, *_RUN]} | {"n_gaussians"}


def metadata_schema(families: Sequence[str]) -> pa.Schema:
    """Schema of metadata.parquet: one row per object of the manifest, with the columns of these families."""
    first, *others = families
    return pa.schema(
        [
            *FACTS[first],
            *(f for family in others for f in FACTS[family] if f.name not in _SHARED),
            *(pa.field(address_column(family, n), t) for family in families for n, t in _ADDRESS),
        ]
    )


METADATA: pa.Schema = metadata_schema(layout.STAGES)
"""Schema of metadata.parquet in a run without reference views."""

QUARANTINE: pa.Schema = pa.schema([*_IDENTITY, ("stage", _S), *_STATE, *_SOURCE])
"""Schema of quarantine.parquet."""


def default_of(kind: pa.DataType) -> Value:
    """The value for "unknown" in a column of this type."""
    if kind == _S:
        return ""
    return -1.0 if kind == _F else -1


def row(schema: pa.Schema, values: Mapping[str, Any]) -> Facts:
    """A row of `schema`: all columns in order and of their types, with defaults for those that `values` lacks.

    Raises:
        PipelineError: `values` has an unknown column, or a value of another type.
    """
    unknown = sorted(set(values) - set(schema.names))
    if unknown:
        raise PipelineError(f"no column for {', '.join(unknown)}; pipeline/dataset/schemas.py lists all columns")
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
    raise PipelineError(f"column {field.name}: {value!r} is not of type {field.type}")


def from_json(schema: pa.Schema, data: bytes) -> Facts:
    """Read a row that was written by `to_json(row(schema, ...))`, strictly.

    Raises:
        PipelineError: invalid JSON, keys other than the schema's, or a value of another type or not finite.
    """
    values = json_object(data, PipelineError)
    if list(values) != schema.names:
        raise PipelineError("expected a JSON object with exactly the schema's keys, in its order")
    for field in schema:
        kind: type[Any] = str if field.type == _S else float if field.type == _F else int
        value = values[field.name]
        if type(value) is not kind or (kind is float and not math.isfinite(value)):
            raise PipelineError(f"{field.name} is {value!r}, expected {field.type}")
    return values


def is_count(value: object) -> bool:
    """Whether a value from JSON is an integer >= 0; True, 2.0 and 1e999 are not."""
    return type(value) is int and value >= 0


def is_sha256(value: object) -> bool:
    """Whether a value from JSON is a sha256 in lower-case hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
