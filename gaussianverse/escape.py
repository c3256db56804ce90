"""Escapes foreign text for where it is written: a line of a terminal or a message, a cell of a Markdown table."""

from __future__ import annotations

import re

# controls, C1 controls, line and paragraph separators, marks that turn the direction of writing, lone surrogates
UNSAFE = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
"""Characters that no text is shown with, as a range of a regular expression."""
_CONTROLS = re.compile(f"[{UNSAFE}]")
# All that Markdown, its dialects, HTML and templates could read as more than text. A renderer takes `www.` for the
# start of a link, strips the white space at both ends of a cell, and leaves an underscore between letters alone.
_MARKUP = re.compile(
    r"(?i:(?<=www)\.)|^\s|\s$|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?![A-Za-z0-9 .,()/+%'_-])[\x20-\x7e]"
)


def one_line(text: object) -> str:
    r"""The text with every control character shown as an escape such as \x1b, line ends included."""
    return _CONTROLS.sub(escaped, str(text))


def escaped(found: re.Match[str]) -> str:
    r"""A character of `UNSAFE` as \x1b or \u202e, for `re.sub`."""
    return found[0].encode("unicode_escape").decode("ascii")


def markdown(text: object, limit: int) -> str:
    """The text for a cell of a Markdown table, which a renderer shows as it is and as nothing else.

    Characters that could mean something are numeric character references: those are text in CommonMark, in its
    dialects' tables and in HTML, where a backslash would escape differently. Controls are shown as by `one_line`.

    Args:
        text: the foreign text.
        limit: number of characters that are shown; a longer text is cut, and its length said.
    """
    text = str(text)
    shown = _MARKUP.sub(lambda found: f"&#{ord(found[0])};", one_line(text[:limit]))
    return shown if len(text) <= limit else f"{shown} ... ({len(text)} characters)"
