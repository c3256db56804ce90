"""Reference views through the whole pipeline: a third family of shards, of the same objects in the same order."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline_runs import build_in_process, dataset, tiny_arguments, write_manifest, write_views

from gaussianverse import atlas
from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.configuration import ConfigError
from gaussianverse.atlas.dataset_format import ATLAS, SPLATS, VIEWS
from gaussianverse.atlas.errors import AtlasError, RoughAtlas
from gaussianverse.atlas.reader.views import ReferenceViews
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.storage import Storage, sha256_of
from gaussianverse.atlas.tar import END, build
from gaussianverse.fitter import load_views
from gaussianverse.pipeline.config import RunSettings, load
from gaussianverse.pipeline.dataset import layout, records, run_file
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.parquet import from_parquet
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import METADATA, metadata_schema
from gaussianverse.pipeline.dataset.shards import committed_shards, read_commit, stats_rows
from gaussianverse.pipeline.ops.clean_work import clean_work
from gaussianverse.pipeline.ops.inspect import inspect
from gaussianverse.pipeline.ops.status import status_of
from gaussianverse.pipeline.ops.verify import verify
from gaussianverse.pipeline.ops.verify_sample import verify_sample
from gaussianverse.pipeline.run import job, tasks

COUNT, SIZE = 3, 24
UIDS = ["a", "b", "c", "d", "e"]
ROUGH = "d"
"""This object is fitted, but has no atlas."""
TINY = [*tiny_arguments()[3::2], "run.shard_size=3"]
CONFIG = load("test", [*TINY, f"run.views={COUNT}", f"run.views_size={SIZE}"])
KEYS = [dataset_format.shard_tar(VIEWS, k) for k in (0, 1)]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five objects: b has no views."""
    folder = tmp_path_factory.mktemp("inputs")
    for seed, uid in enumerate(UIDS):
        if uid != "b":
            write_views(folder / "views" / uid, seed)
    return str(write_manifest(folder, UIDS))


@pytest.fixture(scope="module", autouse=True)
def _rough() -> Iterator[None]:
    """Refuse d's atlas; make fits and atlases once for all tests of this file."""
    fit, pack, fits, atlases = tasks.fit_prepared, atlas.pack, dict[bytes, Any](), dict[bytes, Any]()

    def one_fit(prepared: Any, config: Any, **options: Any) -> Any:
        # from the downscaled views that the fit uses
        key = prepared.train.images.tobytes()
        if key not in fits:
            fits[key] = fit(prepared, config, **options)
        return fits[key]

    def one_atlas(gaussians: Any, config: Any) -> Any:
        data = gaussians.to_bytes()
        if data not in atlases:
            atlases[data] = pack(gaussians, config)
        return atlases[data]

    original = tasks._atlas

    def body(job: Any, row: Any, attempt: int) -> Any:
        if row["uid"] == ROUGH:
            raise RoughAtlas("smoothness 0.1")
        return original(job, row, attempt)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tasks, "fit_prepared", one_fit)
        patched.setattr(atlas, "pack", one_atlas)
        patched.setattr(tasks, "_atlas", body)
        patched.setattr(tasks, "atlas_psnr", lambda *_: 99.0)
        yield


def built(folder: Path, manifest: str, config: Any = CONFIG, **options: Any) -> tuple[LocalStorage, Run, bool]:
    storage, run, base = job.plan(str(folder), manifest, config)
    assert isinstance(storage, LocalStorage)
    return storage, run, build_in_process(storage, run, config, base, **options).finalized


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, manifest: str) -> tuple[LocalStorage, Run]:
    storage, run, finalized = built(tmp_path_factory.mktemp("whole"), manifest)
    assert finalized
    return storage, run


def faults(storage: Storage, run: Run) -> list[str]:
    return list(verify(storage, run))


def members(storage: Storage, key: str) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(storage.get(key))) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]


def test_the_views_are_those_of_the_objects_that_have_an_atlas(whole: tuple[LocalStorage, Run]) -> None:
    storage, run = whole
    for shard, expected in enumerate((["a", "c"], ["e"])):
        found = {
            family: [n.split(".")[0] for n in members(storage, dataset_format.shard_tar(family, shard))]
            for family in run.families
        }
        assert list(dict.fromkeys(found[VIEWS])) == list(dict.fromkeys(found[ATLAS])) == expected
    assert faults(storage, run) == []
    assert list(verify_sample(storage, run, 99)) == []


def test_a_sample_is_pictures_and_cameras_in_the_world_of_the_gaussians(
    whole: tuple[LocalStorage, Run], manifest: str
) -> None:
    found = members(whole[0], KEYS[0])
    assert [n for n in found if n.startswith("a.")] == [
        "a.cameras.npz", "a.json", "a.txt", "a.view00.png", "a.view01.png", "a.view02.png",
    ]  # fmt: skip
    assert found["a.txt"].decode() == "a ball: a"
    assert json.loads(found["a.json"])["n_reference_views"] == COUNT
    views = ReferenceViews.from_members(found["a.cameras.npz"], [found[f"a.view0{k}.png"] for k in range(COUNT)])
    assert views.images.shape == (COUNT, SIZE, SIZE, 4)
    given = load_views(Path(manifest).parent / "views" / "a")
    where = [int(np.abs(given.viewmats - v).max(axis=(1, 2)).argmin()) for v in views.viewmats]
    assert len(set(where)) == COUNT
    np.testing.assert_allclose(views.viewmats, given.viewmats[where], atol=1e-6)
    np.testing.assert_allclose(views.Ks[:, :2], given.Ks[where][:, :2] * SIZE / 32, rtol=1e-6)
    means = [i[..., 3].mean() for i in views.images], [i[..., 3].mean() for i in given.images[where]]
    np.testing.assert_allclose(*means, rtol=0.02)


def test_tables_and_index_tell_where_views_lie(whole: tuple[LocalStorage, Run]) -> None:
    storage, run = whole
    index = json.loads(storage.get(dataset_format.INDEX))
    assert (index["views"], index["views_size"]) == (COUNT, SIZE)
    rows = from_parquet(metadata_schema(run.families), storage.get(dataset_format.METADATA)).to_pylist()
    assert [r["views_sample"] for r in rows] == [r["atlas_sample"] for r in rows] == [0, -1, 1, -1, 0]
    assert {r["reason"] for r in stats_rows(storage, VIEWS, 1)} == {"", "rough_atlas"}
    for row in rows:
        if row["views_sample"] == -1:
            continue
        entry = index["shards"][row["shard"]][VIEWS]
        data = storage.read(entry["key"], row["views_offset"], row["views_nbytes"])
        assert sha256_of(data) == row["views_sha256"]
    assert "views/*.tar" in storage.get(dataset_format.CARD).decode()
    assert status_of(storage, run)["stages"][VIEWS]["samples"] == 3
    assert inspect(storage, run, "a")[VIEWS]["n_reference_views"] == COUNT


def test_without_views_nothing_is_as_if_there_were_such_an_option(
    whole: tuple[LocalStorage, Run], manifest: str, tmp_path: Path
) -> None:
    storage, run, finalized = built(tmp_path / "plain", manifest, load("test", TINY))
    assert finalized
    assert run.identity["config"]["run"] == {"seed": 0, "shard_size": 3}
    assert not [k for k in dataset(storage) if VIEWS in k]
    assert not list(storage.list(f"{layout.WORK}{VIEWS}/"))
    assert from_parquet(METADATA, storage.get(dataset_format.METADATA)).num_rows == len(UIDS)
    assert "views" not in json.loads(storage.get(dataset_format.INDEX))
    assert "views/" not in storage.get(dataset_format.CARD).decode()
    for shard in (0, 1):  # and the fits of a run with views are the same
        mains = [
            [r["sha256"] for r in stats_rows(s, stage, shard)] for s in (storage, whole[0]) for stage in layout.STAGES
        ]
        assert mains[:2] == mains[2:]


def test_killed_before_any_write_it_ends_the_same(
    manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Critical moments: between the fragments of views and splats, and between the commits of atlases and views."""

    class Death(BaseException):
        pass

    few = Path(manifest).parent / "few.jsonl"
    rows = Path(manifest).read_text().splitlines(keepends=True)
    few.write_text(rows[0] + rows[3])
    expected = dataset(built(tmp_path / "whole", str(few))[0])
    real, left, fatal = LocalStorage.put_if_absent, -1, list[str]()
    monkeypatch.setattr(os, "fsync", lambda _: None)

    def put(self: LocalStorage, key: str, data: bytes | bytearray) -> bool:
        nonlocal left
        left -= 1
        if left == 0:
            fatal.append(key)
            raise Death
        return real(self, key, data)

    monkeypatch.setattr(LocalStorage, "put_if_absent", put)
    for number in range(1, 200):
        left = number
        folder = tmp_path / str(number)
        try:
            built(folder, str(few))
        except Death:
            storage, _, finalized = built(folder, str(few))
            assert finalized
            assert dataset(storage) == expected, fatal[-1]
        else:
            break
    families = {layout.parse_fragment(key)[0] for key in fatal if layout.parse_fragment(key)}  # type: ignore[index]
    assert families == set(dataset_format.FAMILIES)
    assert layout.commit(VIEWS, 0) in fatal
    assert fatal[-1] == dataset_format.SUCCESS


def test_stage_after_stage_and_cleaned_between_it_ends_the_same(
    whole: tuple[LocalStorage, Run], manifest: str, tmp_path: Path
) -> None:
    storage, _, _ = built(tmp_path / "out", manifest, stages=(SPLATS,))
    assert committed_shards(storage) == {(SPLATS, 0), (SPLATS, 1)}
    clean_work(storage)
    # the views' fragments stay: their shards are packed with the atlases
    assert len(list(storage.list(f"{layout.WORK}{VIEWS}/"))) == 4
    storage, _, finalized = built(tmp_path / "out", manifest, stages=(ATLAS,))
    assert finalized
    assert dataset(storage) == dataset(whole[0])


def test_views_of_an_object_whose_fit_failed_are_left_out(manifest: str, tmp_path: Path) -> None:
    """The fragment of its views exists, since it is published first, but the atlases decide."""
    folder = tmp_path / "out"

    def fails(prepared: Any, config: Any, **options: Any) -> Any:
        raise AtlasError("no")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tasks, "fit_prepared", fails)
        storage, run, base = job.plan(str(folder), manifest, CONFIG)
        row = {**manifest_row(storage, "a"), "shard": 0}
        for _ in range(2):  # the second attempt finds the views published
            assert tasks.fit_object(job.Job(storage.url, base), row, 1, 0)["status"] == "failed"
    assert records.read(storage, VIEWS, 0, "a").ok
    why = {"reason": "nan_loss", "error_class": "NanLoss", "error_message": "no"}
    records.publish_quarantine(storage, SPLATS, row, run, why, records.Stopwatch(1))
    storage, run, finalized = built(folder, manifest)
    assert finalized
    assert {n.split(".")[0] for n in members(storage, KEYS[0])} == {"c"}
    assert stats_rows(storage, VIEWS, 0)[0]["reason"] == "nan_loss"
    assert faults(storage, run) == []


def manifest_row(storage: Storage, uid: str) -> dict[str, Any]:
    return next(r for r in shard_rows(storage, run_file.load(storage), 0) if r["uid"] == uid)


@pytest.fixture
def copy(whole: tuple[LocalStorage, Run], tmp_path: Path) -> tuple[LocalStorage, Run]:
    storage = LocalStorage(tmp_path)
    for entry in whole[0].list(""):
        if not entry.key.startswith(layout.WORK):
            write(storage, entry.key, whole[0].get(entry.key))
    return storage, whole[1]


def write(storage: LocalStorage, key: str, data: bytes) -> None:
    path = storage.root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_a_flipped_byte_anywhere_in_the_views_is_noticed(copy: tuple[LocalStorage, Run]) -> None:
    storage, run = copy
    for key in (KEYS[0], layout.stats(VIEWS, 0), layout.commit(VIEWS, 0)):
        data = storage.get(key)
        for place in range(7, len(data), max(1, len(data) // 5)):
            write(storage, key, data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            assert any(key in fault for fault in faults(storage, run)), (key, place)
        write(storage, key, data)
    assert faults(storage, run) == []


def test_swapped_images_that_were_covered_up_in_the_hashes_are_noticed(copy: tuple[LocalStorage, Run]) -> None:
    storage, run = copy
    found = members(storage, KEYS[0])
    found["a.view00.png"], found["a.view01.png"] = found["a.view01.png"], found["a.view00.png"]
    assert cover_up(storage, found, run) == [f"{KEYS[0]}: a: its images differ from its row of the table"]
    found["a.view00.png"] = b"no picture"
    assert any("view00.png is damaged" in fault for fault in cover_up(storage, found, run))


def cover_up(storage: LocalStorage, found: dict[str, bytes], run: Run) -> list[str]:
    """Faults of shard 0 of the views, rebuilt from these members with a matching commit record."""
    tar = b"".join(build({n: d}) for n, d in found.items()) + END
    write(storage, KEYS[0], tar)
    record = read_commit(storage, VIEWS, 0)
    record["files"][KEYS[0]] = {"nbytes": len(tar), "sha256": sha256_of(tar)}
    write(storage, layout.commit(VIEWS, 0), (json.dumps(record, indent=1) + "\n").encode())
    return list(verify(storage, run, shards=[0]))


def test_views_of_other_objects_than_the_atlases_are_noticed(copy: tuple[LocalStorage, Run]) -> None:
    storage, run = copy
    for key in (dataset_format.shard_tar, layout.stats, layout.commit):
        (storage.root / key(ATLAS, 0)).unlink()
    assert any("views-000000.parquet: cannot be compared" in fault for fault in faults(storage, run))


@pytest.mark.parametrize(("values", "fault"), [
    ({"views": -1}, "run.views is -1"),
    ({"views": 100}, "run.views is 100"),
    ({"views_size": 64}, "0 without run.views"),
    ({"views": 2, "views_size": -1}, "run.views_size is -1"),
])  # fmt: skip
def test_settings_that_cannot_be(values: dict[str, int], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        RunSettings(**values)


def test_too_few_views_and_too_small_ones_are_the_objects_fault(manifest: str, tmp_path: Path) -> None:
    for override, reason in (("run.views=11", "missing_views"), ("run.views_size=33", "bad_input")):
        config = load("test", [*TINY, "run.views=2", override])
        storage, _, base = job.plan(str(tmp_path / reason), manifest, config)
        row = {**manifest_row(storage, "a"), "shard": 0}
        result = tasks.fit_object(job.Job(storage.url, base), row, 1, 0)
        assert (result["status"], result["reason"]) == ("failed", reason)
        assert override.split("=")[0] in str(result["error_message"])
