"""`status --watch` where nobody looks at a terminal: lines, JSON, and errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pipeline_runs import planned, publish_all

from gaussianverse.atlas.dataset_format import ATLAS, SPLATS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.dataset import layout, pack
from gaussianverse.pipeline.dataset.finalize import finalize
from gaussianverse.pipeline.ops import status

Captured = pytest.CaptureFixture[str]


class Meanwhile:
    """What another process does between two looks, one step a pause."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], object]) -> None:
        self._steps = list(steps)
        monkeypatch.setattr(status.time, "sleep", self)

    def __call__(self, seconds: float) -> None:
        assert seconds > 0
        self._steps.pop(0)()


def watched(out: Path, *more: str) -> int:
    return cli.main(["status", "--out", str(out), "--watch", *more])


def done(storage: LocalStorage, bad: set[str]) -> tuple[Callable[[], None], Callable[[], None], Callable[[], None]]:
    """Steps of a run of three objects: fits, shards, the dataset."""
    run = planned(storage, ["a", "b", "c"])

    def fits() -> None:
        publish_all(storage, run, SPLATS, quarantined=bad)

    def packed() -> None:
        publish_all(storage, run, ATLAS, quarantined=bad)
        for stage in layout.STAGES:
            pack.pack(storage, run, stage, 0)

    return fits, packed, lambda: finalize(storage, run)


def test_without_a_terminal_there_is_a_line_at_once_and_one_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    Meanwhile(monkeypatch, *done(LocalStorage(tmp_path), {"b"}))
    assert watched(tmp_path) == 0
    told = capsys.readouterr()
    first, last = told.err.splitlines()
    assert first == "0/3 objects, time left unknown"
    assert last.startswith("3/3 objects, ")
    assert last.endswith("1 quarantined (1 bad_input), 40 Gaussians")
    assert "\r" not in told.err
    assert told.out.endswith("  finalized\n")


def test_json_is_a_line_for_each_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    fits, *others = done(LocalStorage(tmp_path), set())
    Meanwhile(monkeypatch, fits, lambda: None, *others)
    assert watched(tmp_path, "--json") == 0
    told = capsys.readouterr()
    statuses = [json.loads(line) for line in told.out.splitlines()]
    assert [one["stages"][SPLATS]["objects"] for one in statuses] == [0, 3, 3, 3]
    assert [one["finalized"] for one in statuses] == [False, False, False, True]
    assert told.err == ""


def test_it_ends_with_a_run_of_which_no_object_came_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    fits, packed, _ = done(LocalStorage(tmp_path), {"a", "b", "c"})
    Meanwhile(monkeypatch, fits, packed)
    assert watched(tmp_path) == 0
    assert "3 quarantined (3 bad_input)" in capsys.readouterr().err


def test_an_output_that_is_missing_or_goes_away_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert watched(tmp_path / "none") == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'none'}")
    out = tmp_path / "out"
    planned(LocalStorage(out), ["a"])
    Meanwhile(monkeypatch, lambda: shutil.rmtree(out))
    assert watched(out) == 1
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: ")
    assert str(out) in last


def test_commit_records_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fits, packed, finalized = done(LocalStorage(tmp_path), set())
    reads = list[tuple[str, int]]()
    real = status.read_commit

    def counted(storage: LocalStorage, family: str, shard: int) -> object:
        reads.append((family, shard))
        return real(storage, family, shard)

    monkeypatch.setattr(status, "read_commit", counted)
    Meanwhile(monkeypatch, fits, packed, lambda: None, lambda: None, finalized)
    assert watched(tmp_path) == 0
    assert sorted(reads) == [(ATLAS, 0), (SPLATS, 0)]
