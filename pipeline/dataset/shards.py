"""Reads committed shards: which there are, their commit records and tables, and single objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.canonical_json import json_object, to_json
from gaussianverse.atlas.dataset_format import ADDRESS, ATLAS, OK, READABLE_VERSIONS, SPLATS
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Storage, sha256_of
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.in_order import in_order
from gaussianverse.pipeline.dataset.parquet import other_columns, read_table
from gaussianverse.pipeline.dataset.records import Record, read
from gaussianverse.pipeline.dataset.schemas import Facts, is_count, is_sha256, journal_schema, like, stats_schema
from gaussianverse.pipeline.errors import FragmentError, PipelineError
from gaussianverse.pipeline.policy import REASONS


def committed_shards(storage: Storage) -> set[tuple[str, int]]:
    """(family, shard) of every shard that exists."""
    found = (layout.parse_commit(entry.key) for entry in storage.list(layout.COMMITS))
    return {pair for pair in found if pair}


def read_commit(storage: Storage, family: str, shard: int) -> dict[str, Any]:
    """The commit record of a shard.

    Raises:
        NotFound: the shard does not exist.
        PipelineError: the record is damaged, or of an unknown schema version.
    """
    key = layout.commit(family, shard)
    data = storage.get(key)
    try:
        record = json_object(data, PipelineError)
        _check_commit(record, family, shard)
    except PipelineError as error:
        raise PipelineError(f"{storage.url}/{key}: not the commit record of this shard: {error}") from error
    return record


def _check_commit(record: dict[str, Any], family: str, shard: int) -> None:
    if error := dataset_format.version_error(record.get("schema_version")):
        raise PipelineError(error)
    for name, expected in (("stage", family), ("shard", shard)):
        if type(record.get(name)) is not type(expected) or record[name] != expected:
            raise PipelineError(f"{name} is {record.get(name)!r}, expected {expected!r}")
    if not is_sha256(record.get("config_digest")):
        raise PipelineError(f"config_digest is {record.get('config_digest')!r}, expected a sha256")
    files, quarantined = record.get("files"), record.get("quarantined")
    named = {dataset_format.shard_tar(family, shard), layout.stats(family, shard)}
    if family == SPLATS and record.get("facts_only") is True:  # of a part that was taken without the splats
        named = {layout.stats(family, shard)}
    if not isinstance(files, dict) or not named <= set(files) <= named | {layout.moments(shard)}:
        raise PipelineError(f"its files are not {' and '.join(sorted(named))}")
    for name, stored in files.items():
        if not (isinstance(stored, dict) and is_count(stored.get("nbytes")) and is_sha256(stored.get("sha256"))):
            raise PipelineError(f"{name} has no size and hash")
    if not (
        isinstance(quarantined, dict)
        and set(REASONS).issuperset(quarantined)
        and all(map(is_count, quarantined.values()))
    ):
        raise PipelineError(f"quarantined is {quarantined!r}, expected a count for each reason")
    made = record.get("made_with", [])
    if not (isinstance(made, list) and all(map(_is_maker, made))):
        raise PipelineError(f"made_with is {made!r}, expected code_digest, versions and objects for each maker")
    objects: Any = record.get("objects")
    samples: Any = record.get("samples")
    if not (is_count(objects) and is_count(samples) and objects == samples + sum(quarantined.values())):
        raise PipelineError(
            f"{objects!r} objects, {samples!r} samples, quarantined {quarantined}: the numbers do not add up"
        )


def _is_maker(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    texts = [entry.get(name) for name in ("code_digest", "versions")]
    return all(isinstance(text, str) for text in texts) and is_count(entry.get("objects"))


@dataclass(frozen=True)
class Counts:
    """The objects of some shards, published and quarantined."""

    objects: int
    published: int
    reasons: dict[str, int]
    """Quarantined objects by reason, the most frequent first."""

    @property
    def quarantined(self) -> int:
        """Number of quarantined objects."""
        return sum(self.reasons.values())


def counts_of(storage: Storage, shards: Iterable[int]) -> Counts:
    """Count the objects of shards whose atlases are committed; raises the errors of `read_commit`."""
    objects = published = 0
    reasons: Counter[str] = Counter()
    for commit in in_order(storage, lambda shard: read_commit(storage, ATLAS, shard), shards):
        objects, published = objects + commit["objects"], published + commit["samples"]
        reasons.update(commit["quarantined"])
    return Counts(objects, published, dict(reasons.most_common()))


def stats_table(storage: Storage, family: str, shard: int) -> pa.Table:
    """The table of a committed shard. Raises NotFound, or PipelineError if it is damaged."""
    return stats_from(family, storage.get(layout.stats(family, shard)))


def stats_from(family: str, data: bytes) -> pa.Table:
    """The table of a shard, of any version that is read, with the columns of the manifest's author.

    Raises:
        PipelineError: it is damaged, has other columns, or empty cells.
    """
    table = read_table(data)
    if like(partial(stats_schema, family), table.schema, after=len(ADDRESS)) is None:
        raise other_columns(table)
    return _filled(table)


def _filled(table: pa.Table) -> pa.Table:
    if empty := [name for name in table.column_names if table[name].null_count]:
        raise PipelineError(f"empty cells in {', '.join(empty)}; no value of a dataset is ever null")
    return table


def stats_rows(storage: Storage, family: str, shard: int) -> list[Facts]:
    """The rows of `stats_table` as flat dicts."""
    rows: list[Facts] = stats_table(storage, family, shard).to_pylist()
    return rows


def journal_rows(storage: Storage, family: str, shard: int) -> list[Facts]:
    """The journal of a committed shard as flat dicts; raises the errors of `stats_table`."""
    table = read_table(storage.get(layout.journal(family, shard)))
    if all(journal_schema(family, version).names != table.schema.names for version in READABLE_VERSIONS):
        raise other_columns(table)
    rows: list[Facts] = _filled(table).to_pylist()
    return rows


def read_record(storage: Storage, family: str, shard: int, uid: str) -> Record:
    """The record of an object in a family: from its shard if that exists, else from its fragment.

    The shard has precedence: fragments may be deleted after the commit, and made again by a driver that does not
    know of the commit.

    Raises:
        NotFound: there is no such record yet.
        FragmentError: the fragment, or the object's part of the shard, is damaged.
    """
    for _ in range(2):
        try:
            storage.size(layout.commit(family, shard))
        except NotFound:
            try:
                return read(storage, family, shard, uid)
            except NotFound:
                continue  # perhaps committed and cleaned up between the two requests
        return _from_shard(storage, family, shard, uid)
    raise NotFound(f"{storage.url}/{layout.fragment(family, shard, uid)}: neither fragment nor shard")


def _from_shard(storage: Storage, family: str, shard: int, uid: str) -> Record:
    table = stats_table(storage, family, shard)
    found = table.filter(pc.equal(table["uid"], uid)).to_pylist()
    if len(found) != 1:
        raise FragmentError(f"{layout.stats(family, shard)}: {len(found)} rows of {uid}, expected one")
    (there,) = found
    facts = {name: value for name, value in there.items() if name not in ADDRESS}
    members = {dataset_format.facts_member(uid): to_json(facts)}
    if there["status"] == OK:
        members |= {
            dataset_format.main_member(family, uid): read_main(storage, family, shard, there),
            dataset_format.caption_member(uid): str(there["caption"]).encode(),
        }
    return Record(facts, members)


def read_main(storage: Storage, family: str, shard: int, row: Facts) -> bytes:
    """The main member of an object with a sample, by its row of the shard's table.

    Raises:
        NotFound: the shard does not exist.
        PipelineError: the dataset is a part that was taken without this family.
        FragmentError: the bytes are not those of the table.
    """
    key = dataset_format.shard_tar(family, shard)
    if row["sample"] == -1:
        raise PipelineError(
            f"{storage.url}/{key}: not in this part, which was taken without {family}; take one with them from the "
            f"whole dataset, or read them there"
        )
    data = bytes(storage.read(key, row["offset"], row["nbytes"]))
    if sha256_of(data) != row["sha256"]:
        raise FragmentError(f"{key}: the sha256 of {row['uid']} is not the one in its table")
    return data
