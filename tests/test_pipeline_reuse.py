"""Fits that are used again: by uid, settings and bytes of the views, and by nothing less."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pipeline_runs import dataset, differing, in_process, tiny_arguments, write_inputs, write_views

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import ATLAS, SPLATS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.dataset import layout, shards
from gaussianverse.pipeline.ops.evaluation.cost import Cost
from gaussianverse.pipeline.run import job, tasks

Captured = pytest.CaptureFixture[str]
OTHER = ("--set", "atlas.size=8")
"""An atlas of fewer cells than the fits have Gaussians, so that what it holds is measured anew."""


@pytest.fixture(scope="module", autouse=True)
def _without_ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(job, "ray_executor", in_process)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three objects: first/, and other/ with another atlas, both fitted."""
    folder = tmp_path_factory.mktemp("made")
    write_inputs(folder, ["a", "b", "c"])
    assert build(folder, "first") == 0
    assert build(folder, "other", *OTHER) == 0
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "copy")


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The fits that are made."""
    real, found = tasks.fit_prepared, list[Any]()

    def counted(prepared: Any, config: Any, **options: Any) -> Any:
        found.append(prepared.stats["input_sha256"])
        return real(prepared, config, **options)

    monkeypatch.setattr(tasks, "fit_prepared", counted)
    return found


def build(folder: Path, out: str, *more: str) -> int:
    given = ["--manifest", str(folder / "objects.jsonl"), "--out", str(folder / out), "--workers", "1", "--no-report"]
    views = ["--set", "run.views=2", "--set", "run.views_size=16"]
    return cli.main(["build", *given, *tiny_arguments(), *views, *more])


def attempts(folder: Path, out: str) -> dict[str, int]:
    rows = shards.journal_rows(LocalStorage(folder / out), SPLATS, 0)
    return {str(row["uid"]): int(row["attempts"]) for row in rows}


def test_another_atlas_of_the_same_fits_is_the_dataset_that_was_made_from_scratch(
    folder: Path, fits: list[Any]
) -> None:
    events = folder / "events.jsonl"
    assert build(folder, "again", *OTHER, "--reuse", str(folder / "first"), "--events", str(events)) == 0
    assert fits == []
    there, here = (dataset(LocalStorage(folder / out)) for out in ("other", "again"))
    assert differing(there, here) == []
    assert attempts(folder, "again") == {"a": 0, "b": 0, "c": 0}
    assert attempts(folder, "other") == {"a": 1, "b": 1, "c": 1}
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert [line["taken"] for line in lines if line["event"] == "finished"] == [True] * 3
    cost = Cost()
    cost.add(SPLATS, shards.journal_rows(LocalStorage(folder / "again"), SPLATS, 0))
    assert not cost.by_device, "its seconds are in the journal of the other output"
    cost.add(SPLATS, shards.journal_rows(LocalStorage(folder / "other"), SPLATS, 0))
    assert [spent.objects for spent in cost.by_device.values()] == [3]


def test_only_the_same_views_and_settings_are_used_again(folder: Path, fits: list[Any]) -> None:
    shutil.rmtree(folder / "views" / "b")
    write_views(folder / "views" / "b", 5)
    assert build(folder, "views", *OTHER, "--reuse", str(folder / "first")) == 0
    assert len(fits) == 1
    assert attempts(folder, "views") == {"a": 0, "b": 1, "c": 0}
    assert build(folder, "steps", "--set", "fit.steps=60", "--reuse", str(folder / "first")) == 0
    assert len(fits) == 4
    assert build(folder, "seed", "--set", "run.seed=1", "--reuse", str(folder / "first")) == 0
    assert len(fits) == 7


def test_a_damaged_or_unfinished_output_is_named(folder: Path, capsys: Captured) -> None:
    key = dataset_format.shard_tar(SPLATS, 0)
    data = bytearray((folder / "first" / key).read_bytes())
    row = shards.stats_rows(LocalStorage(folder / "first"), SPLATS, 0)[0]
    data[row["offset"] + 200] ^= 1
    (folder / "first" / key).write_bytes(data)
    assert build(folder, "again", *OTHER, "--reuse", str(folder / "first"), "--set", "policy.pause_s=0.01") == 3
    assert "the sha256 of a is not the one in its table" in capsys.readouterr().err
    (folder / "first/_SUCCESS").unlink()
    assert build(folder, "again", *OTHER, "--reuse", str(folder / "first")) == 1
    assert "not finished, so its fits are not used" in capsys.readouterr().err
    assert build(folder, "again", *OTHER, "--reuse", str(folder / "nowhere")) == 1


def test_views_that_moved_are_read_and_not_fitted_again(folder: Path, fits: list[Any]) -> None:
    (folder / "views/a").rename(folder / "views/moved")
    row = json.loads((folder / "objects.jsonl").read_text().splitlines()[0]) | {"views": "views/moved"}
    (folder / "new.jsonl").write_text(json.dumps(row) + "\n")
    given = ["--out", str(folder / "first"), "--manifest", str(folder / "new.jsonl"), "--workers", "1"]
    assert cli.main(["extend", *given]) == 0
    assert fits == []
    storage = LocalStorage(folder / "first")
    old, new = (shards.read_record(storage, ATLAS, shard, "a") for shard in (0, 1))
    assert old.main(ATLAS) == new.main(ATLAS)
    assert storage.head(layout.commit(SPLATS, 1)) is not None


def test_code_may_have_to_agree(folder: Path, fits: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from gaussianverse.pipeline.ops import extend as verb

    row = json.loads((folder / "objects.jsonl").read_text().splitlines()[0])
    (folder / "new.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setattr(verb, "code_digest", lambda: "0" * 64)
    given = ["--out", str(folder / "first"), "--manifest", str(folder / "new.jsonl"), "--workers", "1"]
    assert cli.main(["extend", *given, "--refit=code", "--reuse", str(folder / "other")]) == 0
    assert len(fits) == 1, "neither this output nor the other has a fit of that code"
