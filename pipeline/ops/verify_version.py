"""Checks of what a version of a dataset says of itself: its sums, its parent, and the rows that no longer count."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import pyarrow as pa

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import (
    ADDRESS,
    ATLAS,
    FINAL,
    OBJECTS,
    ORIGINS,
    SUCCESS,
    SUMS,
    SUPERSEDED,
    VERSION,
    VERSIONS,
    address_column,
    parse_version_key,
)
from gaussianverse.atlas.store.errors import NotFound, StoreRefused
from gaussianverse.atlas.store.storage import Storage, sha256_of
from gaussianverse.pipeline.dataset import layout, run_file
from gaussianverse.pipeline.dataset.parquet import read_table
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.shards import stats_table
from gaussianverse.pipeline.dataset.versions import CORRECTED, REMOVED, REPLACED, Version
from gaussianverse.pipeline.errors import PipelineError

_OF_VERSIONS = frozenset({*FINAL, VERSION, OBJECTS, ORIGINS, SUPERSEDED})
_MOST = 20
"""Uids that one fault names."""


def faults_of_sums(storage: Storage, version: Version) -> Iterator[str]:
    """Check that SHA256SUMS lists every file that a version counts, with its hash, and that no stranger is there."""
    key, done = version.key(SUMS), version.key(SUCCESS)
    data, success = found(storage, key), found(storage, done)
    if data is None or success is None:
        what = "dataset" if version.number == 1 else "version"
        yield f"{key if data is None else done}: missing; the {what} is not finalized"
        return
    if success != dataset_format.sums_file({key: sha256_of(data)}):
        yield f"{done}: does not hold the sha256 of {key}"
    sums = dataset_format.read_sums(data)
    present = {entry.key for entry in storage.list("") if layout.in_dataset(entry.key)}
    others = [] if present == set(sums) else _other_runs(storage, version)
    yield from (f"{name}: in {key} but missing" for name in sorted(set(sums) - present))
    yield from (f"{name}: not in {key}" for name in sorted(present - set(sums)) if not _of_another(name, others))
    for name in sorted(present & set(sums)):
        try:
            if sha256_of(storage.get(name)) != sums[name]:
                yield f"{name}: its sha256 is not that of {key}"
        except (NotFound, StoreRefused) as error:
            yield f"{name}: cannot be read: {error}"


def found(storage: Storage, key: str) -> bytes | None:
    """The bytes under a key; None if it is missing."""
    try:
        return storage.get(key)
    except NotFound:
        return None


def _other_runs(storage: Storage, version: Version) -> list[Run]:
    """The runs of all versions but this one, finished or not, that can be read."""
    parsed = (parse_version_key(entry.key) for entry in storage.list(VERSIONS))
    runs = []
    for number in sorted({1, *(key[0] for key in parsed if key and key[1] == VERSION)} - {version.number}):
        try:
            runs.append(run_file.load(storage, number))
        except (NotFound, PipelineError):
            continue  # a fault of that version
    return runs


def _of_another(key: str, runs: list[Run]) -> bool:
    """Whether a file belongs to another version: it is about that, or of a shard that its run makes."""
    if parsed := parse_version_key(key):
        return parsed[1] in _OF_VERSIONS and parsed[0] in [run.number for run in runs]
    shard = layout.shard_of(key)
    if shard is not None:
        return any(shard in run.shards for run in runs)
    return key in (*FINAL, layout.RUN, layout.MANIFEST) and 1 in [run.number for run in runs]


def faults_of_rows(storage: Storage, version: Version) -> Iterator[str]:
    """Check a version's parent, what it took over, that each row that no longer counts was there, and that no object
    counts twice."""
    if version.number > 1:
        parent = dataset_format.version_key(version.parent, SUMS)
        sums = found(storage, parent)  # gone once the parent is purged
        if sums is not None and sha256_of(sums) != version.identity["parent_sums_sha256"]:
            yield f"{version.run.key}: parent_sums_sha256 is not the sha256 of {parent}"
        yield from _origins(storage, version)
    lost, counted = version.superseded.table, Counter[str]()
    for shard in version.shards:
        tables = {family: stats_table(storage, family, shard) for family in version.families}
        counted.update(version.live(tables[ATLAS], shard)["uid"].to_pylist())
        if lost is not None and len(version.superseded.in_shard(shard)):
            yield from _as_they_were(version, shard, tables, lost)
    if lost is not None:
        strange = sorted(set(lost["shard"].to_pylist()) - set(version.shards))
        yield from (f"{version.key(SUPERSEDED)}: shard {shard} does not count" for shard in strange)
    if twice := [uid for uid, count in counted.items() if count > 1]:
        named = ", ".join(sorted(twice)[:_MOST])
        yield f"{version.run.key}: {len(twice)} objects count more than once: {named}"


def _origins(storage: Storage, version: Version) -> Iterator[str]:
    """Check that what was taken over into the version's own shards has the arrays of where it comes from."""
    key = version.key(ORIGINS)
    data = storage.get(key)
    if sha256_of(data) != version.identity["origins_sha256"]:
        yield f"{key}: its sha256 is not that of {version.run.key}"
        return
    taken: dict[int, set[str]] = defaultdict(set)
    for row in read_table(data).to_pylist() if data else ():
        if row["shard"] != -1:
            taken[row["shard"]].add(row["uid"])
    for family in version.run.held:
        new = {uid: sha256 for k in version.run.shards for uid, sha256 in _arrays(storage, family, k).items()}
        for shard, uids in sorted(taken.items()):
            try:
                old = _arrays(storage, family, shard)
            except NotFound:  # purged, with the versions that counted it
                continue
            for uid in sorted(uids):
                if uid not in old or new.get(uid) != old[uid]:
                    yield f"{key}: {uid}: its arrays in {family} are not those of shard {shard}, where it comes from"


def _arrays(storage: Storage, family: str, shard: int) -> dict[str, str]:
    """The sha256 of the main member of each object of a shard, "" of one without a sample."""
    table = stats_table(storage, family, shard)
    return dict(zip(table["uid"].to_pylist(), table["sha256"].to_pylist(), strict=True))


def _as_they_were(version: Version, shard: int, tables: dict[str, pa.Table], lost: pa.Table) -> Iterator[str]:
    key = version.key(SUPERSEDED)
    there = {family: {row["index"]: row for row in table.to_pylist()} for family, table in tables.items()}
    for row in lost.filter(pa.array([number == shard for number in lost["shard"].to_pylist()])).to_pylist():
        for family, rows in there.items():
            address = {name: row[address_column(family, name)] for name in ADDRESS}
            own = rows.get(row["index"])
            if own is None or own["uid"] != row["uid"] or any(own[name] != address[name] for name in ADDRESS):
                yield f"{key}: {row['uid']}: not a row of {layout.stats(family, shard)}"
        since = 1 < row["since"] <= version.number
        if not since or row["change"] not in (REMOVED, REPLACED, CORRECTED):
            yield f"{key}: {row['uid']}: {row['change']!r} since version {row['since']}"
