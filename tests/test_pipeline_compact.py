"""compact: a dataset that grew in steps becomes the one that is built at once."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from dataset_versions import next_version
from pipeline_runs import TINY, build_in_process, in_process, write_inputs
from reader_datasets import publish_dataset
from test_pipeline_crash import Death, Fate

from gaussianverse import AtlasDataset
from gaussianverse.atlas.dataset_format import SUCCESS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.dataset import layout, run_file
from gaussianverse.pipeline.dataset.versions import open_version
from gaussianverse.pipeline.errors import PipelineError, RunConflict, UsageError
from gaussianverse.pipeline.ops.compact import compact
from gaussianverse.pipeline.ops.verify import verify
from gaussianverse.pipeline.run import job, tasks

FIRST, ADDED = ["b", "d", "e", "f"], ["a", "c", "g"]
CONFIG = [*TINY, "run.shard_size=2", "run.views=2", "run.views_size=16"]


def files(root: Path) -> dict[str, bytes]:
    """All files of a dataset."""
    keys = {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}
    paths = [path for key, path in keys.items() if layout.in_dataset(key) or key.endswith(("SHA256SUMS", "_SUCCESS"))]
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in paths}


def faults(root: Path) -> list[str]:
    storage = LocalStorage(root)
    return list(verify(storage, open_version(storage).run))


def test_a_dataset_grown_in_steps_is_the_one_built_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects are added, corrected and removed, and get a column; one of them has no views."""
    monkeypatch.setattr(job, "ray_executor", in_process)
    manifest = Path(write_inputs(tmp_path, sorted([*FIRST, *ADDED])))
    shutil.rmtree(tmp_path / "views" / "e")
    rows = {row["uid"]: row for row in map(json.loads, manifest.read_text().splitlines())}
    config = load("test", CONFIG)

    def written(name: str, chosen: list[dict[str, Any]]) -> str:
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in chosen))
        return str(path)

    def built(name: str, chosen: list[dict[str, Any]]) -> Path:
        storage, run, base = job.plan(str(tmp_path / name), written(name, chosen), config)
        assert build_in_process(storage, run, config, base).finalized
        return tmp_path / name

    out = built("grown", [rows[uid] for uid in FIRST])
    fits: list[str] = []
    fit = tasks.fit_object
    monkeypatch.setattr(tasks, "fit_object", lambda given, row, *a: (fits.append(row["uid"]), fit(given, row, *a))[1])
    step = ["extend", "--out", str(out), "--workers", "1", "--manifest"]
    assert cli.main([*step, written("add", [rows[uid] for uid in ADDED])]) == 0
    rows["b"] |= {"caption": "another"}
    rows["c"] |= {"caption": "a third", "license": "CC-BY-4.0"}
    rows["e"] |= {"license": "MIT"}
    (tmp_path / "gone.txt").write_text("d\ng\n")
    correct = written("correct", [rows[uid] for uid in "bce"])
    assert cli.main([*step, correct, "--remove", str(tmp_path / "gone.txt")]) == 0
    left = [{**rows[uid], "score": k / 7} for k, uid in enumerate(sorted(rows)) if uid not in "dg"]
    assert cli.main([*step, written("column", left)]) == 0
    assert faults(out) == []

    assert cli.main(["compact", str(out), str(tmp_path / "compacted"), "--json"]) == 0
    whole, compacted = files(built("whole", left)), files(tmp_path / "compacted")
    assert compacted.keys() == whole.keys()
    assert [key for key in whole if whole[key] != compacted[key]] == []
    assert faults(tmp_path / "compacted") == []
    for version, count in ((1, 3), (2, 6), (3, 4), (4, 4)):
        assert len(AtlasDataset(out, version=version, hashes=True)) == count
        assert list(verify(LocalStorage(out), run_file.load(LocalStorage(out), version))) == []


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of a small dataset, with a quarantined object."""
    folder = tmp_path_factory.mktemp("set")
    publish_dataset(folder, ["a", "b", "c", "d"], shard_size=2, quarantined=frozenset({"d"}))
    next_version(folder, corrected={"b": {"caption": "second"}}, removed=["a"])
    return folder


def test_any_version_and_any_shards(grown: Path, tmp_path: Path) -> None:
    source, dest = LocalStorage(grown), LocalStorage(tmp_path / "first")
    assert not compact(source, dest, 1, "1")
    assert not (tmp_path / "first" / SUCCESS).exists()
    assert compact(source, dest, 1, "0")
    kept = files(grown)
    assert files(tmp_path / "first") == {
        k: d for k, d in kept.items() if not k.startswith("versions/") and "0002" not in k
    }
    assert compact(source, LocalStorage(tmp_path / "second"))
    assert [item["uid"] for item in AtlasDataset(tmp_path / "second", shuffle=False)] == ["b", "c"]
    assert AtlasDataset(tmp_path / "second").get("b")["caption"] == "second"
    assert faults(tmp_path / "second") == []
    assert files(grown) == kept
    with pytest.raises(RunConflict, match=r"holds a run of another manifest.* name that one with --version"):
        compact(source, dest, 2)


def test_a_place_that_was_begun_with_another_version_of_the_same_manifest(tmp_path: Path) -> None:
    """As once an object was rescued in between."""
    first = publish_dataset(tmp_path / "first", ["a", "b", "c", "d"], shard_size=2, quarantined=frozenset({"b"}))
    rescued = publish_dataset(tmp_path / "rescued", ["a", "b", "c", "d"], shard_size=2)
    dest = LocalStorage(tmp_path / "new")
    assert not compact(LocalStorage(first), dest, shards="0")
    with pytest.raises(RunConflict, match=r"shard 0 of atlas is not of version 1 of .*/rescued"):
        compact(LocalStorage(rescued), dest)
    assert compact(LocalStorage(first), dest)
    with pytest.raises(RunConflict, match="choose an empty place"):
        compact(LocalStorage(rescued), dest)


def test_times_are_those_of_the_first_making(grown: Path, tmp_path: Path) -> None:
    from gaussianverse.pipeline.dataset.shards import journal_rows

    compact(LocalStorage(grown), LocalStorage(tmp_path / "new"))
    ours, theirs = (
        journal_rows(LocalStorage(tmp_path / "new"), "atlas", 0),
        journal_rows(LocalStorage(grown), "atlas", 1),
    )
    assert (ours[1]["uid"], ours[1]["index"]) == ("c", 1)
    assert ours[1]["seconds"] == next(row["seconds"] for row in theirs if row["uid"] == "c") > 0


def test_what_cannot_be_compacted(grown: Path, tmp_path: Path) -> None:
    source = LocalStorage(grown)
    with pytest.raises(UsageError, match="choose a place beside it"):
        compact(source, LocalStorage(grown / "inside"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note.txt").write_text("?")
    with pytest.raises(UsageError, match="is not empty"):
        compact(source, LocalStorage(tmp_path / "full"))
    begun = tmp_path / "begun"
    shutil.copytree(grown, begun)
    (begun / "versions/0002/_SUCCESS").unlink()
    with pytest.raises(PipelineError, match="version 2 is not finished"):
        compact(LocalStorage(begun), LocalStorage(tmp_path / "none"), 2)
    data = bytearray((begun / "atlas/atlas-000001.tar").read_bytes())
    data[700] ^= 1
    (begun / "atlas/atlas-000001.tar").write_bytes(data)
    with pytest.raises(PipelineError, match=r"atlas-000001.tar: c: its sha256 is not that of the table"):
        compact(LocalStorage(begun), LocalStorage(tmp_path / "none"), 1)
    assert not (tmp_path / "none" / SUCCESS).exists()


def test_death_at_every_call_of_the_store(grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, kept = LocalStorage(grown), files(grown)
    compact(source, LocalStorage(tmp_path / "whole"))
    expected, fate = files(tmp_path / "whole"), Fate()
    for name in ("get", "read", "put_if_absent", "put_file", "head", "size", "list", "delete"):
        monkeypatch.setattr(LocalStorage, name, fate.wrapped(getattr(LocalStorage, name)))
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for number in range(1, 1000):
        dest = LocalStorage(tmp_path / str(number))
        fate.calls, fate.at = 0, number
        try:
            compact(source, dest)
        except Death:
            fate.at = -1
        else:
            fate.at = -1
            break
        assert compact(source, dest)
        assert files(tmp_path / str(number)) == expected, f"death at call {number}"
        shutil.rmtree(tmp_path / str(number))
    assert number > 60
    assert files(grown) == kept
