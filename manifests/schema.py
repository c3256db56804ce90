"""Rows of a manifest, one object each: fields, limits and faults."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pyarrow as pa

from gaussianverse.manifests.errors import ManifestError

# GObjaverse's ten categories, spelled as in its files. The dataset's paper takes all but the last.
CATEGORIES = (
    "Human-Shape",
    "Animals",
    "Daily-Used",
    "Furnitures",
    "Buildings&&Outdoor",
    "Transportations",
    "Plants",
    "Food",
    "Electronics",
    "Poor-quality",
)
DEFAULT_CATEGORIES = CATEGORIES[:-1]
# 3D Gaussians instead of renders; published GaussianVerse objects have red and blue exchanged
SPLATS, SPLATS_BGR = "splats", "splats-bgr"
FORMATS = ("auto", "gobjaverse", "transforms", SPLATS, SPLATS_BGR)
SPLITS = ("train", "val", "test")
MAX_UID = 128  # characters: a uid becomes part of file names
MAX_TEXT, MAX_CAPTION, MAX_CAPTIONS, MAX_EXTRAS = 4096, 32768, 256, 256
KINDS: dict[str, type] = {"text": str, "integer": int, "number": float, "truth": bool}
"""Types of the columns of a manifest's author, by the names that messages and files give them."""

Scalar = str | int | float | bool

_UID = re.compile(r"[A-Za-z0-9_-]+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_S3 = re.compile(r"s3://[^/]+/.+", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """One object. No value is ever None; an unknown text is "".

    Attributes:
        uid: unique name, of A-Z a-z 0-9 _ - only, since it becomes a file name and a WebDataset key.
        views: location of its renders: a path, in the authoring form relative to the manifest's folder, or
            s3://bucket/key.
        format: "gobjaverse", "transforms", or "auto" to detect which; "splats" for 3D Gaussians, which are
            not fitted, "splats-bgr" if their red and blue are exchanged.
        category: any word; GObjaverse's ten are `CATEGORIES`.
        license: licence of the object, as an SPDX identifier if there is one, e.g. "CC-BY-4.0".
        caption: text that describes the object, the first of `captions`.
        caption_source: source of the caption, e.g. "Cap3D".
        source_id: origin of the object, e.g. "objaverse/<uid>".
        split: one of `SPLITS`, or "".
        attribution: credit that the licence asks for: author, title, source.
        captions: all captions, `caption` first; empty stands for `caption` alone.
        caption_sources: source of each of `captions`; empty stands for `caption_source` for each.
        extras: values of the columns of the manifest's author, by their names.
        fault: why the row cannot be built, with its line; "" if it can. Authors do not write it.
    """

    uid: str
    views: str
    format: str = "auto"
    category: str = ""
    license: str = ""
    caption: str = ""
    caption_source: str = ""
    source_id: str = ""
    split: str = ""
    attribution: str = ""
    captions: tuple[str, ...] = ()
    caption_sources: tuple[str, ...] = ()
    extras: Mapping[str, Scalar] = field(default_factory=dict)
    fault: str = ""


@dataclass(frozen=True)
class IndexedRow(Row):
    """A row of the run form.

    Attributes:
        index: position among all rows sorted by uid, from 0.
    """

    index: int = field(kw_only=True)


LISTS = ("captions", "caption_sources")
FIELDS = tuple(f.name for f in fields(Row) if f.name not in ("extras", "fault"))
"""Fields that authors write, in their order."""
TEXTS = tuple(name for name in FIELDS if name not in LISTS)

_FIRST_EDITION = TEXTS[: TEXTS.index("split")]
ARROW: dict[str, pa.DataType] = {
    "text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "truth": pa.bool_(),
}  # fmt: skip
"""Types of `KINDS` in Parquet."""

FIRST_SCHEMA = pa.schema(
    [pa.field("index", pa.int64(), nullable=False)]
    + [pa.field(name, pa.string(), nullable=False) for name in _FIRST_EDITION],
    metadata={"gaussianverse.manifest": "1"},
)
"""Schema of the run form's first edition, which is still read."""

RESERVED = frozenset({
    "atlas_code_digest", "atlas_heldout_psnr", "atlas_made_with", "atlas_nbytes", "atlas_offset", "atlas_psnr",
    "atlas_sample",
    "atlas_sha256", "attempts", "backend", "background", "bbox_max_x", "bbox_max_y", "bbox_max_z",
    "bbox_min_x", "bbox_min_y", "bbox_min_z", "center_x", "center_y", "center_z", "code_digest", "colour_std",
    "complexity", "config_digest", "coverage", "device", "dtype", "error_class", "error_message",
    "error_text", "extras", "fault", "fit_digest", "fragment_sha256", "host", "images_sha256", "index",
    "layout", "loss", "lpips", "lpips_max", "lpips_sha256", "made_with", "metrics_on", "n_anchors", "n_blank",
    "n_dropped", "n_gaussians", "n_heldout", "n_padded", "n_pruned", "n_reference_views", "n_same_picture",
    "n_views", "n_views_used", "nbytes", "offset", "pad", "peak_mb", "pose_agreement", "psnr", "psnr_min",
    "reason", "reference_size", "round_trip_error", "sample", "schema_version", "seconds", "seconds_fit",
    "seconds_init", "seconds_load", "seconds_metrics", "seed", "sh_degree_in", "sh_psnr", "sha256", "shard",
    "size", "smoothness", "smoothness_appearance", "smoothness_unrolled", "splats_nbytes", "splats_offset",
    "splats_sample", "splats_sha256", "ssim", "ssim_min", "stage", "started", "status", "steps", "thinness",
    "transport_cost", "transport_gap", "transport_seconds", "unit", "views_doubtful", "views_nbytes",
    "views_offset", "views_sample", "views_sha256", "views_skipped", "input_sha256", "normal_agreement",
    "mask_agreement", "view_hash",
})  # fmt: skip
"""Names that columns of a manifest's author cannot have: those of the tables that a run makes."""


def arrow_schema(extras: Mapping[str, str] = {}) -> pa.Schema:
    """Schema of the run form.

    Args:
        extras: {name: one of `KINDS`} of the columns of the manifest's author.
    """
    own = [pa.field(name, pa.list_(pa.string()) if name in LISTS else pa.string(), nullable=False) for name in FIELDS]
    return pa.schema(
        [
            pa.field("index", pa.int64(), nullable=False),
            *own,
            pa.field("fault", pa.string(), nullable=False),
            *(pa.field(name, ARROW[kind], nullable=False) for name, kind in extras.items()),
        ],
        metadata={"gaussianverse.manifest": "2"},
    )


ARROW_SCHEMA = arrow_schema()
"""Schema of the run form without columns of the manifest's author."""


def extras_of(schema: pa.Schema) -> dict[str, str] | None:
    """{name: kind} of the author's columns of a run form's schema; None if it is no such schema."""
    kinds = {kind: name for name, kind in ARROW.items()}
    if _same(schema, FIRST_SCHEMA):
        return {}
    extras = {f.name: kinds.get(f.type, "") for f in list(schema)[len(ARROW_SCHEMA) :]}
    return extras if all(extras.values()) and _same(schema, arrow_schema(extras)) else None


def _same(one: pa.Schema, other: pa.Schema) -> bool:
    edition = b"gaussianverse.manifest"
    return [(f.name, f.type, f.nullable) for f in one] == [(f.name, f.type, f.nullable) for f in other] and (
        one.metadata or {}
    ).get(edition) == other.metadata[edition]


def row_from(entries: Mapping[str, Any]) -> Row:
    """Build a row from parsed JSON.

    Raises:
        ManifestError: missing keys, or values of another type; one fault each.
    """
    faults = [f"no {key!r}" for key in ("uid", "views") if key not in entries]
    values: dict[str, Any] = {}
    extras: dict[str, Scalar] = {}
    for key, value in entries.items():
        if key in LISTS:
            if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
                faults.append(f"{key!r} is {_shown(value)}, expected a list of texts")
            values[key] = tuple(value) if isinstance(value, list | tuple) else ()
        elif key in TEXTS:
            if not isinstance(value, str):
                faults.append(f'{key!r} is {_shown(value)}, expected text; write "" for unknown')
            values[key] = value
        elif not is_column_name(key):
            faults.append(
                f"a column cannot be called {_shown(key)}; use letters, digits and _, and none of the dataset's own "
                "names"
            )
        elif not isinstance(value, str | int | float | bool):
            faults.append(f"{key!r} is {_shown(value)}, expected a text, a number, true or false; leave out unknown")
        else:
            extras[key] = value
    if faults:
        raise ManifestError(faults)
    return completed(Row(**values, extras=extras))


def completed(row: Row) -> Row:
    """The row with `caption` and `captions`, and their sources, filled in from each other."""
    captions = row.captions or ((row.caption,) if row.caption else ())
    sources = row.caption_sources or tuple(row.caption_source for _ in captions)
    caption, source = row.caption, row.caption_source
    if captions and not caption:
        caption = captions[0]
    if sources and captions and not source:
        source = sources[0]
    return replace(row, captions=captions, caption_sources=sources, caption=caption, caption_source=source)


def faults_of(row: Row) -> list[str]:
    """List the faults of a single row; a missing caption is not one."""
    row = completed(row)
    faults = []
    if not _UID.fullmatch(row.uid):
        faults.append(f"uid {_shown(row.uid)}: only A-Z a-z 0-9 _ - are allowed, at least one")
    if len(row.uid) > MAX_UID:
        faults.append(f"uid {row.uid[:20]!r}..: {len(row.uid)} characters, at most {MAX_UID}")
    if not row.views:
        faults.append("'views' is empty; set it to the path or s3:// address of the object's renders")
    if not is_address(row.views):
        faults.append(f"views {row.views[:200]!r}: only paths and s3://bucket/key can be read")
    if row.format not in FORMATS:
        faults.append(f"unknown format {_shown(row.format)}; expected one of {', '.join(FORMATS)}")
    if row.split not in (*SPLITS, ""):
        faults.append(f'unknown split {_shown(row.split)}; expected one of {", ".join(SPLITS)}, or "" for none')
    if row.captions and row.caption != row.captions[0]:
        faults.append("'caption' is not the first of 'captions'; leave one of the two out")
    if len(row.captions) > MAX_CAPTIONS:
        faults.append(f"{len(row.captions)} captions, at most {MAX_CAPTIONS}")
    if len(row.caption_sources) != len(row.captions):
        faults.append(f"{len(row.caption_sources)} caption_sources for {len(row.captions)} captions")
    if row.caption_sources and row.caption_source != row.caption_sources[0]:
        faults.append("'caption_source' is not the first of 'caption_sources'; leave one of the two out")
    faults += _faults_of_texts(row)
    for name, number in row.extras.items():
        if isinstance(number, float) and not math.isfinite(number):
            faults.append(f"{name!r} is {number}, expected a finite number")
        elif isinstance(number, int) and not -(2**63) <= number < 2**63:
            faults.append(f"{name!r} is {_shown(number)}, expected an integer of 64 bits")
    if len(row.extras) > MAX_EXTRAS:
        faults.append(f"{len(row.extras)} columns beside the dataset's own, at most {MAX_EXTRAS}")
    return faults


def is_column_name(name: str) -> bool:
    """Whether a column of a manifest's author may have this name."""
    return name not in RESERVED and _NAME.fullmatch(name) is not None


def is_uid(text: str) -> bool:
    """Whether a manifest allows this uid, and it can be part of file names; other people's tables may hold others."""
    return len(text) <= MAX_UID and _UID.fullmatch(text) is not None


def is_column(name: str) -> bool:
    """Whether a column of a manifest's author may be called so."""
    return name not in RESERVED and name not in FIELDS and _NAME.fullmatch(name) is not None


def _faults_of_texts(row: Row) -> list[str]:
    """Texts that are too long, or have characters that cannot be shown."""
    texts = [(name, getattr(row, name), name == "caption") for name in TEXTS]
    texts += [("captions", text, True) for text in row.captions[1:]]
    texts += [("caption_sources", text, False) for text in row.caption_sources[1:]]
    texts += [(name, value, True) for name, value in row.extras.items() if isinstance(value, str)]
    faults = []
    for name, value, lines in texts:
        limit = MAX_CAPTION if lines else MAX_TEXT
        if len(value) > limit:
            faults.append(f"{name!r} has {len(value)} characters, at most {limit}")
        elif not value.isprintable() and (not lines or _unprintable(value)):
            faults.append(f"{name!r} has characters that are not printable: {_shown(value)}")
    return faults


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


def is_address(views: str) -> bool:
    """Whether `views` is a path, or s3://bucket/key; other URLs are not read."""
    return "://" not in views or _S3.fullmatch(views) is not None


def _unprintable(caption: str) -> bool:
    """Whether a caption holds lone surrogates or control characters other than white space."""
    return any(0xD800 <= ord(c) <= 0xDFFF or (ord(c) < 32 and c not in "\t\n\r") for c in caption)
