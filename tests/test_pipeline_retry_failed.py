"""retry-failed on the command line: rescued objects beside a run that does not change."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from pipeline_runs import dataset, in_process, tiny_arguments, write_manifest, write_views

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import ATLAS, SPLATS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.tar import index
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.parquet import from_parquet
from gaussianverse.pipeline.dataset.schemas import METADATA
from gaussianverse.pipeline.run import job

Captured = pytest.CaptureFixture[str]
UIDS = ["a", "b", "c"]


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "ray_executor", in_process)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three objects; two had no views when it ran."""
    folder = tmp_path_factory.mktemp("broken")
    write_views(folder / "views" / "a")
    write_manifest(folder, UIDS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(job, "ray_executor", in_process)
        assert cli.main(["build", *arguments(folder)]) == 0
    return folder


@pytest.fixture
def folder(broken: Path, tmp_path: Path) -> Path:
    return shutil.copytree(broken, tmp_path / "copy")


def arguments(folder: Path) -> list[str]:
    given = ["--manifest", str(folder / "objects.jsonl"), "--out", str(folder / "out")]
    return [*given, *tiny_arguments(), "--set", "run.shard_size=2"]


def rows(storage: LocalStorage) -> dict[str, str]:
    return {r["uid"]: r["status"] for r in from_parquet(METADATA, storage.get(dataset_format.METADATA)).to_pylist()}


def test_quarantined_objects_are_tried_again_and_nothing_that_was_there_changes(
    folder: Path, capsys: Captured
) -> None:
    storage = LocalStorage(folder / "out")
    before = {p: p.read_bytes() for p in storage.root.rglob("*") if p.is_file()}
    write_views(folder / "views" / "b", 1)
    assert cli.main(["retry-failed", *arguments(folder)]) == 0
    assert "Revision 1: 2 objects" in capsys.readouterr().out
    first = LocalStorage(storage.root / layout.revision(1))
    assert rows(first) == {"b": "ok", "c": "quarantined"}
    assert {p: p.read_bytes() for p in before} == before
    for out in (storage, first):
        assert cli.main(["verify", "--out", out.url]) == 0
    write_views(folder / "views" / "c", 2)
    assert cli.main(["retry-failed", *arguments(folder)]) == 0
    second = LocalStorage(storage.root / layout.revision(2))
    assert rows(second) == {"c": "ok"}
    capsys.readouterr()
    assert cli.main(["retry-failed", *arguments(folder)]) == 0
    assert "Nothing to do" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in before} == before
    assert json.loads(second.get(layout.RUN))["revision_of"]["revision"] == 2


def test_a_rescued_objects_samples_are_those_of_a_run_in_which_it_never_failed(folder: Path, tmp_path: Path) -> None:
    write_views(folder / "views" / "b", 1)
    write_views(folder / "views" / "c", 2)
    assert cli.main(["retry-failed", *arguments(folder)]) == 0
    other = [part if part != str(folder / "out") else str(tmp_path / "other") for part in arguments(folder)]
    assert cli.main(["build", *other]) == 0
    there = dataset(LocalStorage(tmp_path / "other"))
    again = dataset(LocalStorage(folder / "out" / layout.revision(1)))
    whole = b"".join(there[dataset_format.shard_tar(SPLATS, k)] for k in (0, 1))

    tar = again[dataset_format.shard_tar(SPLATS, 0)]
    for member in index(tar):
        if member.name.endswith(".npz"):
            assert tar[member.offset : member.offset + member.nbytes] in whole


def test_reasons_choose_and_unknown_ones_are_refused(folder: Path, capsys: Captured) -> None:
    assert cli.main(["retry-failed", *arguments(folder), "--reasons", "timeout"]) == 0
    assert "for these reasons" in capsys.readouterr().out
    assert cli.main(["retry-failed", *arguments(folder), "--reasons", "bad_luck"]) == 2
    assert "bad_luck" in capsys.readouterr().err
    assert not (folder / "out" / layout.REVISIONS).exists()


def test_another_manifest_or_an_unfinished_run_is_refused(folder: Path, capsys: Captured) -> None:
    LocalStorage(folder / "out").delete(layout.commit(ATLAS, 1))
    assert cli.main(["retry-failed", *arguments(folder)]) == 1
    assert "finish the run first" in capsys.readouterr().err
    write_manifest(folder, ["a", "b"])
    assert cli.main(["retry-failed", *arguments(folder)]) == 5
    assert "another manifest" in capsys.readouterr().err


def test_when_all_fail_again_it_says_so_and_the_next_try_is_another_revision(folder: Path, capsys: Captured) -> None:
    for uid in ("b", "c"):
        for path in write_views(folder / "views" / uid, 1).glob("*/*.png"):
            image = Image.open(path)
            image.putalpha(0)
            image.save(path)
    assert cli.main(["retry-failed", *arguments(folder)]) == 1
    assert "2 quarantined: 2 too_few_gaussians" in capsys.readouterr().err
    shutil.rmtree(folder / "views" / "b")
    write_views(folder / "views" / "b", 1)
    assert cli.main(["retry-failed", *arguments(folder)]) == 0
    assert rows(LocalStorage(folder / "out" / layout.revision(2))) == {"b": "ok", "c": "quarantined"}
