"""Parser of a verb: errors of usage are one line with the nearest option, and examples stand below the options."""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

from gaussianverse.escape import one_line

_EXAMPLES = "examples:"


class _Formatter(argparse.HelpFormatter):
    """Wraps texts to the terminal, but not the lines of examples, which are commands to copy."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(_EXAMPLES) else super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"formatter_class": _Formatter, **options})

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is; exit code 2."""
        print(f"error: {one_line(message)}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)

    def parsed(self, words: Sequence[str], *, mixed: bool) -> argparse.Namespace:
        """Parse the words after the verb; `mixed`: options may stand between words that can be left out.

        Raises:
            SystemExit: 2 after an error of usage, 0 after `--help`.
        """
        leaf = _leaf(self, words)
        options = sorted(leaf._option_string_actions)
        for word in [word.partition("=")[0] for word in words[: words.index("--") if "--" in words else None]]:
            # before argparse complains of what the misspelt one should have given
            if word.startswith("--") and not any(option.startswith(word) for option in options):
                leaf.error(f"no option {word}{did_you_mean(word, options)}")
        args, strange = (self.parse_known_intermixed_args if mixed else self.parse_known_args)(words)
        if strange:
            leaf.error(f"no option {strange[0]}" if strange[0][0] == "-" else f"{strange[0]!r} is one word too many")
        return args

    def show(self, examples: Sequence[tuple[str, str]]) -> None:
        """Show examples below the help, each as what it does and the command."""
        lines = [f"  # {does}\n  {command}" for does, command in examples]
        self.epilog = "\n".join([_EXAMPLES, *lines])


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question for the known word that is nearest to a misspelt one; "" if none is near."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _leaf(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser that reads the options among the words: the one below that the first word names, if there is one."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and words and words[0] in action.choices:
            return _leaf(action.choices[words[0]], words[1:])
    return parser


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers below a parser that have no parsers below themselves, which may be itself."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield parser
    for action in below:
        for choice in action.choices.values():
            yield from leaves(choice)


def wrapped(name: str, text: str, columns: int, width: int) -> list[str]:
    """A name of `width` columns with a text beside it, or below it where the terminal is narrow."""
    if columns - width < 24:
        return [f"  {name}", *textwrap.wrap(text, max(columns, 8), initial_indent="    ", subsequent_indent="    ")]
    indent = " " * (width + 3)
    return textwrap.wrap(
        text, columns, initial_indent=f"  {name:{width}} ", subsequent_indent=indent, break_on_hyphens=False
    )
