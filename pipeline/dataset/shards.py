"""Reads committed shards: which there are, their commit records and tables, and single objects."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.canonical_json import json_object, to_json
from gaussianverse.atlas.dataset_format import OK
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Storage, sha256_of
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.parquet import from_parquet
from gaussianverse.pipeline.dataset.records import Record, read
from gaussianverse.pipeline.dataset.schemas import FACTS, JOURNAL, STATS, Facts, is_count, is_sha256, known
from gaussianverse.pipeline.errors import FragmentError, PipelineError
from gaussianverse.pipeline.policy import REASONS


def committed_shards(storage: Storage) -> set[tuple[str, int]]:
    """(stage, shard) of every shard that exists."""
    found = (layout.parse_commit(entry.key) for entry in storage.list(layout.COMMITS))
    return {pair for pair in found if pair}


def read_commit(storage: Storage, stage: str, shard: int) -> dict[str, Any]:
    """A shard's commit record.

    Raises:
        NotFound: the shard does not exist.
        PipelineError: the record is damaged.
    """
    key = layout.commit(stage, shard)
    data = storage.get(key)
    try:
        record = json_object(data, PipelineError)
        _check_commit(record, stage, shard)
    except PipelineError as fault:
        raise PipelineError(f"{storage.url}/{key}: not this shard's commit record: {fault}") from fault
    return record


def _check_commit(record: dict[str, Any], stage: str, shard: int) -> None:
    if error := dataset_format.version_error(record.get("schema_version")):
        raise PipelineError(error)
    for name, expected in (("stage", stage), ("shard", shard)):
        if type(record.get(name)) is not type(expected) or record[name] != expected:
            raise PipelineError(f"{name} is {record.get(name)!r}, expected {expected!r}")
    if not is_sha256(record.get("config_digest")):
        raise PipelineError(f"config_digest is {record.get('config_digest')!r}, expected a hash")
    files, quarantined = record.get("files"), record.get("quarantined")
    named = {dataset_format.shard_tar(stage, shard), layout.stats(stage, shard)}
    if not isinstance(files, dict) or not named <= set(files) <= named | {layout.moments(shard)}:
        raise PipelineError(f"its files are not {' and '.join(sorted(named))}")
    for name, stored in files.items():
        if not (
            isinstance(stored, dict) and is_count(stored.get("nbytes")) and is_sha256(stored.get("sha256"))
        ):
            raise PipelineError(f"{name} has no size and hash")
    if not (
        isinstance(quarantined, dict)
        and set(REASONS).issuperset(quarantined)
        and all(map(is_count, quarantined.values()))
    ):
        raise PipelineError(f"quarantined is {quarantined!r}, expected a count for each reason")
    objects: Any = record.get("objects")
    samples: Any = record.get("samples")
    if not (is_count(objects) and is_count(samples) and objects == samples + sum(quarantined.values())):
        raise PipelineError(
            f"{objects!r} objects, {samples!r} samples, quarantined {quarantined}: no such sum"
        )


def stats_table(storage: Storage, stage: str, shard: int) -> pa.Table:
    """A committed shard's table of one stage. Raises NotFound, and PipelineError where it is damaged."""
    return from_parquet(STATS[stage], storage.get(layout.stats(stage, shard)))


def stats_rows(storage: Storage, stage: str, shard: int) -> list[Facts]:
    """The same as flat dicts."""
    rows: list[Facts] = stats_table(storage, stage, shard).to_pylist()
    return rows


def journal_rows(storage: Storage, stage: str, shard: int) -> list[Facts]:
    """A committed shard's journal as flat dicts. Raises like `stats_table`."""
    rows: list[Facts] = from_parquet(JOURNAL[stage], storage.get(layout.journal(stage, shard))).to_pylist()
    return rows


def read_record(storage: Storage, stage: str, shard: int, uid: str) -> Record:
    """What a stage made of an object: from its shard once that exists, else from its fragment.

    The shard comes first, since what is there is what counts: fragments may be deleted after the commit, and
    made again by a driver that does not know of it.

    Raises:
        NotFound: the stage has not done this object.
        FragmentError: the fragment, or the object's part of the shard, is damaged.
    """
    for _ in range(2):
        try:
            storage.size(layout.commit(stage, shard))
        except NotFound:
            try:
                return read(storage, stage, shard, uid)
            except NotFound:
                continue  # perhaps committed and cleaned up between the two questions
        return _from_shard(storage, stage, shard, uid)
    raise NotFound(f"{storage.url}/{layout.fragment(stage, shard, uid)}: neither fragment nor shard")


def _from_shard(storage: Storage, stage: str, shard: int, uid: str) -> Record:
    table = stats_table(storage, stage, shard)
    found = table.filter(pc.equal(table["uid"], uid)).to_pylist()
    if len(found) != 1:
        raise FragmentError(f"{layout.stats(stage, shard)}: {len(found)} rows of {uid}, expected one")
    (there,) = found
    facts = known(FACTS[stage], there)
    members = {dataset_format.facts_member(uid): to_json(facts)}
    if there["status"] == OK:
        key = dataset_format.shard_tar(stage, shard)
        data = bytes(storage.read(key, there["offset"], there["nbytes"]))
        if sha256_of(data) != there["sha256"]:
            raise FragmentError(f"{key}: the bytes of {uid} are not those that its table tells")
        members |= {
            dataset_format.main_member(stage, uid): data,
            dataset_format.caption_member(uid): str(there["caption"]).encode(),
        }
    return Record(facts, members)
