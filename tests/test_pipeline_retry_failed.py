"""retry-failed on the command line: rescued objects in a version beside bytes that do not change."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from pipeline_runs import dataset, in_process, tiny_arguments, write_manifest, write_views

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import SPLATS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.tar import index
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.dataset.parquet import from_parquet
from gaussianverse.pipeline.dataset.schemas import METADATA
from gaussianverse.pipeline.dataset.versions import open_version
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


def retry(folder: Path, *more: str) -> int:
    return cli.main(["retry-failed", "--out", str(folder / "out"), "--base", str(folder), "--workers", "1", *more])


def rows(folder: Path, number: int) -> dict[str, str]:
    key = dataset_format.version_key(number, dataset_format.METADATA)
    table = from_parquet(METADATA, LocalStorage(folder / "out").get(key))
    return {r["uid"]: r["status"] for r in table.to_pylist()}


def test_quarantined_objects_are_tried_again_and_nothing_that_was_there_changes(
    folder: Path, capsys: Captured
) -> None:
    before = {p: p.read_bytes() for p in (folder / "out").rglob("*") if p.is_file()}
    write_views(folder / "views" / "b", 1)
    assert retry(folder) == 0
    assert "version 2: 2 objects are tried again" in capsys.readouterr().out
    assert rows(folder, 2) == {"a": "ok", "b": "ok", "c": "quarantined"}
    write_views(folder / "views" / "c", 2)
    assert retry(folder, "--note", "the views are there") == 0
    assert rows(folder, 3) == {"a": "ok", "b": "ok", "c": "ok"}
    capsys.readouterr()
    assert retry(folder) == 0
    assert "Nothing to do: no object of version 3 is quarantined" in capsys.readouterr().out
    assert retry(folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["objects"] == 0
    assert {p: p.read_bytes() for p in before} == before
    run = open_version(LocalStorage(folder / "out")).run
    assert [(e["version"], e["changes"]["refitted"], e["note"]) for e in run.history] == [
        (2, 2, ""), (3, 1, "the views are there"),
    ]  # fmt: skip


def test_a_rescued_objects_samples_are_those_of_a_run_in_which_it_never_failed(folder: Path, tmp_path: Path) -> None:
    write_views(folder / "views" / "b", 1)
    write_views(folder / "views" / "c", 2)
    assert retry(folder) == 0
    other = [part if part != str(folder / "out") else str(tmp_path / "other") for part in arguments(folder)]
    assert cli.main(["build", *other]) == 0
    there = dataset(LocalStorage(tmp_path / "other"))
    whole = b"".join(there[dataset_format.shard_tar(SPLATS, k)] for k in (0, 1))
    tar = LocalStorage(folder / "out").get(dataset_format.shard_tar(SPLATS, 2))
    fits = [member for member in index(tar) if member.name.endswith(".npz")]
    assert len(fits) == 2
    assert all(tar[member.offset : member.offset + member.nbytes] in whole for member in fits)


def test_other_settings_of_fits_are_kept_beside_those_of_the_others(folder: Path) -> None:
    write_views(folder / "views" / "b", 1)
    assert retry(folder, "--set", "fit.steps=60") == 0
    version = open_version(LocalStorage(folder / "out"))
    assert version.run.fit.steps == 60
    assert [config["fit"]["steps"] for config in version.identity["configs"].values()] == [100]


def test_reasons_choose_and_unknown_ones_are_refused(folder: Path, capsys: Captured) -> None:
    assert retry(folder, "--reasons", "timeout") == 0
    assert "for these reasons" in capsys.readouterr().out
    assert retry(folder, "--reasons", "bad_luck") == 2
    assert "bad_luck" in capsys.readouterr().err
    assert not (folder / "out" / dataset_format.VERSIONS).exists()
    write_views(folder / "views" / "b", 1)
    assert retry(folder, "--reasons", "missing_views") == 0


def test_an_unfinished_run_and_other_atlases_are_refused(folder: Path, capsys: Captured) -> None:
    assert retry(folder, "--set", "atlas.size=32") == 5
    assert "atlas.size is 16 there, 32 here" in capsys.readouterr().err
    LocalStorage(folder / "out").delete(dataset_format.SUCCESS)
    assert retry(folder) == 1
    assert "the dataset is not finished" in capsys.readouterr().err


def test_when_all_fail_again_it_says_so_and_the_next_try_is_another_version(folder: Path, capsys: Captured) -> None:
    for uid in ("b", "c"):
        for path in write_views(folder / "views" / uid, 1).glob("*/*.png"):
            image = Image.open(path)
            image.putalpha(0)
            image.save(path)
    assert retry(folder) == 0
    assert "0 of 2 objects published, 2 quarantined: 2 too_few_gaussians" in capsys.readouterr().out
    shutil.rmtree(folder / "views" / "b")
    write_views(folder / "views" / "b", 1)
    assert retry(folder, "--reasons", "too_few_gaussians") == 0
    assert rows(folder, 3) == {"a": "ok", "b": "ok", "c": "quarantined"}
