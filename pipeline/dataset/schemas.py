"""Schemas of all tables and JSON members. No value is ever null: an unknown number is -1, an unknown text "".

The **facts** of an object are in its fragment's JSON member and in its row of the tables. On a CPU they depend only
on the manifest, the configuration and the views. Values that differ between two runs of the same work (seconds,
hosts, attempts, memory) are in the **journal** instead, so that the bytes of two datasets can be compared.

`FACTS`, `STATS`, `METADATA`, `QUARANTINE` and `JOURNAL` are those of the version that is written, without columns of
the manifest's author. Those, the **extras**, follow the facts; tables and members of version 1 are read as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from gaussianverse.atlas.canonical_json import json_object
from gaussianverse.atlas.dataset_format import ADDRESS, ATLAS, FAMILIES, SCHEMA_VERSION, SPLATS, VIEWS, address_column
from gaussianverse.manifests.schema import ARROW
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.errors import PipelineError

Facts = dict[str, Any]
"""A row: texts, numbers, booleans, and lists of texts, by the names of its columns."""
Columns = list[tuple[str, pa.DataType]]
Extras = Sequence[tuple[str, pa.DataType]]
"""Names and types of the columns of the manifest's author."""

_S, _I, _F, _B = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_L = pa.list_(pa.string())
_KINDS: dict[pa.DataType, type[Any]] = {_S: str, _I: int, _F: float, _B: bool, _L: list}


def _columns(kind: pa.DataType, *names: str) -> Columns:
    return [(name, kind) for name in names]


_IDENTITY = [("index", _I), ("uid", _S), ("source_id", _S), ("shard", _I)]
_STATE = _columns(_S, "status", "reason", "error_class", "error_message")
_SOURCE_1 = _columns(_S, "category", "license", "caption", "caption_source")
_SOURCE = [*_SOURCE_1, *_columns(_L, "captions", "caption_sources"), *_columns(_S, "split", "attribution")]
_RUN = [("config_digest", _S), ("schema_version", _I)]
_BBOX = _columns(_F, *(f"bbox_{end}_{axis}" for end in ("min", "max") for axis in "xyz"))
_FIT_1 = [
    ("seed", _I),
    *_columns(_I, "n_views", "n_heldout", "n_blank", "n_anchors", "n_gaussians", "n_pruned", "steps"),
    *_columns(_F, "loss", "psnr", "psnr_min", "ssim", "ssim_min", "lpips", "lpips_max"),
    *_columns(_S, "metrics_on", "background", "lpips_sha256"),
    *_BBOX,
]
FRAME = ("center_x", "center_y", "center_z", "unit")
"""Columns that undo the frame in which an object is published: world = center + unit * published."""
_FRAME = _columns(_F, *FRAME)
_FIT = [
    *_FIT_1,
    *_FRAME,
    *_columns(_I, "n_views_used", "n_same_picture", "sh_degree_in"),
    *_columns(_F, "pose_agreement", "coverage", "colour_std", "complexity", "thinness", "sh_psnr"),
    *_columns(_F, "normal_agreement", "mask_agreement", "atlas_heldout_psnr"),
    *_columns(_S, "views_skipped", "views_doubtful", "view_hash", "input_sha256"),
    *_columns(_S, "fit_digest", "code_digest", "made_with"),
]
_ATLAS_1 = [
    *_columns(_I, "n_gaussians", "n_padded", "n_dropped"),
    *_columns(_F, "transport_cost", "transport_gap", "smoothness", "smoothness_appearance"),
    *_columns(_F, "smoothness_unrolled", "round_trip_error", "atlas_psnr"),
    ("size", _I),
    *_columns(_S, "pad", "layout", "dtype"),
]
_ATLAS = [*_ATLAS_1, *_FRAME, *_columns(_S, "atlas_code_digest", "atlas_made_with")]
MADE = {SPLATS: ("code_digest", "made_with"), ATLAS: ("atlas_code_digest", "atlas_made_with")}
"""Columns of the digest of the code, and the versions of packages, that made a fragment."""
_VIEWS = [("n_reference_views", _I), ("reference_size", _I), ("images_sha256", _S)]
_ADDRESS = [(name, _S if name == "sha256" else _I) for name in ADDRESS]
_BODY = {1: {SPLATS: _FIT_1, ATLAS: _ATLAS_1, VIEWS: _VIEWS}, 2: {SPLATS: _FIT, ATLAS: _ATLAS, VIEWS: _VIEWS}}
_SHARED = {"n_gaussians", *FRAME}


def _head(version: int) -> Columns:
    return [*_IDENTITY, *_STATE, *(_SOURCE_1 if version == 1 else _SOURCE)]


def facts_schema(family: str, extras: Extras = (), version: int = SCHEMA_VERSION) -> pa.Schema:
    """Schema of a fragment's JSON member, with columns of the manifest's author at its end."""
    return pa.schema([*_head(version), *_BODY[version][family], *_RUN, *extras])


def stats_schema(family: str, extras: Extras = (), version: int = SCHEMA_VERSION) -> pa.Schema:
    """Schema of a shard's table: the facts and the address of the main member (sample -1 if quarantined)."""
    return pa.schema([*facts_schema(family, extras, version), *(pa.field(n, t) for n, t in _ADDRESS)])


def metadata_schema(families: Sequence[str], extras: Extras = (), version: int = SCHEMA_VERSION) -> pa.Schema:
    """Schema of metadata.parquet: one row per object of the manifest, with the columns of these families."""
    first, *others = families
    shared = {name for name, _ in [*_head(version), *_RUN]} | _SHARED
    return pa.schema(
        [
            *facts_schema(first, (), version),
            *(pa.field(n, t) for family in others for n, t in _BODY[version][family] if n not in shared),
            *extras,
            *(pa.field(address_column(family, n), t) for family in families for n, t in _ADDRESS),
        ]
    )


def quarantine_schema(version: int = SCHEMA_VERSION) -> pa.Schema:
    """Schema of quarantine.parquet."""
    return pa.schema([*_IDENTITY, ("stage", _S), *_STATE, *(_SOURCE_1 if version == 1 else _SOURCE)])


_SECONDS = {
    SPLATS: ("seconds_load", "seconds_init", "seconds_fit", "seconds_metrics"),
    ATLAS: ("transport_seconds",),
    VIEWS: (),
}


def journal_schema(family: str, version: int = SCHEMA_VERSION) -> pa.Schema:
    """Schema of a shard's journal: the cost of each fragment. `started` is in seconds since 1970, UTC."""
    return pa.schema(
        [
            ("index", _I), ("uid", _S), ("stage", _S), ("status", _S), ("attempts", _I),
            ("started", _F), ("seconds", _F), *_columns(_F, *_SECONDS[family]), ("peak_mb", _F),
            ("host", _S), ("device", _S), ("backend", _S), ("fragment_sha256", _S),
            *([] if version == 1 else [("error_text", _S)]),
        ]
    )  # fmt: skip


FACTS: dict[str, pa.Schema] = {family: facts_schema(family) for family in FAMILIES}
"""Schema of a fragment's JSON member, by family."""
STATS: dict[str, pa.Schema] = {family: stats_schema(family) for family in FAMILIES}
"""Schema of a shard's table, by family."""
JOURNAL: dict[str, pa.Schema] = {family: journal_schema(family) for family in FAMILIES}
"""Schema of a shard's journal, by family. `error_text` is the whole text of an error, as the machine gave it."""
METADATA: pa.Schema = metadata_schema(layout.STAGES)
"""Schema of metadata.parquet in a run without reference views."""
QUARANTINE: pa.Schema = quarantine_schema()
"""Schema of quarantine.parquet."""

RESERVED = frozenset(
    [*(name for family in FAMILIES for name in STATS[family].names), *metadata_schema(FAMILIES).names,
     *(name for family in FAMILIES for name in JOURNAL[family].names), "views", "format", "fault"]
)  # fmt: skip
"""Names that extras cannot have."""


def like(make: Callable[..., pa.Schema], found: pa.Schema, *, after: int) -> pa.Schema | None:
    """The schema of `make(extras, version)` that `found` is, or None.

    Args:
        make: `facts_schema`, `stats_schema` or `metadata_schema` of a family or families.
        found: names and types of columns.
        after: number of columns that follow the extras.
    """
    have = [(f.name, f.type) for f in found]
    for version in (SCHEMA_VERSION, 1):
        known = len(make(extras=(), version=version))
        extras = have[known - after : len(have) - after] if version > 1 else []
        if any(kind not in ARROW.values() for _, kind in extras) or RESERVED & {name for name, _ in extras}:
            continue
        schema = make(extras=extras, version=version)
        if have == [(f.name, f.type) for f in schema]:
            return schema
    return None


def extras_in(schema: pa.Schema) -> Columns:
    """The extras among the columns of any schema of this module."""
    return [(f.name, f.type) for f in schema if f.name not in RESERVED]


def extras_of(facts: Mapping[str, Any]) -> Columns:
    """The extras among the values of a row."""
    return [(name, _type_of(name, value)) for name, value in facts.items() if name not in RESERVED]


def default_of(kind: pa.DataType) -> Any:
    """The value for "unknown" in a column of this type."""
    return {_S: "", _F: -1.0, _I: -1, _B: False}.get(kind, [])


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


def _typed(field: pa.Field, value: Any) -> Any:
    if field.type == _S:
        if isinstance(value, str):
            return value
    elif field.type == _L:
        if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
            return list(value)
    elif field.type == _B:
        if isinstance(value, bool):
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
    return _of_schema(schema, json_object(data, PipelineError))


def facts_from_json(family: str, data: bytes) -> Facts:
    """Read the JSON member of a fragment of any version that is read, with its extras; raises as `from_json`."""
    values = json_object(data, PipelineError)
    version = values.get("schema_version")
    if type(version) is not int or version not in _BODY:
        raise PipelineError(f"schema_version is {version!r}, expected one of {', '.join(map(str, _BODY))}")
    own = facts_schema(family, (), version)
    extras = (
        [(name, _type_of(name, value)) for name, value in list(values.items())[len(own) :]] if version > 1 else []
    )
    return _of_schema(facts_schema(family, extras, version), values)


def _type_of(name: str, value: Any) -> pa.DataType:
    for kind in ARROW.values():
        if type(value) is _KINDS[kind] and name not in RESERVED:
            return kind
    raise PipelineError(f"{name} is {value!r}, expected a text, a number or a truth value of the manifest's author")


def _of_schema(schema: pa.Schema, values: Facts) -> Facts:
    if list(values) != schema.names:
        raise PipelineError("expected a JSON object with exactly the schema's keys, in its order")
    for field in schema:
        kind, value = _KINDS[field.type], values[field.name]
        if (
            type(value) is not kind
            or (kind is float and not math.isfinite(value))
            or (kind is list and not all(type(v) is str for v in value))
        ):
            raise PipelineError(f"{field.name} is {value!r}, expected {field.type}")
    return values


def is_count(value: object) -> bool:
    """Whether a value from JSON is an integer >= 0; True, 2.0 and 1e999 are not."""
    return type(value) is int and value >= 0


def is_sha256(value: object) -> bool:
    """Whether a value from JSON is a sha256 in lower-case hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
