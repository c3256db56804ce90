"""A terminal for commands, of which a test reads what a person would see."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline_commands import ROOT, kill_all


def _hears_ctrl_c() -> None:
    """Undo what tests inherit of a shell that started them in the background: SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """Terminal of 120 columns that is a command's standard output and error, and what it wrote there."""

    def __init__(self, command: list[str]) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=_hears_ctrl_c
        )
        os.close(theirs)
        self.written = ""

    def read(self) -> bool:
        """Wait for more of it; False at its end. Fails if nothing comes for five minutes."""
        assert select.select([self._ours], [], [], 300)[0], f"it is silent after: {self.written}"
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

    def end(self) -> int:
        """Read to the end; returns the exit code."""
        while self.read():
            pass
        return self.process.wait()

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
