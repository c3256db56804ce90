"""purge: old versions and their shards go, and whatever kills it, the kept versions are whole."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from dataset_versions import next_version
from reader_datasets import publish_dataset, upload
from test_pipeline_crash import Death, Fate

from gaussianverse import AtlasDataset
from gaussianverse.atlas.dataset_format import SUCCESS, version_key
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.dataset import purging, run_file
from gaussianverse.pipeline.dataset.versions import begun_version, finished_versions
from gaussianverse.pipeline.errors import RunConflict, UsageError
from gaussianverse.pipeline.ops.verify import verify

UIDS = ["a", "b", "c", "d", "e", "f"]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions; of shard 0 no row counts in the third, and of shard 3 none either."""
    folder = publish_dataset(tmp_path_factory.mktemp("set"), UIDS, shard_size=2)
    next_version(folder, corrected={"a": {"caption": "second"}}, removed=["c"])
    next_version(folder, corrected={"a": {"caption": "third"}, "b": {}})
    return folder


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "set")
    return tmp_path / "set"


def keys(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def whole(root: Path, version: int) -> bool:
    """Whether a version verifies and reads."""
    storage = LocalStorage(root)
    assert len(list(AtlasDataset(root, version=version, hashes=True))) == {1: 6, 2: 5, 3: 5}[version]
    return list(verify(storage, run_file.load(storage, version))) == []


def test_versions_before_one_go_with_the_shards_that_none_counts(root: Path, capsys: Captured) -> None:
    (root / "croissant.json").write_text("{}")  # of version 1, whose files it names
    before = keys(root)
    assert cli.main(["purge", str(root), "--before", "3", "--dry-run"]) == 0
    assert "versions 1-2 and shards 0,3, " in capsys.readouterr().out
    assert keys(root) == before
    assert cli.main(["purge", str(root), "--before", "3", "--confirm", "0003"]) == 0
    left = keys(root)
    gone = before - left
    assert {f"{f}/{f}-00000{k}.tar" for f in ("atlas", "splats") for k in (0, 3)} <= gone
    assert {
        "_SUCCESS",
        "metadata.parquet",
        "croissant.json",
        "versions/0002/_SUCCESS",
        "versions/0002/objects.parquet",
    } <= gone
    assert {"run.json", "manifest/objects.parquet", "versions/0002/version.json", "atlas/atlas-000001.tar"} <= left
    assert not any("000000" in key or "000003" in key for key in left)
    assert whole(root, 3)
    assert [item["uid"] for item in AtlasDataset(root, shuffle=False)] == ["d", "e", "f", "a", "b"]
    with pytest.raises(DatasetError, match=r"no version 1; there are 3$"):
        AtlasDataset(root, version=1)
    first = [str(root), "--version", "1"]
    for command in (
        ["status", "--out", *first],
        ["verify", "--out", *first],
        ["compact", *first, f"{root}-new"],
        ["diff", str(root), "--from", "1"],
    ):
        capsys.readouterr()
        assert cli.main(command) == 1
        assert (
            "no version 1: it was purged, or has lost its _SUCCESS; finished versions: 3" in capsys.readouterr().err
        )
    capsys.readouterr()
    assert cli.main(["purge", str(root), "--before", "3"]) == 0
    assert "nothing to delete" in capsys.readouterr().out
    storage = LocalStorage(root)
    with pytest.raises(RunConflict, match="version 1 was purged, and version 3 is the newest"):
        run_file.establish(storage, (root / "manifest/objects.parquet").read_bytes(), run_file.load(storage).identity)
    # and it goes on from there
    assert next_version(root, removed=["e"]) == 4
    assert len(AtlasDataset(root)) == 4


@pytest.mark.parametrize("cached", [False, True])
def test_a_training_on_a_version_that_goes_is_told(root: Path, tmp_path: Path, cached: bool) -> None:
    dataset = AtlasDataset(root, version=1, shuffle=False, cache=tmp_path / "cache" if cached else None)
    purging.before(LocalStorage(root), 3).delete(LocalStorage(root))
    with pytest.raises(DatasetError, match=r"atlas-000000\.tar: no such file.*; a was to be read"):
        list(dataset)


def test_in_a_bucket(root: Path, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    upload(root, s3_endpoint, "bucket", "purged")
    store = open_storage("s3://bucket/purged", StoreOptions())
    purged = ["purge", store.url, "--before", "3", "--confirm", "0003"]
    other = purging.before(store, 3)
    assert cli.main(purged) == 0
    other.delete(store)  # as another call does that was begun at the same time
    assert cli.main(["purge", str(root), "--before", "3", "--confirm", "0003"]) == 0
    assert {entry.key for entry in store.list("")} == {key for key in keys(root) if not key.startswith("_work/")}
    assert list(verify(store, run_file.load(store, 3))) == []
    assert cli.main(purged) == 0
    assert "nothing to delete" in capsys.readouterr().out


def test_what_an_older_version_needs_stays(root: Path) -> None:
    assert cli.main(["purge", str(root), "--before", "2", "--confirm", "0002"]) == 0
    assert finished_versions(LocalStorage(root)) == [2, 3]
    assert whole(root, 2)
    assert whole(root, 3)
    assert (root / "atlas/atlas-000000.tar").exists()
    assert not (root / "atlas_mean.npy").exists()


def test_nothing_goes_without_the_name_or_from_a_damaged_dataset(
    root: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(root)
    for more in ([], ["--confirm", "3"], ["--confirm", "0002"]):
        assert cli.main(["purge", str(root), "--before", "3", *more]) != 0
        assert "nothing was deleted: --confirm 0003 is the name" in capsys.readouterr().err
    with monkeypatch.context() as terminal:
        terminal.setattr("sys.stdin", io.StringIO())
        terminal.setattr("sys.stdin.isatty", lambda: True)
        assert cli.main(["purge", str(root), "--before", "3"]) != 0
        assert "nothing was deleted: --confirm 0003" in capsys.readouterr().err
    for number in (0, 4):
        assert cli.main(["purge", str(root), "--before", str(number), "--confirm", f"{number:04d}"]) != 0
        assert "there are 1, 2, 3" in capsys.readouterr().err
    assert cli.main(["purge", str(root), "--unfinished", "--confirm", "0004"]) != 0
    assert "no version was begun" in capsys.readouterr().err
    for key, change in (("atlas/atlas-000004.tar", b"?"), ("versions/0003/metadata.parquet", b"")):
        data = (root / key).read_bytes()
        (root / key).write_bytes(data + change if change else data[:-1])
        assert cli.main(["purge", str(root), "--before", "3", "--confirm", "0003"]) == 1
        assert f"a version that stays is damaged: {key}" in capsys.readouterr().err
        (root / key).write_bytes(data)
        assert cli.main(["purge", str(root), "--before", "3", "--json"]) != 0
        assert capsys.readouterr().out == "", "nothing is said to be deleted"
    assert keys(root) == before


def given_up(root: Path) -> set[str]:
    """Make of version 3 one that was begun; returns the keys of the others."""
    own = {key for key in keys(root) if key.startswith("versions/0003/") or "000004" in key}
    (root / version_key(3, SUCCESS)).unlink()
    work = root / "_work/splats/000004/a.tar"
    work.parent.mkdir(parents=True, exist_ok=True)
    work.write_bytes(b"?")
    return keys(root) - own - {"_work/splats/000004/a.tar"}


def test_a_version_that_was_begun_is_given_up(root: Path, capsys: Captured) -> None:
    left = given_up(root)
    assert cli.main(["purge", str(root), "--before", "2", "--confirm", "0002"]) != 0
    assert "version 3 was begun and counts older shards" in capsys.readouterr().err
    assert cli.main(["purge", str(root), "--unfinished", "--confirm", "0003", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shards"] == 1
    assert keys(root) == left
    assert whole(root, 2)
    assert next_version(root, removed=["e"]) == 3


def test_a_version_that_is_finished_meanwhile_is_not_given_up(
    root: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up(root)
    before = keys(root)

    def confirmed(args: object, purge: object) -> None:
        (root / version_key(3, SUCCESS)).write_bytes(b"?")

    monkeypatch.setattr("gaussianverse.pipeline.ops.purge._confirm", confirmed)
    assert cli.main(["purge", str(root), "--unfinished"]) != 0
    assert "no version was begun that is not finished" in capsys.readouterr().err
    assert keys(root) == before | {version_key(3, SUCCESS)}


def test_an_unfinished_dataset_is_not_a_version(root: Path) -> None:
    for key in (SUCCESS, version_key(2, SUCCESS), version_key(3, SUCCESS)):
        (root / key).unlink()
    with pytest.raises(UsageError, match="delete it as a whole"):
        purging.unfinished(LocalStorage(root))


def _before(root: Path) -> None:
    purging.before(LocalStorage(root), 3).delete(LocalStorage(root))


def _unfinished(root: Path) -> None:
    if begun_version(LocalStorage(root)) is not None:
        purging.unfinished(LocalStorage(root)).delete(LocalStorage(root))


@pytest.mark.parametrize(("purge", "kept", "least"), [(_before, 3, 40), (_unfinished, 2, 30)])
def test_death_at_every_call_of_the_store(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, purge: Callable[[Path], None], kept: int, least: int
) -> None:
    if purge is _unfinished:
        given_up(root)
    shutil.copytree(root, tmp_path / "whole")
    purge(tmp_path / "whole")
    expected, fate = keys(tmp_path / "whole"), Fate()
    for name in ("get", "read", "put_if_absent", "head", "size", "list", "delete"):
        monkeypatch.setattr(LocalStorage, name, fate.wrapped(getattr(LocalStorage, name)))
    # a death between two readings is like one before the next deletion
    for number in range(1, 1000):
        copy = tmp_path / str(number)
        shutil.copytree(root, copy)
        fate.calls, fate.at = 0, number
        try:
            purge(copy)
        except Death:
            fate.at = -1
        else:
            fate.at = -1
            break
        storage = LocalStorage(copy)
        assert kept in finished_versions(storage)
        check = purging.Purge("", [], [], [], [_version(storage, kept)])
        assert list(purging.faults_of_kept(storage, check)) == []
        assert len(AtlasDataset(copy, version=kept)) == 5
        purge(copy)
        assert keys(copy) == expected, f"death at call {number}"
        shutil.rmtree(copy)
    assert number > least
    assert whole(tmp_path / "whole", kept)


def _version(storage: LocalStorage, number: int) -> purging.Version:
    from gaussianverse.pipeline.dataset.versions import open_version

    return open_version(storage, number)
