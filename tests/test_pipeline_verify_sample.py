"""verify --sample: it checks every object that it samples, and reads what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pipeline_runs import data_of, planned, publish_all, publish_one

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import ATLAS, SPLATS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.storage import sha256_of
from gaussianverse.pipeline.dataset import layout, pack
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.parquet import from_parquet, to_parquet
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import STATS, Facts
from gaussianverse.pipeline.ops.verify_sample import verify_sample

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
    ranges, read = list[str](), storage.read

    def counted(key: str, *span: int) -> memoryview:
        ranges.append(key)
        return read(key, *span)

    storage.read = counted  # type: ignore[method-assign]
    assert list(verify_sample(storage, run, 2)) == []
    assert 1 <= sum(key.endswith(".tar") for key in ranges) <= 4
    assert list(verify_sample(storage, run, 99)) == []


def test_a_flipped_byte_is_found_by_drawing_its_object_and_only_then(made: tuple[LocalStorage, Run]) -> None:
    storage, run = made
    key = dataset_format.shard_tar(ATLAS, 2)
    replace(storage, key, storage.get(key).replace(data_of(ATLAS, "o7"), data_of(ATLAS, "oX")))
    found = {
        seed: list(verify_sample(storage, run, 3, seed=seed)) for seed in range(12)
    }  # 3 of 9: some seeds draw o7, some don't
    assert {len(faults) for faults in found.values()} == {0, 1}
    assert all("o7: its sha256" in fault for faults in found.values() for fault in faults)


def agree(storage: LocalStorage, stage: str, shard: int, rows: list[Facts]) -> None:
    """Replace a shard's table by these rows, and put its hash into the commit record."""
    key, commit = layout.stats(stage, shard), pack.read_commit(storage, stage, shard)
    data = to_parquet(STATS[stage], rows)
    replace(storage, key, data)
    commit["files"][key] = {"nbytes": len(data), "sha256": sha256_of(data)}
    replace(storage, layout.commit(stage, shard), json.dumps(commit).encode())


def test_a_table_of_other_objects_than_the_manifest_is_found(made: tuple[LocalStorage, Run]) -> None:
    """The hash is that of the commit record, and every byte that the table points to is as it says."""
    storage, run = made
    key = layout.stats(ATLAS, 2)
    rows = from_parquet(STATS[ATLAS], storage.get(key)).to_pylist()
    assert [r["uid"] for r in rows] == ["o6", "o7", "o8"]
    agree(storage, ATLAS, 2, rows)
    assert list(verify_sample(storage, run, 9)) == []
    agree(storage, ATLAS, 2, [rows[0], {**rows[2], "index": 7}, {**rows[1], "index": 8}])
    assert list(verify_sample(storage, run, 9)) == [
        f"{key}: no row for object 7, o7",
        f"{key}: no row for object 8, o8",
    ]
    agree(storage, ATLAS, 2, rows[1:])
    assert list(verify_sample(storage, run, 9)) == [f"{key}: no row for object 6, o6"]


def test_a_table_that_its_commit_record_does_not_vouch_for_is_found(made: tuple[LocalStorage, Run]) -> None:
    storage, run = made
    key = layout.stats(SPLATS, 1)
    data = storage.get(key)
    replace(storage, key, data[:9] + bytes([data[9] ^ 1]) + data[10:])
    assert list(verify_sample(storage, run, 9)) == [f"{key}: its sha256 is not that of the commit record"]


def test_every_files_size_and_commit_are_looked_at_whoever_is_drawn(made: tuple[LocalStorage, Run]) -> None:
    storage, run = made
    replace(storage, dataset_format.shard_tar(SPLATS, 0), b"short")
    storage.delete(layout.moments(1))
    storage.delete(layout.commit(ATLAS, 2))
    faults = " | ".join(verify_sample(storage, run, 1))
    assert "splats-000000.tar: 5 bytes" in faults
    assert "moments-000001.npz: missing" in faults
    assert "_commits/atlas/000002.json: missing" in faults


def test_a_sample_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "out")
    run = planned(storage, ["a", "b"])
    for row in shard_rows(storage, run, 0):
        data = b"no arrays" if row["uid"] == "b" else data_of(SPLATS, "a")
        publish_one(storage, run, SPLATS, {**row, "shard": 0}, data=data)
    publish_all(storage, run, ATLAS)
    for stage in layout.STAGES:
        pack.pack(storage, run, stage, 0)
    (fault,) = verify_sample(storage, run, 9)
    assert fault.startswith("splats/splats-000000.tar: b: AtlasError: ")


def test_another_manifest_judges_nothing(made: tuple[LocalStorage, Run]) -> None:
    storage, run = made
    replace(storage, layout.MANIFEST, b"PAR1")
    assert len(list(verify_sample(storage, run, 9))) == 1
