"""SIGTERM ends a command as Ctrl-C does: what was begun is cleaned up, and the same command continues it.

Python runs a handler between two of its own instructions, and a call into a library may never come back: Ray's wait
for its head, which the same SIGTERM has ended, until Ray ends the process. A thread that waits for the signal itself
then ends the command.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

INTERRUPTED = 130
"""Exit code after SIGINT, Ctrl-C."""
TERMINATED = 143
"""Exit code after SIGTERM."""
_CLEAN_UP_S = 20.0
"""Seconds that a command has to end after a signal; Slurm and Kubernetes kill it after 30."""

_last_words: list[Callable[[], None]] = []


class QuietInterrupt(KeyboardInterrupt):
    """The interrupt of a command that only looks: there is nothing to continue, and no last line."""


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

    def tell(self) -> None:
        """Print the last line of a command that KeyboardInterrupt ended."""
        print(f"{self.name}; run the same command again to continue", file=sys.stderr, flush=True)


@contextmanager
def sigterm_interrupts(clean_up_s: float = _CLEAN_UP_S) -> Iterator[Termination]:
    """Within the context, SIGTERM raises KeyboardInterrupt. Only the main thread of a process can receive signals.

    A context that a SIGTERM does not end within `clean_up_s` seconds, because a call does not come back, ends with
    the process: after the `last_words`, with the last line and the exit code of the others.
    """
    termination = Termination()
    if threading.current_thread() is not threading.main_thread():
        yield termination
        return
    before = signal.signal(signal.SIGTERM, termination)
    try:
        with _watched(termination, clean_up_s):
            yield termination
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def last_words(call: Callable[[], None]) -> Iterator[None]:
    """Within the context, `call` is made in a thread before a process ends that a signal could not interrupt."""
    _last_words.append(call)
    try:
        yield
    finally:
        _last_words.remove(call)


@contextmanager
def _watched(termination: Termination, clean_up_s: float) -> Iterator[None]:
    """End the process if the context has not ended `clean_up_s` seconds after a SIGTERM. Nothing in it may fork."""
    ours, signals = socket.socketpair()
    signals.setblocking(False)  # as set_wakeup_fd wants it
    ended = threading.Event()

    def watch() -> None:
        while number := ours.recv(1):  # none: closed
            if number[0] == signal.SIGTERM:
                break
        else:
            return
        if not ended.wait(clean_up_s):
            termination.came = True
            for call in reversed(_last_words):
                with suppress(Exception):  # the process ends, whatever they meet
                    call()
            print(file=sys.stderr)  # a progress bar leaves its line open
            termination.tell()
            os._exit(TERMINATED)

    before = signal.set_wakeup_fd(signals.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        signals.close()
        thread.join()
        ours.close()


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
