"""A run on a terminal, as a person sees it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline_commands import ROOT, build_command, kill_all
from pipeline_runs import write_manifest, write_views


class Terminal:
    """What a command writes to a terminal of 120 columns that is its standard output and error."""

    def __init__(self, command: list[str]) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        self.written = ""

    def read(self) -> bool:
        """Wait for more of it; False at its end."""
        try:
            data = os.read(self._ours, 1 << 16)
        except OSError:  # the command has ended
            data = b""
        self.written += data.decode(errors="replace")
        return bool(data)

    def until(self, condition: Callable[[str], bool]) -> None:
        """Read until the condition holds of all that was written."""
        while not condition(self.written):
            assert self.read(), f"it ended too early: {self.written}"

    def close(self) -> None:
        kill_all(self.process)
        os.close(self._ours)


@contextmanager
def on_a_terminal(command: list[str]) -> Iterator[Terminal]:
    terminal = Terminal(command)
    try:
        yield terminal
    finally:
        terminal.close()


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
        while terminal.read():
            pass
        code = terminal.process.wait()
    lines = terminal.written.split("\r\n")
    assert lines[0] == "1 object, 1 at a time"
    assert code == 130
    assert "interrupted; run the same command again to continue" in lines
    assert "\\x1b" not in terminal.written
