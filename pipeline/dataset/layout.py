"""Keys under a run's output that only the builder uses; those of the published dataset are in `dataset_format`.

    run.json                                    identity of the run, written first and never changed
    manifest/objects.parquet                    row group k is shard k
    _work/<family>/000123/<uid>.tar             fragments: one per object and family, whether it succeeded or not
    _work/runs/<family>/000123/<uid>.<..>.json  journal entry of that fragment (times, host)
    <family>/<family>-000123.tar                shards
    stats/<family>-000123.parquet               table of a shard: one row per object, quarantined ones included
    moments/moments-000123.npz                  statistics of the atlases of a shard
    _commits/<family>/000123.json               commit record: a shard exists if and only if this exists
    runs/<family>-000123.parquet                journal of a shard: times, hosts, attempts; not part of the dataset
    runs/summary-<when>-<who>.json              summary of one call
    versions/0002/version.json                  what version 2 is, written first and never changed
    versions/0002/objects.parquet               manifest of its new rows: row group j is shard first_shard + j
    versions/0002/origins.parquet               where the sample of each new row is taken from
    versions/0002/superseded.parquet            rows of its shards that do not count any more
    versions/0002/metadata.parquet ...          `FINAL` of this version
    report/index.html ...                       page to look at, made by `report`; not part of the dataset
    evaluation/evaluation.json ...              what `evaluate` measured; not part of the dataset
    croissant.json                              the dataset in Croissant's words; not part of it
    atlas_mean.npy ... _SUCCESS                 written by finalize, in the order of `FINAL`

Keys are '/'-separated. `_work/` may be deleted once `_SUCCESS` exists.
"""

from __future__ import annotations

import re

from gaussianverse.atlas.dataset_format import (
    ATLAS,
    FAMILIES,
    OBJECTS,
    SPLATS,
    SUCCESS,
    SUMS,
    VERSION,
    VERSIONS,
    family_checked,
    shard_number,
    version_key,
)
from gaussianverse.manifests.schema import MAX_UID, is_uid
from gaussianverse.pipeline.store import probes

STAGES = (SPLATS, ATLAS)
"""Families that every run makes, in order. Reference views are made by the tasks of the first."""

RUN = "run.json"
MANIFEST = "manifest/objects.parquet"
WORK = "_work/"
COMMITS = "_commits/"
JOURNAL = "runs/"
PAGE = "report/"
EVALUATION = "evaluation/"
CROISSANT = "croissant.json"

_FAMILY = "|".join(FAMILIES)
_COMMIT = re.compile(rf"_commits/({_FAMILY})/(\d+)\.json")
_OF_SHARD = re.compile(
    rf"(?:({_FAMILY})/\1-(\d+)\.tar|stats/(?:{_FAMILY})-(\d+)\.parquet|moments/moments-(\d+)\.npz"
    rf"|_commits/(?:{_FAMILY})/(\d+)\.json)"
)
_SCRATCH = re.compile(rf"_work/(?:runs/)?(?:{_FAMILY})/(\d+)/[^/]+|runs/(?:{_FAMILY})-(\d+)\.parquet")
_FRAGMENT = re.compile(rf"_work/({_FAMILY})/(\d+)/([A-Za-z0-9_-]+)\.tar")


def _checked(family: str, uid: str | None = None) -> str:
    if uid is not None and not is_uid(uid):
        raise ValueError(f"uid {uid!r} cannot be part of a key: at most {MAX_UID} of A-Z a-z 0-9 _ - are allowed")
    return family_checked(family)


def run_key(number: int) -> str:
    """What a version is: run.json, or version.json of a version beyond the first."""
    return RUN if number == 1 else version_key(number, VERSION)


def manifest_key(number: int) -> str:
    """Manifest of the rows whose shards a version made."""
    return MANIFEST if number == 1 else version_key(number, OBJECTS)


def fragments(family: str, shard: int) -> str:
    """Prefix of the fragments of a shard."""
    return f"_work/{_checked(family)}/{shard_number(shard)}/"


def fragment(family: str, shard: int, uid: str) -> str:
    """Fragment of an object: one key for both outcomes, so that an object cannot both succeed and be quarantined."""
    return f"{fragments(_checked(family, uid), shard)}{uid}.tar"


def run_records(family: str, shard: int) -> str:
    """Prefix of the journal entries of a shard's fragments."""
    return f"_work/runs/{_checked(family)}/{shard_number(shard)}/"


def run_record(family: str, shard: int, uid: str, sha256: str) -> str:
    """Journal entry of the fragment with this sha256."""
    return f"{run_records(_checked(family, uid), shard)}{uid}.{sha256[:16]}.json"


def stats(family: str, shard: int) -> str:
    """Table of a shard, one row per object of the manifest."""
    return f"stats/{_checked(family)}-{shard_number(shard)}.parquet"


def journal(family: str, shard: int) -> str:
    """Journal of a shard: times, hosts and attempts."""
    return f"{JOURNAL}{_checked(family)}-{shard_number(shard)}.parquet"


def moments(shard: int) -> str:
    """Statistics of the atlases of a shard, see `Moments`."""
    return f"moments/moments-{shard_number(shard)}.npz"


def commit(family: str, shard: int) -> str:
    """Commit record of a shard."""
    return f"{COMMITS}{_checked(family)}/{shard_number(shard)}.json"


def summary(name: str) -> str:
    """Summary of one call."""
    return f"{JOURNAL}summary-{name}.json"


def parse_commit(key: str) -> tuple[str, int] | None:
    """(family, shard) of the key of a commit record; None for any other key."""
    match = _COMMIT.fullmatch(key)
    return (match[1], int(match[2])) if match else None


def parse_fragment(key: str) -> tuple[str, int, str] | None:
    """(family, shard, uid) of the key of a fragment; None for any other key."""
    match = _FRAGMENT.fullmatch(key)
    return (match[1], int(match[2]), match[3]) if match else None


def shard_of(key: str) -> int | None:
    """The number of the shard that a published file belongs to; None for any other key."""
    match = _OF_SHARD.fullmatch(key)
    return int(next(filter(None, match.groups()[1:]))) if match else None


def scratch_of(key: str) -> int | None:
    """The number of the shard that a fragment, its journal entry, or a shard's journal belongs to; else None."""
    match = _SCRATCH.fullmatch(key)
    return int(next(filter(None, match.groups()))) if match else None


def in_dataset(key: str) -> bool:
    """Whether some SHA256SUMS lists this key: not scratch, journals, a page, an evaluation, sums or `_SUCCESS`."""
    if key.startswith((WORK, JOURNAL, probes.PREFIX, PAGE, EVALUATION)) or key == CROISSANT:
        return False
    return (key.rpartition("/")[2] if key.startswith(VERSIONS) else key) not in (SUMS, SUCCESS)
