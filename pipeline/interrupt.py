"""SIGTERM ends a command as Ctrl-C does: what was begun is cleaned up, and the same command continues it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""Exit code after SIGINT, Ctrl-C."""
TERMINATED = 143
"""Exit code after SIGTERM."""


class Termination:
    """Whether SIGTERM has come."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt at the first SIGTERM; the clean-up that follows is not disturbed by others."""
        if not self.came:
            self.came = True
            raise KeyboardInterrupt

    @property
    def name(self) -> str:
        """ "terminated" or "interrupted"."""
        return "terminated" if self.came else "interrupted"

    @property
    def exit_code(self) -> int:
        """Exit code of a command that KeyboardInterrupt ended."""
        return TERMINATED if self.came else INTERRUPTED


@contextmanager
def sigterm_interrupts() -> Iterator[Termination]:
    """Within the context, SIGTERM raises KeyboardInterrupt. Only the main thread of a process can receive signals."""
    termination = Termination()
    if threading.current_thread() is not threading.main_thread():
        yield termination
        return
    before = signal.signal(signal.SIGTERM, termination)
    try:
        yield termination
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Keep the handler of SIGTERM against a library that sets its own, which leaves with SystemExit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        signal.signal(signal.SIGTERM, before)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
