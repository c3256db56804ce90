"""Objects read back from shards, when their fragments are gone."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_runs import data_of, planned, publish_all, publish_one

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import ATLAS, SPLATS
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.dataset import layout, pack, shards
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.errors import FragmentError

Committed = tuple[LocalStorage, dict[str, shards.Record]]


@pytest.fixture
def committed(tmp_path: Path) -> Committed:
    """A committed shard without fragments, and what its fragments were."""
    storage = LocalStorage(tmp_path)
    run = planned(storage, ["a", "b", "c"])
    publish_all(storage, run, SPLATS, quarantined={"b"})
    before = {uid: shards.read_record(storage, SPLATS, 0, uid) for uid in "abc"}
    pack.pack(storage, run, SPLATS, 0)
    for uid in "abc":
        storage.delete(layout.fragment(SPLATS, 0, uid))
    return storage, before


def test_an_object_reads_the_same_from_its_shard_as_from_its_fragment(committed: Committed) -> None:
    storage, before = committed
    assert {uid: shards.read_record(storage, SPLATS, 0, uid) for uid in "abc"} == before
    assert not before["b"].ok
    assert before["c"].main(SPLATS) == data_of(SPLATS, "c")


def test_a_fragment_made_again_after_the_commit_does_not_count(committed: Committed) -> None:
    """A GPU's second fit has other bytes; what is in the shard stands."""
    storage, before = committed
    run = planned(storage, ["a", "b", "c"])
    row = {**shard_rows(storage, run, 0)[0], "shard": 0}
    publish_one(storage, run, SPLATS, row, data=b"other data of a")
    assert shards.read_record(storage, SPLATS, 0, "a") == before["a"]


def test_damage_in_the_shard_is_found(committed: Committed) -> None:
    storage, _ = committed
    key = dataset_format.shard_tar(SPLATS, 0)
    data = storage.get(key)
    storage.delete(key)
    storage.put_if_absent(key, data.replace(data_of(SPLATS, "c"), data_of(SPLATS, "d")))
    assert shards.read_record(storage, SPLATS, 0, "a").ok
    with pytest.raises(FragmentError, match="sha256 of c is not the one"):
        shards.read_record(storage, SPLATS, 0, "c")


def test_what_is_in_neither_is_not_found(tmp_path: Path, committed: Committed) -> None:
    storage, _ = committed
    with pytest.raises(NotFound, match="neither fragment nor shard"):
        shards.read_record(storage, ATLAS, 0, "a")
    with pytest.raises(FragmentError, match="0 rows of z"):
        shards.read_record(storage, SPLATS, 0, "z")
