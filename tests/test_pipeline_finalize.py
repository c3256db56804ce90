import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pipeline_runs import data_of, dataset, planned, publish_all

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.arrays import read_npy
from gaussianverse.atlas.dataset_format import ATLAS, SPLATS
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.storage import sha256_of
from gaussianverse.pipeline.dataset import layout, pack
from gaussianverse.pipeline.dataset.finalize import finalize, is_finalized
from gaussianverse.pipeline.dataset.parquet import from_parquet
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import METADATA, QUARANTINE
from gaussianverse.pipeline.errors import PipelineError, ShardConflict

UIDS = ["a", "b", "c", "d", "e"]


def packed(root: Path, quarantined: set[str], shard_size: int = 2) -> tuple[LocalStorage, Run]:
    storage = LocalStorage(root)
    run = planned(storage, UIDS, shard_size=shard_size)
    publish_all(storage, run, SPLATS, quarantined=quarantined & {"b"})
    publish_all(storage, run, ATLAS, quarantined=quarantined)
    for stage in layout.STAGES:
        for shard in range(run.n_shards):
            pack.pack(storage, run, stage, shard)
    return storage, run


def test_tables_have_every_object_once_with_its_last_state(tmp_path: Path) -> None:
    storage, run = packed(tmp_path, {"b", "d"})
    finalize(storage, run)
    rows = from_parquet(METADATA, storage.get(dataset_format.METADATA)).to_pylist()
    assert [(r["index"], r["uid"], r["shard"]) for r in rows] == [(i, u, i // 2) for i, u in enumerate(UIDS)]
    assert [r["status"] for r in rows] == ["ok", "quarantined", "ok", "quarantined", "ok"]
    assert [r["splats_sample"] for r in rows] == [0, -1, 0, 1, 0]
    assert [r["atlas_sample"] for r in rows] == [0, -1, 0, -1, 0]
    lost = from_parquet(QUARANTINE, storage.get(dataset_format.QUARANTINE)).to_pylist()
    assert [(r["uid"], r["stage"], r["reason"], r["caption"]) for r in lost] == [
        ("b", "splats", "bad_input", "caption of b"), ("d", "atlas", "bad_input", "caption of d"),
    ]  # fmt: skip


def test_an_objects_arrays_are_one_range_read_away(tmp_path: Path) -> None:
    storage, run = packed(tmp_path, {"b"})
    finalize(storage, run)
    for r in from_parquet(METADATA, storage.get(dataset_format.METADATA)).to_pylist():
        for stage in layout.STAGES:
            if r["status"] == "ok":
                key = dataset_format.shard_tar(stage, r["shard"])
                data = storage.read(key, r[f"{stage}_offset"], r[f"{stage}_nbytes"])
                assert data == data_of(stage, r["uid"])
                assert sha256_of(data) == r[f"{stage}_sha256"]


def test_the_index_names_shards_sizes_and_totals(tmp_path: Path) -> None:
    storage, run = packed(tmp_path, {"b"})
    finalize(storage, run)
    index = json.loads(storage.get(dataset_format.INDEX))
    assert (index["objects"], index["samples"], index["size"]) == (5, 4, 8)
    assert index["uids_sha256"] == sha256_of(b"a\nc\nd\ne")
    assert [(s["shard"], s["objects"], s["atlas"]["samples"]) for s in index["shards"]] == [
        (0, 2, 1), (1, 2, 2), (2, 1, 1),
    ]  # fmt: skip
    for shard in index["shards"]:
        for stage in layout.STAGES:
            data = storage.get(shard[stage]["key"])
            assert (shard[stage]["nbytes"], shard[stage]["sha256"]) == (len(data), sha256_of(data))
    atlases = [read_npy(data_of(ATLAS, uid)) for uid in "acde"]
    np.testing.assert_allclose(read_npy(storage.get(dataset_format.MEAN)), np.mean(atlases, 0), atol=1e-6)


def test_success_comes_last_and_holds_the_sum_of_the_sums(tmp_path: Path) -> None:
    storage, run = packed(tmp_path, set())
    keys: list[str] = []
    put = storage.put_if_absent
    storage.put_if_absent = lambda key, data: (keys.append(key), put(key, data))[1]  # type: ignore[method-assign]
    assert not is_finalized(storage)
    finalize(storage, run)
    assert tuple(keys) == dataset_format.FINAL
    assert is_finalized(storage)
    assert (
        storage.get(dataset_format.SUCCESS) == f"{sha256_of(storage.get(dataset_format.SUMS))}  SHA256SUMS\n".encode()
    )
    named = {line.split("  ")[1] for line in storage.get(dataset_format.SUMS).decode().splitlines()}
    assert named == set(dataset(storage))


@pytest.mark.parametrize("done", range(len(dataset_format.FINAL)))
def test_killed_after_any_file_it_ends_the_same(tmp_path: Path, done: int) -> None:
    storage, run = packed(tmp_path / "whole", {"b"})
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    finalize(storage, run)
    killed = LocalStorage(tmp_path / "killed")
    put, left = killed.put_if_absent, [done]

    def until_dead(key: str, data: bytes) -> bool:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return put(key, data)

    killed.put_if_absent = until_dead  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        finalize(killed, run)
    assert not is_finalized(killed)
    killed.put_if_absent = put  # type: ignore[method-assign]
    finalize(killed, run)
    assert dataset(killed) == dataset(storage)


@pytest.mark.parametrize("key", dataset_format.FINAL[:-1])
def test_somebody_elses_file_is_a_conflict(tmp_path: Path, key: str) -> None:
    storage, run = packed(tmp_path, set())
    storage.put_if_absent(key, b"theirs")
    with pytest.raises(ShardConflict, match=key):
        finalize(storage, run)
    assert storage.get(key) == b"theirs"


MISSING: list[tuple[Callable[[LocalStorage], None], str]] = [
    (lambda s: s.delete(layout.commit(ATLAS, 1)), "1 of 3 atlas shards are not committed"),
    (lambda s: s.delete(layout.commit(SPLATS, 0)), "first: 0"),
    (lambda s: s.delete(layout.moments(2)), "moments-000002"),
    (lambda s: s.delete(layout.stats(ATLAS, 1)), "atlas-000001.parquet"),
    (lambda s: s.delete(layout.MANIFEST), "objects.parquet: no such file"),
]


@pytest.mark.parametrize(("remove", "words"), MISSING)
def test_what_is_missing_is_named_and_nothing_is_finalized(
    tmp_path: Path, remove: Callable[[LocalStorage], None], words: str
) -> None:
    storage, run = packed(tmp_path, set())
    remove(storage)
    with pytest.raises((PipelineError, NotFound), match=words):
        finalize(storage, run)
    assert not is_finalized(storage)


def test_a_finished_dataset_is_left_as_it_is(tmp_path: Path) -> None:
    """Even where what it was made of is gone."""
    storage, run = packed(tmp_path, set())
    finalize(storage, run)
    before = dataset(storage)
    storage.delete(layout.moments(0))
    storage.delete(layout.commit(ATLAS, 1))
    finalize(storage, run)
    assert {key: data for key, data in before.items() if storage.head(key)} == dataset(storage)


def test_without_a_single_sample_there_is_no_dataset(tmp_path: Path) -> None:
    storage, run = packed(tmp_path, set(UIDS))
    with pytest.raises(
        PipelineError,
        match=r"0 of 5 objects published, 5 quarantined: 5 bad_input \(gaussianverse top-errors --out .*There is no",
    ):
        finalize(storage, run)
    assert not any(storage.head(key) for key in dataset_format.FINAL)


def test_a_shard_of_another_configuration_is_not_blessed(tmp_path: Path) -> None:
    storage, run = packed(tmp_path, set())
    path = tmp_path / layout.commit(ATLAS, 1)
    commit = json.loads(path.read_text())
    path.write_text(json.dumps({**commit, "config_digest": "0" * 64}))
    with pytest.raises(PipelineError, match=r"000001\.json: of another configuration"):
        finalize(storage, run)
    assert not is_finalized(storage)
