"""The folder and token of a run's Ray: nobody else's, gone with the run, and after a kill with the next run."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gaussianverse.pipeline.errors import PipelineError
from gaussianverse.pipeline.run.ray_folder import private_folder, remove_left


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_and_the_token_are_the_runs_own_and_go_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    tokens = set()
    for _ in range(2):
        with private_folder() as folder:
            token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
            assert mode(folder.parent) == 0o700
            assert mode(token) == 0o600
            assert token.parent == folder.parent
            tokens.add(token.read_text())
            assert len(f"{folder}/session_2026-01-01_00-00-00_123456_1234567/sockets/plasma_store.1") <= 103
        assert not folder.parent.exists()
        assert "RAY_AUTH_TOKEN_PATH" not in os.environ
    assert len(tokens) == 2
    assert min(map(len, tokens)) >= 32


def test_a_token_that_the_environment_names_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/mine")
    with private_folder():
        assert os.environ["RAY_AUTH_TOKEN_PATH"] == "/mine"
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == "/mine"


def test_a_temporary_folder_with_a_long_name_leaves_room_for_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with private_folder() as folder:
        assert len(str(folder)) < 30


def test_a_temporary_folder_that_is_lost_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/none")
    with pytest.raises(PipelineError, match=r"in /none .*; make room, or set TMPDIR"), private_folder():
        pass


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files whose name is short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


OWNER = """
import sys, time
from gaussianverse.pipeline.run.ray_folder import private_folder
with private_folder() as folder:
    print(folder.parent, flush=True)
    sys.stdin.read()
"""


def owner(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that owns a folder until its stdin ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER], env={**os.environ, "TMPDIR": str(parent)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def killed(parent: Path) -> Path:
    """The folder that a run of Ray leaves when it is killed."""
    process, left = owner(parent)
    with process:
        process.send_signal(signal.SIGKILL)
    (left / "r" / "session_1" / "sockets").mkdir(parents=True)
    return left


def test_the_next_run_removes_what_a_killed_run_left_and_nothing_that_is_in_use(parent: Path) -> None:
    process, used = owner(parent)
    with process:
        left = killed(parent)
        assert used != left
        with private_folder() as folder, private_folder():
            assert not left.exists()
            assert sorted(used.iterdir()) == [used / "owner", used / "token"]
            assert folder.parent.exists(), "a run of the same process is in use as well"
        process.communicate("")
    assert list(parent.iterdir()) == []


def test_a_folder_whose_ray_still_answers_is_in_use(parent: Path) -> None:
    left = killed(parent)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(left / "r" / "session_1" / "sockets" / "raylet"))
        server.listen()
        remove_left(parent)
        assert left.exists()
    remove_left(parent)
    assert not left.exists()


def opened(left: Path) -> None:
    left.chmod(0o755)


def being_made(left: Path) -> None:
    (left / "owner").unlink()


def linked(left: Path) -> None:
    left.rename(left.parent / "elsewhere")
    left.symlink_to("elsewhere")


def renamed(left: Path) -> None:
    left.rename(left.parent / "gv-other")


@pytest.mark.parametrize("change", [opened, being_made, linked, renamed])
def test_what_is_not_surely_a_dead_runs_own_stays(parent: Path, change: Callable[[Path], None]) -> None:
    change(killed(parent))
    before = sorted(parent.rglob("*"))
    remove_left(parent)
    assert sorted(parent.rglob("*")) == before


def test_folders_of_other_users_stay(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = killed(parent)
    monkeypatch.setattr(os, "getuid", lambda: left.stat().st_uid + 1)
    remove_left(parent)
    assert left.exists()
