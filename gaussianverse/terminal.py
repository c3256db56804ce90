"""Prints to a terminal or a pipe: foreign text cannot steer the terminal, and a reader that leaves ends nothing."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from gaussianverse.escape import UNSAFE, escaped

_RESET = "\x1b[0m"
_CONTROLS_OF_TEXT = re.compile(rf"(?![\t\n])[{UNSAFE}]")


class Printed:
    """A text stream whose control characters are shown as escapes, and that outlives its reader.

    Line ends and tabs pass, a carriage return at the start of what is written, by which progress bars return, and the
    end of all colours as a write of its own, with which a library that Ray uses ends on a terminal.
    Characters that the stream's encoding lacks are shown as escapes too.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write text; returns its length."""
        start = text if text == _RESET else text[:1] if text.startswith("\r") else ""
        try:
            self._stream.write(start + _CONTROLS_OF_TEXT.sub(escaped, text[len(start) :]))
        except BrokenPipeError:
            self._leave()
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._leave()

    def _leave(self) -> None:
        """Let everything that follows go nowhere, also what Python flushes at its end."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def printing() -> Iterator[None]:
    """Make `sys.stdout` and `sys.stderr` `Printed` within the context, and flush them at its end.

    Raises:
        OSError: what was printed cannot be written, such as to a full disk.
    """
    before = sys.stdout, sys.stderr
    # one of them is None if the process was started without it
    printed = [stream and Printed(stream) for stream in before]
    sys.stdout, sys.stderr = printed
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in filter(None, printed):
            stream.flush()
