"""A sampled verify: what it looks at it judges, and it looks at what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_runs import data_of, planned, publish_all, publish_one

from gaussianverse.pipeline.dataset import layout, pack
from gaussianverse.pipeline.dataset.run_file import Run, shard_rows
from gaussianverse.pipeline.ops.verify import verify_sample
from gaussianverse.pipeline.store.storage import LocalStorage

UIDS = [f"o{i}" for i in range(9)]


@pytest.fixture
def made(tmp_path: Path) -> tuple[LocalStorage, Run]:
    storage = LocalStorage(tmp_path / "out")
    run = planned(storage, UIDS, shard_size=3)
    for stage in layout.STAGES:
        publish_all(storage, run, stage, quarantined={"o4"})
        for shard in range(run.n_shards):
            pack.pack(storage, run, stage, shard)
    return storage, run


def replace(storage: LocalStorage, key: str, data: bytes) -> None:
    storage.delete(key)
    storage.put_if_absent(key, data)


def test_a_whole_dataset_has_no_fault_and_few_objects_are_read(made: tuple[LocalStorage, Run]) -> None:
    storage, run = made
    ranges, get_range = list[str](), storage.get_range

    def counted(key: str, offset: int, nbytes: int) -> bytes:
        ranges.append(key)
        return get_range(key, offset, nbytes)

    storage.get_range = counted  # type: ignore[method-assign]
    assert list(verify_sample(storage, run, 2)) == []
    assert 1 <= sum(key.endswith(".tar") for key in ranges) <= 4
    assert list(verify_sample(storage, run, 99)) == []


def test_a_flipped_byte_is_found_by_drawing_its_object_and_only_then(made: tuple[LocalStorage, Run]) -> None:
    storage, run = made
    key = layout.shard_tar(layout.ATLAS, 2)
    replace(storage, key, storage.get(key).replace(data_of(layout.ATLAS, "o7"), data_of(layout.ATLAS, "oX")))
    found = {
        seed: list(verify_sample(storage, run, 3, seed=seed)) for seed in range(12)
    }  # 3 of 9: some seeds draw o7, some don't
    assert {len(faults) for faults in found.values()} == {0, 1}
    assert all("o7: its sha256" in fault for faults in found.values() for fault in faults)


def test_every_files_size_and_commit_are_looked_at_whoever_is_drawn(made: tuple[LocalStorage, Run]) -> None:
    storage, run = made
    replace(storage, layout.shard_tar(layout.SPLATS, 0), b"short")
    storage.delete(layout.moments(1))
    storage.delete(layout.commit(layout.ATLAS, 2))
    faults = " | ".join(verify_sample(storage, run, 1))
    assert "splats-000000.tar: 5 bytes" in faults
    assert "moments-000001.npz: missing" in faults
    assert "_commits/atlas/000002.json: missing" in faults


def test_a_sample_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "out")
    run = planned(storage, ["a", "b"])
    for row in shard_rows(storage, 0):
        data = b"no arrays" if row["uid"] == "b" else data_of(layout.SPLATS, "a")
        publish_one(storage, run, layout.SPLATS, {**row, "shard": 0}, data=data)
    publish_all(storage, run, layout.ATLAS)
    for stage in layout.STAGES:
        pack.pack(storage, run, stage, 0)
    (fault,) = verify_sample(storage, run, 9)
    assert fault.startswith("splats/splats-000000.tar: b: AtlasError: ")


def test_another_manifest_judges_nothing(made: tuple[LocalStorage, Run]) -> None:
    storage, run = made
    replace(storage, layout.MANIFEST, b"PAR1")
    assert len(list(verify_sample(storage, run, 9))) == 1
