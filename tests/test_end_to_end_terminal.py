"""Progress on a terminal, as a person sees it: of a run, and of one that is watched from its store."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline_commands import build_command
from pipeline_runs import planned, publish_all, publish_one, write_manifest, write_views
from terminals import on_a_terminal

from gaussianverse.atlas.dataset_format import ATLAS, SPLATS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.dataset import layout, pack
from gaussianverse.pipeline.dataset.finalize import finalize
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows


def test_the_first_line_comes_first_and_the_bar_moves_within_an_object(tmp_path: Path) -> None:
    write_views(tmp_path / "views" / "ball")
    write_manifest(tmp_path, ["ball"])

    def moved(written: str) -> bool:
        drawn = re.findall(r"\r +(\d+)%\|[^|]+\| 0/1 objects, \d+/h, [^,]+ left", written)
        return len({percent for percent in drawn if percent != "0"}) > 1

    command = build_command(tmp_path, tmp_path / "out", "--set", "fit.steps=200000")  # it takes a minute
    with on_a_terminal(command) as terminal:
        terminal.until(moved)
        os.kill(terminal.process.pid, signal.SIGINT)
        code = terminal.end()
    lines = terminal.written.split("\r\n")
    assert lines[0] == "1 object, 1 at a time"
    assert code == 130
    assert "interrupted; run the same command again to continue" in lines
    assert "\\x1b" not in terminal.written


def drawn(pattern: str) -> Callable[[str], bool]:
    return lambda written: re.search(pattern, written) is not None


def watching(out: Path) -> list[str]:
    return [sys.executable, "-m", "gaussianverse.pipeline.cli", "status", "--out", str(out), "--watch"]


def test_a_run_of_another_process_is_watched_to_its_end(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    run = planned(storage, ["a", "b", "c", "d"], shard_size=2)
    with on_a_terminal(watching(tmp_path)) as terminal:
        terminal.until(drawn(r"\r  0%\|          \| 0/4 objects, time left unknown"))
        publish_one(storage, run, SPLATS, {**shard_rows(storage, run, 0)[0], "shard": 0}, data=b"x")
        terminal.until(drawn(r"\r 2[23]%\|[^|]+\| 0/4 objects, \d+/h, [^,]+ left"))
        publish_all(storage, run, SPLATS)
        publish_all(storage, run, ATLAS, quarantined={"b"})
        for stage in layout.STAGES:
            pack.pack(storage, run, stage, 0)
        terminal.until(drawn(r"\| 4/4 objects, \d+/h, 1 quarantined \(1 bad_input\)"))
        for stage in layout.STAGES:
            pack.pack(storage, run, stage, 1)
        finalize(storage, run)
        assert terminal.end() == 0
    *_, last = terminal.written.strip().split("\r\n")
    assert last == "  finalized"


def test_control_c_ends_a_watch_without_a_word(tmp_path: Path) -> None:
    planned(LocalStorage(tmp_path), ["a"])
    with on_a_terminal(watching(tmp_path)) as terminal:
        terminal.until(drawn("0/1 objects"))
        os.kill(terminal.process.pid, signal.SIGINT)
        assert terminal.end() == 130
    assert terminal.written.endswith("| 0/1 objects, time left unknown\r\n")
