"""Rows of a manifest, one object each: fields, limits and faults."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
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
MAX_UID = 128  # characters: a uid becomes part of file names

_UID = re.compile(r"[A-Za-z0-9_-]+")
_S3 = re.compile(r"s3://[^/]+/.+", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """One object. All fields are text and never None; unknown is "".

    Attributes:
        uid: unique name, of A-Z a-z 0-9 _ - only, since it becomes a file name and a WebDataset key.
        views: location of its renders: a path, in the authoring form relative to the manifest's folder, or
            s3://bucket/key.
        format: "gobjaverse", "transforms", or "auto" to detect which; "splats" for 3D Gaussians, which are
            not fitted, "splats-bgr" if their red and blue are exchanged.
        category: one of `CATEGORIES`, or "" for objects outside GObjaverse.
        license: licence of the object, as an SPDX identifier if there is one, e.g. "CC-BY-4.0".
        caption: text that describes the object.
        caption_source: source of the caption, e.g. "Cap3D".
        source_id: origin of the object, e.g. "objaverse/<uid>".
    """

    uid: str
    views: str
    format: str = "auto"
    category: str = ""
    license: str = ""
    caption: str = ""
    caption_source: str = ""
    source_id: str = ""


@dataclass(frozen=True)
class IndexedRow(Row):
    """A row of the run form.

    Attributes:
        index: position among all rows sorted by uid, from 0.
    """

    index: int = field(kw_only=True)


FIELDS = tuple(f.name for f in fields(Row))

ARROW_SCHEMA = pa.schema(
    [pa.field("index", pa.int64(), nullable=False)]
    + [pa.field(name, pa.string(), nullable=False) for name in FIELDS],
    metadata={"gaussianverse.manifest": "1"},
)


def row_from(entries: Mapping[str, Any]) -> Row:
    """Build a row from parsed JSON.

    Raises:
        ManifestError: unknown or missing keys, or values that are not text; one fault each.
    """
    faults = [f"unknown key {key!r}; the keys are {', '.join(FIELDS)}" for key in entries if key not in FIELDS]
    faults += [f"no {key!r}" for key in ("uid", "views") if key not in entries]
    for key, value in entries.items():
        if key in FIELDS and not isinstance(value, str):
            faults.append(f'{key!r} is {value!r}, expected text; write "" for unknown')
    if faults:
        raise ManifestError(faults)
    return Row(**entries)


def faults_of(row: Row) -> list[str]:
    """List the faults of a single row; a missing caption is not one."""
    faults = []
    if not _UID.fullmatch(row.uid):
        faults.append(f"uid {row.uid!r}: only A-Z a-z 0-9 _ - are allowed, at least one")
    if len(row.uid) > MAX_UID:
        faults.append(f"uid {row.uid[:20]!r}..: {len(row.uid)} characters, at most {MAX_UID}")
    if not row.views:
        faults.append("'views' is empty; set it to the path or s3:// address of the object's renders")
    if not is_address(row.views):
        faults.append(f"views {row.views[:200]!r}: only paths and s3://bucket/key can be read")
    if row.format not in FORMATS:
        faults.append(f"unknown format {row.format!r}; expected one of {', '.join(FORMATS)}")
    if row.category not in (*CATEGORIES, ""):
        faults.append(f'unknown category {row.category!r}; expected one of {", ".join(CATEGORIES)}, or "" for none')
    for name in FIELDS:
        value = getattr(row, name)
        if not value.isprintable() and (name != "caption" or _unprintable(value)):
            faults.append(f"{name!r} has characters that are not printable: {value[:80]!r}")
    return faults


def is_address(views: str) -> bool:
    """Whether `views` is a path, or s3://bucket/key; other URLs are not read."""
    return "://" not in views or _S3.fullmatch(views) is not None


def _unprintable(caption: str) -> bool:
    """Whether a caption holds lone surrogates or control characters other than white space."""
    return any(0xD800 <= ord(c) <= 0xDFFF or (ord(c) < 32 and c not in "\t\n\r") for c in caption)
