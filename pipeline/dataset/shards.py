"""What is read of shards that exist: their tables, and single objects."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.records import Record, read
from gaussianverse.pipeline.dataset.schemas import FACTS, OK, STATS, Facts, from_parquet, known, to_json
from gaussianverse.pipeline.errors import FragmentError, NotFound
from gaussianverse.pipeline.store.storage import Storage, sha256_of


def stats_table(storage: Storage, stage: str, shard: int) -> pa.Table:
    """A committed shard's table of one stage. Raises NotFound, and PipelineError where it is damaged."""
    return from_parquet(STATS[stage], storage.get(layout.stats(stage, shard)))


def stats_rows(storage: Storage, stage: str, shard: int) -> list[Facts]:
    """The same as flat dicts."""
    rows: list[Facts] = stats_table(storage, stage, shard).to_pylist()
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
    members = {f"{uid}.json": to_json(facts)}
    if there["status"] == OK:
        key = layout.shard_tar(stage, shard)
        data = storage.get_range(key, there["offset"], there["nbytes"])
        if sha256_of(data) != there["sha256"]:
            raise FragmentError(f"{key}: the bytes of {uid} are not those that its table tells")
        members |= {layout.main_member(stage, uid): data, f"{uid}.txt": str(there["caption"]).encode()}
    return Record(facts, members)
