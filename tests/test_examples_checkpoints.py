"""Checkpoints: a kill anywhere in a write, and damage to any file of one, lose one interval at most."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gaussianverse.examples import checkpoints
from gaussianverse.examples.errors import TrainingError


class Killed(BaseException):
    """The process ends here."""


def fill(folder: Path) -> None:
    (folder / "unet").mkdir()
    (folder / "unet" / "weights").write_bytes(bytes(range(200)))
    (folder / "train.pt").write_bytes(b"state" * 20)
    (folder / "about.json").write_text("{}")


def counted(monkeypatch: pytest.MonkeyPatch, last: int) -> list[str]:
    """Let only `last` calls of what makes a checkpoint durable happen; the next one ends the process."""
    calls: list[str] = []

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if len(calls) >= last:
                raise Killed
            calls.append(name)
            return real(*arguments, **options)

        return call

    for owner, name in (
        (os, "fsync"),
        (os, "rename"),
        (checkpoints, "sha256_of_file"),
        (checkpoints.shutil, "rmtree"),
    ):
        monkeypatch.setattr(owner, name, wrapped(name, getattr(owner, name)))
    monkeypatch.setattr(Path, "write_text", wrapped("write_text", Path.write_text))
    monkeypatch.setattr(Path, "write_bytes", wrapped("write_bytes", Path.write_bytes))
    return calls


@pytest.mark.parametrize("again", [False, True])
def test_a_kill_at_any_moment_of_a_write_leaves_a_whole_checkpoint(tmp_path: Path, again: bool) -> None:
    """Also where a step is written again, after a resume from an earlier one."""
    ended = False
    for moment in range(100):
        out = tmp_path / str(moment)
        checkpoints.write(out, 10, fill)
        if again:
            checkpoints.write(out, 20, fill)
        with pytest.MonkeyPatch.context() as patch:
            calls = counted(patch, moment)
            try:
                checkpoints.write(out, 20, fill)
                ended = True
            except Killed:
                pass
        found = checkpoints.find(out, checkpoints.LATEST)
        assert found.name in ("step-000010", "step-000020")
        assert (found / "unet" / "weights").read_bytes() == bytes(range(200))
        # the next write clears up what was left
        checkpoints.write(out, 30, fill)
        assert checkpoints.find(out, checkpoints.LATEST).name == "step-000030"
        assert not [path for path in out.iterdir() if not path.name.startswith("step-")]
        if ended:
            break
    assert ended
    assert {"fsync", "rename", "sha256_of_file"} <= set(calls)
    assert calls.count("rename") == (2 if again else 1)


def test_a_checkpoint_is_flushed_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch, 1000)
    checkpoints.write(tmp_path, 10, fill)
    # three files, the sums, and two folders; then the name, and the folder that has it
    assert calls[calls.index("rename") - 6 :] == ["fsync"] * 6 + ["rename", "fsync"]


@pytest.mark.parametrize("name", ["unet/weights", "train.pt", "about.json", checkpoints.SUMS])
def test_damage_to_any_file_is_skipped(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints.write(tmp_path, 10, fill)
    newest = checkpoints.write(tmp_path, 20, fill) / name
    whole = newest.read_bytes()
    half = len(whole) // 2
    damaged = [whole[:n] for n in {0, 1, half, len(whole) - 1}]
    damaged += [whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :]]
    for content in damaged:
        newest.write_bytes(content)
        assert checkpoints.find(tmp_path, checkpoints.LATEST).name == "step-000010"
        with pytest.raises(TrainingError, match="--resume latest"):
            checkpoints.find(tmp_path, str(tmp_path / "step-000020"))
    newest.unlink()
    assert checkpoints.find(tmp_path, checkpoints.LATEST).name == "step-000010"
    assert "skipped" in caplog.text
    newest.write_bytes(whole)
    assert checkpoints.find(tmp_path, checkpoints.LATEST).name == "step-000020"


def test_old_ones_are_deleted_if_asked_and_the_newest_is_by_number(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000, 1_000_001):
        checkpoints.write(tmp_path, step, fill, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-1000000", "step-1000001"]
    checkpoints.write(tmp_path, 999_999, fill)
    assert checkpoints.find(tmp_path, checkpoints.LATEST).name == "step-1000001"


def test_what_is_just_written_stays_whatever_later_ones_there_are(tmp_path: Path) -> None:
    """After a resume from an earlier checkpoint; later ones are torn, or of the same training."""
    for step in (10, 30, 40):
        checkpoints.write(tmp_path, step, fill)
    (tmp_path / "step-000040" / "train.pt").write_bytes(b"")
    checkpoints.write(tmp_path, 20, fill, keep=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000020", "step-000030", "step-000040"]


def test_nothing_to_resume_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no whole step"):
        checkpoints.find(tmp_path / "new", checkpoints.LATEST)
    with pytest.raises(TrainingError, match="no readable"):
        checkpoints.find(tmp_path, str(tmp_path / "step-000001"))
