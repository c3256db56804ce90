"""Prints to a terminal or a pipe: foreign text cannot steer the terminal, and a reader that leaves ends nothing.

Nothing is coloured. Pipes, terminals with TERM=dumb and those with NO_COLOR get no control sequence at all.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from gaussianverse.escape import UNSAFE, escaped

_RESET = "\x1b[0m"
_CONTROLS_OF_TEXT = re.compile(rf"(?![\t\n])[{UNSAFE}]")


class Printed:
    """A text stream whose control characters are shown as escapes, and that outlives its reader.

    Line ends and tabs pass, and a carriage return at the start of what is written, by which progress bars return. The
    end of all colours as a write of its own, with which a library that Ray uses ends, passes to a terminal that has
    colours, and is left out elsewhere. Characters that the stream's encoding lacks are shown as escapes too.

    Attributes:
        notes: whether what `note` is given is printed.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self.notes = stream, True
        self._coloured = is_terminal(stream) and not os.environ.get("NO_COLOR")
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write text; returns its length."""
        if text == _RESET and not self._coloured:
            return len(text)
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


def leave_out_notes() -> None:
    """From now on `note` prints nothing, and no progress is drawn, until the end of `printing`."""
    if isinstance(sys.stderr, Printed):
        sys.stderr.notes = False


def notes_wanted() -> bool:
    """Whether notes and progress are to be printed."""
    return getattr(sys.stderr, "notes", True) is True


def note(text: str) -> None:
    """Print a line to stderr that is neither a result nor a warning, unless notes are left out."""
    if notes_wanted():
        print(text, file=sys.stderr, flush=True)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal on which a line can be drawn again, which one with TERM=dumb is not."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def columns() -> int | None:
    """Columns that lines of stdout may have: $COLUMNS, or the terminal's; None = any number, as in a pipe."""
    try:
        if (given := int(os.environ.get("COLUMNS", ""))) > 0:
            return given
    except ValueError:
        pass
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (AttributeError, ValueError, OSError):
        return None


def width_of(text: str) -> int:
    """Columns that a text takes on a terminal: wide characters take two, and marks on others none."""
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def cut(text: str, most: int | None) -> str:
    """The text, or its beginning and an ellipsis where it takes more than `most` columns; None = any number."""
    if most is None or width_of(text) <= most:
        return text
    try:
        end = "\u2026"
        end.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        end = "~"
    kept, room = "", most - 1
    for character in text:
        room -= width_of(character)
        if room < 0:
            break
        kept += character
    return kept + end if most > 0 else ""


def folded(text: str, most: int | None) -> str:
    """The text, of which each line that takes more than `most` columns goes on below, indented; None = any number."""
    if most is None:
        return text
    lines = []
    for line in text.split("\n"):
        after = " " * min(len(line) - len(line.lstrip()) + 2, most // 2)
        lines += textwrap.wrap(line, most, subsequent_indent=after) if width_of(line) > most else [line]
    return "\n".join(lines)


def padded(text: str, width: int) -> str:
    """The text, cut or filled with spaces to `width` columns."""
    shown = cut(text, width)
    return shown + " " * (width - width_of(shown))
