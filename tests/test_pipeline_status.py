from pathlib import Path

import pytest
from pipeline_runs import data_of, planned, publish_all, publish_one

from gaussianverse.atlas.dataset_format import ATLAS, SPLATS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.dataset import layout, pack
from gaussianverse.pipeline.dataset.finalize import finalize
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.errors import PipelineError
from gaussianverse.pipeline.ops.inspect import inspect
from gaussianverse.pipeline.ops.status import status_of, status_text

UIDS = ["a", "b", "c", "d", "e"]


def test_from_the_store_alone_at_every_point_of_a_run(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    run = planned(storage, UIDS, shard_size=2)

    def counts(stage: str) -> tuple[int, int, int]:
        found = status_of(storage, run)["stages"][stage]
        return found["shards"], found["objects"], found["uncommitted_fragments"]

    assert counts(SPLATS) == (0, 0, 0)
    row = {**shard_rows(storage, run, 1)[0], "shard": 1}
    publish_one(storage, run, SPLATS, row, data=b"x")
    assert counts(SPLATS) == (0, 1, 1)
    publish_all(storage, run, SPLATS)
    pack.pack(storage, run, SPLATS, 1)
    assert counts(SPLATS) == (1, 5, 3)
    publish_all(storage, run, ATLAS, quarantined={"b", "c"})
    for shard in range(3):
        pack.pack(storage, run, ATLAS, shard)
    assert counts(ATLAS) == (3, 5, 0)
    found = status_of(storage, run)
    assert found["quarantined"] == {"bad_input": 2}
    assert found["stages"][ATLAS]["samples"] == 3
    assert not found["finalized"]
    text = status_text(found)
    assert "5 objects in 3 shards" in text
    assert "1 of 3 shards committed" in text
    assert "quarantined: 2 bad_input" in text
    assert "not finalized" in text
    for shard in (0, 2):
        pack.pack(storage, run, SPLATS, shard)
    finalize(storage, run)
    assert status_of(storage, run)["finalized"]


def test_an_object_is_found_wherever_it_is_in_its_life(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    uids = [f"o{i:02}" for i in range(23)]
    run = planned(storage, uids, shard_size=3)
    for uid in uids:
        found = inspect(storage, run, uid)
        assert (found["manifest"]["uid"], found["shard"]) == (uid, uids.index(uid) // 3)
        assert found[SPLATS] == {"committed": False, "status": "not done"}
    publish_all(storage, run, SPLATS)
    assert inspect(storage, run, "o04")[SPLATS]["status"] == "ok"
    assert not inspect(storage, run, "o04")[SPLATS]["committed"]
    pack.pack(storage, run, SPLATS, 1)
    found = inspect(storage, run, "o04")[SPLATS]
    assert found["committed"]
    assert storage.read(found["tar"], found["offset"], found["nbytes"]) == data_of(SPLATS, "o04")
    assert found["journal"]["attempts"] == 1


@pytest.mark.parametrize("uid", ["", "a", "o", "o01x", "zz", "../x"])
def test_an_object_that_the_manifest_lacks(tmp_path: Path, uid: str) -> None:
    storage = LocalStorage(tmp_path)
    run = planned(storage, [f"o{i:02}" for i in range(7)], shard_size=2)
    with pytest.raises(PipelineError, match="no object"):
        inspect(storage, run, uid)


def test_scratch_of_committed_shards_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(tmp_path)
    run = planned(storage, UIDS, shard_size=2)
    publish_all(storage, run, SPLATS)
    for shard in (0, 2):
        pack.pack(storage, run, SPLATS, shard)
    listed: list[str] = []
    real = storage.list
    monkeypatch.setattr(storage, "list", lambda prefix: (listed.append(prefix), real(prefix))[1])
    assert status_of(storage, run)["stages"][SPLATS]["uncommitted_fragments"] == 2
    assert [prefix for prefix in listed if prefix.startswith(layout.WORK)] == [layout.fragments(SPLATS, 1)]
