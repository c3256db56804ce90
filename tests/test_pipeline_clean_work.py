"""Scratch is deleted when it is no longer needed, and only then."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from pipeline_runs import dataset, planned, publish_all

from gaussianverse.atlas.dataset_format import ATLAS, SPLATS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.dataset import layout, pack
from gaussianverse.pipeline.dataset.finalize import finalize
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.errors import PipelineError
from gaussianverse.pipeline.ops.clean_work import clean_work


@pytest.fixture
def half(tmp_path: Path) -> tuple[LocalStorage, Run]:
    """Two shards; the first is committed, in the first stage only."""
    storage = LocalStorage(tmp_path / "out")
    run = planned(storage, ["a", "b", "c"], shard_size=2)
    for stage in layout.STAGES:
        publish_all(storage, run, stage, quarantined={"b"})
    pack.pack(storage, run, SPLATS, 0)
    return storage, run


def work(storage: LocalStorage) -> set[str]:
    return {entry.key for entry in storage.list(layout.WORK)}


def test_only_fragments_of_committed_shards_go(half: tuple[LocalStorage, Run]) -> None:
    storage, run = half
    before, kept = work(storage), dataset(storage)
    counted = clean_work(storage, dry_run=True)
    assert work(storage) == before
    done = clean_work(storage)
    assert done == counted
    assert done.objects == len(before) - len(work(storage)) == 4
    gone = (layout.fragments(SPLATS, 0), layout.run_records(SPLATS, 0))
    assert work(storage) == {key for key in before if not key.startswith(gone)}
    assert dataset(storage) == kept
    assert clean_work(storage).objects == 0
    for stage, shard in ((SPLATS, 1), (ATLAS, 0), (ATLAS, 1)):
        pack.pack(storage, run, stage, shard)
    finalize(storage, run)
    storage.put_if_absent(f"{layout.WORK}splats/000009/stray.tar", b"x")
    clean_work(storage)
    assert not work(storage)


def test_a_damaged_commit_keeps_its_fragments(half: tuple[LocalStorage, Run]) -> None:
    storage, _ = half
    key = layout.commit(SPLATS, 0)
    storage.delete(key)
    storage.put_if_absent(key, b"{}")
    before = work(storage)
    with pytest.raises(PipelineError, match="not the commit record of this shard"):
        clean_work(storage)
    assert work(storage) == before


def test_what_killed_writers_left_goes_when_it_is_old(half: tuple[LocalStorage, Run]) -> None:
    storage, _ = half
    folder = storage.root / ".incoming"
    old, young = folder / "old", folder / "young"
    for path in (old, young):
        path.write_bytes(b"half a shard")
    os.utime(old, (0, time.time() - 90_000))
    clean_work(storage)
    assert [p.name for p in folder.iterdir()] == ["young"]
