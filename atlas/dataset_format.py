"""The published dataset as a format: its versions, files, shards, members and channels, each named here alone.

    atlas/atlas-000123.tar        per object <uid>.atlas.npy, <uid>.json (facts), <uid>.txt (caption)
    splats/splats-000123.tar      per object <uid>.splat.npz, <uid>.json, <uid>.txt
    views/views-000123.tar        per object <uid>.cameras.npz, <uid>.json, <uid>.txt, <uid>.view00.png and so on
    atlas_mean.npy ... _SUCCESS   about all objects, written in the order of `FINAL`
    versions/0002/...             the same files about version 2, and its own `VERSION`; version 1 is the root

The newest version is the highest that has its `_SUCCESS`; shards of all versions lie beside one another.

The builder writes it and the reader reads it. Both import this module, which imports only the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

SCHEMA_VERSION = 2
"""The version that is written."""
READABLE_VERSIONS = (1, 2)

CHANNEL_NAMES = (
    "offset_x", "offset_y", "offset_z", "opacity", "red", "green", "blue", "opacity",
    "scale_x", "scale_y", "scale_z", "opacity", "quat_w", "quat_x", "quat_y", "quat_z",
)  # fmt: skip
CHANNELS = len(CHANNEL_NAMES)
OFFSET, ALBEDO, SCALE, QUATERNION = slice(0, 3), slice(4, 7), slice(8, 11), slice(12, 16)
OPACITY_COPIES = (3, 7, 11)
DTYPES = ("float32", "float16")
"""Types of a stored atlas, which is little-endian and in C order."""

OK, QUARANTINED = "ok", "quarantined"
"""Status of an object: it has a sample, or only a row with the reason why not."""

SPLATS, ATLAS, VIEWS = "splats", "atlas", "views"
FAMILIES = (SPLATS, ATLAS, VIEWS)
"""Kinds of shards; every dataset has the first two."""

MAIN_SUFFIX = {SPLATS: "splat.npz", ATLAS: "atlas.npy", VIEWS: "cameras.npz"}
"""The member that holds the arrays; of an atlas and of views it is the first in the sample."""
MAX_VIEWS = 99
"""Reference views per object; their names have two digits."""

MEAN, STD, POINTS = "atlas_mean.npy", "atlas_std.npy", "sphere_points.npy"
CHANNEL_STATISTICS = "channels.json"
STATISTICS = (MEAN, STD, CHANNEL_STATISTICS, POINTS)
"""Files of statistics of the arrays, listed in index.json with their hashes."""
METADATA, QUARANTINE = "metadata.parquet", "quarantine.parquet"
INDEX, CARD, SUMS, SUCCESS = "index.json", "README.md", "SHA256SUMS", "_SUCCESS"
FINAL = (*STATISTICS, METADATA, QUARANTINE, INDEX, CARD, SUMS, SUCCESS)

VERSIONS = "versions/"
VERSION = "version.json"
"""What a version beyond the first is: its parent, the shards that count and what changed."""
OBJECTS, ORIGINS, SUPERSEDED = "objects.parquet", "origins.parquet", "superseded.parquet"
"""Of a version beyond the first: its new rows, where each of them comes from, and the rows that do not count any
more."""
MAX_VERSION = 9999

ADDRESS = ("sample", "offset", "nbytes", "sha256")
"""Address of a sample's main member in its shard; metadata.parquet has these columns for each family."""


def version_error(version: object) -> str:
    """The reason why a dataset of this schema version cannot be read; "" if it can."""
    if type(version) is int and version in READABLE_VERSIONS:
        return ""
    known = ", ".join(map(str, READABLE_VERSIONS))
    newer = type(version) is int and version > SCHEMA_VERSION
    remedy = "; a newer gaussianverse wrote it, install that" if newer else ""
    return f"schema version {version!r}, this gaussianverse reads {known}{remedy}"


_VERSION_KEY = re.compile(r"versions/(\d{4})/(.+)")


def version_key(number: int, name: str) -> str:
    """Key of one of `FINAL`, or of another file of a version. Raises ValueError if there is no such version."""
    if not 1 <= number <= MAX_VERSION:
        raise ValueError(f"version {number}: expected 1 to {MAX_VERSION}")
    return name if number == 1 else f"{VERSIONS}{number:04d}/{name}"


def parse_version_key(key: str) -> tuple[int, str] | None:
    """(version, name) of a key of a version beyond the first; None for any other key."""
    match = _VERSION_KEY.fullmatch(key)
    return (int(match[1]), match[2]) if match and int(match[1]) > 1 else None


def finished_versions(below_versions: Iterable[str], root_has_success: bool) -> list[int]:
    """Numbers of the versions that are finished, ascending.

    Args:
        below_versions: the keys below `VERSIONS`.
        root_has_success: whether the key `SUCCESS` exists, so that version 1 is finished.
    """
    parsed = (parse_version_key(key) for key in below_versions)
    later = {found[0] for found in parsed if found and found[1] == SUCCESS}
    return sorted({1, *later} if root_has_success else later)


def shard_number(shard: int) -> str:
    """A shard's number as keys have it. Raises ValueError if it is negative."""
    if shard < 0:
        raise ValueError(f"shard {shard} is negative")
    return f"{shard:06d}"


def shard_tar(family: str, shard: int) -> str:
    """Key of a shard."""
    return f"{family_checked(family)}/{family}-{shard_number(shard)}.tar"


def family_checked(family: str) -> str:
    """The family itself. Raises ValueError if there is no such family."""
    if family not in FAMILIES:
        raise ValueError(f"family {family!r} is none of {', '.join(FAMILIES)}")
    return family


def main_member(family: str, uid: str) -> str:
    """Name of the member that holds an object's arrays."""
    return f"{uid}.{MAIN_SUFFIX[family_checked(family)]}"


def facts_member(uid: str) -> str:
    """Name of the member that holds an object's facts."""
    return f"{uid}.json"


def caption_member(uid: str) -> str:
    """Name of the member that holds an object's caption."""
    return f"{uid}.txt"


def view_suffixes(count: int) -> list[str]:
    """Suffixes of an object's reference views, in their order, which is also that of the names."""
    return [f"view{k:02d}.png" for k in range(count)]


def member_names(family: str, uid: str, n_views: int = 0) -> list[str]:
    """Names of a sample's members in the order in which they lie in the shard.

    Args:
        family: of the shard.
        uid: of the object.
        n_views: reference views of the object, where the family is `VIEWS`.
    """
    views = view_suffixes(n_views) if family == VIEWS else []
    return sorted([main_member(family, uid), facts_member(uid), caption_member(uid), *(f"{uid}.{v}" for v in views)])


def address_column(family: str, name: str) -> str:
    """The column of metadata.parquet for one of `ADDRESS`."""
    return f"{family}_{name}"


def sums_file(sums: Mapping[str, str]) -> bytes:
    """SHA256SUMS for {key: hex sha256}, as `sha256sum -c` reads it; `_SUCCESS` is the same for SHA256SUMS alone."""
    return "".join(f"{digest}  {key}\n" for key, digest in sorted(sums.items())).encode()


def read_sums(data: bytes) -> dict[str, str]:
    """{key: hex sha256} of a file of `sums_file`; lines of another form give keys that no file has."""
    lines = (line.partition("  ") for line in data.decode(errors="replace").splitlines())
    return {key: digest for digest, _, key in lines}
