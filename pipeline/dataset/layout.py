"""Every key under a run's output, in one place. Keys are '/'-separated and relative to the output.

    run.json                                  frozen identity, written before anything else
    manifest/objects.parquet                  row group k is shard k
    _work/<stage>/000123/<uid>.tar            fragments: one per object and stage, whatever became of it
    _work/runs/<stage>/000123/<uid>.<..>.json what making that very fragment took (times, host)
    <stage>/<stage>-000123.tar                shards; of the stages, and of views/ where a run asks for them
    stats/<stage>-000123.parquet              one row per object of the manifest, the quarantined included
    moments/moments-000123.npz
    _commits/<stage>/000123.json              a shard exists if and only if this exists
    runs/<stage>-000123.parquet               the journal: times, hosts, attempts; no part of the dataset
    runs/summary-<when>-<who>.json            what one call did, and its goodput
    revisions/001/...                         the same tree again, of objects that were given up before
    atlas_mean.npy ... _SUCCESS               written by finalize, in the order of `FINAL`

`_work/` may be deleted once `_SUCCESS` exists.
"""

from __future__ import annotations

import re

from gaussianverse.atlas.dataset_format import (
    ATLAS,
    FAMILIES,
    SPLATS,
    SUCCESS,
    SUMS,
    family_checked,
    shard_number,
)
from gaussianverse.pipeline.store import probes

STAGES = (SPLATS, ATLAS)
"""Of every run, in their order. The reference views are made by the first stage's task, and packed like a stage."""

RUN = "run.json"
MANIFEST = "manifest/objects.parquet"
WORK = "_work/"
COMMITS = "_commits/"
JOURNAL = "runs/"
REVISIONS = "revisions/"
MAX_REVISIONS = 999

_UID = re.compile(r"[A-Za-z0-9_-]+")
_FAMILY = "|".join(FAMILIES)
_COMMIT = re.compile(rf"_commits/({_FAMILY})/(\d+)\.json")
_FRAGMENT = re.compile(rf"_work/({_FAMILY})/(\d+)/([A-Za-z0-9_-]+)\.tar")


def _checked(family: str, uid: str | None = None) -> str:
    if uid is not None and not _UID.fullmatch(uid):
        raise ValueError(f"uid {uid!r} cannot be part of a key: only A-Z a-z 0-9 _ - are allowed")
    return family_checked(family)


def fragments(stage: str, shard: int) -> str:
    """Prefix of a shard's fragments of one stage."""
    return f"_work/{_checked(stage)}/{shard_number(shard)}/"


def fragment(stage: str, shard: int, uid: str) -> str:
    """An object's fragment: one key for both outcomes, so an object cannot be both done and quarantined."""
    return f"{fragments(_checked(stage, uid), shard)}{uid}.tar"


def run_records(stage: str, shard: int) -> str:
    """Prefix of the records beside a shard's fragments."""
    return f"_work/runs/{_checked(stage)}/{shard_number(shard)}/"


def run_record(stage: str, shard: int, uid: str, sha256: str) -> str:
    """What it took to make the fragment with this sha256."""
    return f"{run_records(_checked(stage, uid), shard)}{uid}.{sha256[:16]}.json"


def stats(stage: str, shard: int) -> str:
    """A shard's table, one row per object of the manifest."""
    return f"stats/{_checked(stage)}-{shard_number(shard)}.parquet"


def journal(stage: str, shard: int) -> str:
    """A shard's table of times, hosts and attempts."""
    return f"{JOURNAL}{_checked(stage)}-{shard_number(shard)}.parquet"


def moments(shard: int) -> str:
    """Count, mean and M2 of a shard's atlases."""
    return f"moments/moments-{shard_number(shard)}.npz"


def commit(stage: str, shard: int) -> str:
    """The record that makes a shard exist."""
    return f"{COMMITS}{_checked(stage)}/{shard_number(shard)}.json"


def summary(name: str) -> str:
    """What one call did."""
    return f"{JOURNAL}summary-{name}.json"


def revision(number: int) -> str:
    """Folder of a revision, from 1."""
    if not 1 <= number <= MAX_REVISIONS:
        raise ValueError(f"revision {number}: expected 1 to {MAX_REVISIONS}")
    return f"{REVISIONS}{number:03d}"


def parse_commit(key: str) -> tuple[str, int] | None:
    """(stage, shard) of a commit key; None for any other key."""
    match = _COMMIT.fullmatch(key)
    return (match[1], int(match[2])) if match else None


def parse_fragment(key: str) -> tuple[str, int, str] | None:
    """(stage, shard, uid) of a fragment key; None for any other key."""
    match = _FRAGMENT.fullmatch(key)
    return (match[1], int(match[2]), match[3]) if match else None


def in_dataset(key: str) -> bool:
    """Whether SHA256SUMS covers this key: not scratch, journal or revision, not SHA256SUMS and later."""
    return not key.startswith((WORK, JOURNAL, probes.PREFIX, REVISIONS)) and key not in (SUMS, SUCCESS)
