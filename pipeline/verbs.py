"""What a verb of the command line is, the parser that it gets, and the help that lists all of them."""

from __future__ import annotations

import argparse
import importlib
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType

from gaussianverse.pipeline.arguments import add_quiet
from gaussianverse.pipeline.examples import EXAMPLES
from gaussianverse.pipeline.parser import Parser, leaves, wrapped

GROUPS = ("prepare", "build", "look", "keep")
_ABOUT = "Fit 3D Gaussians, build Gaussian atlases and publish them as WebDataset shards."
_END = (
    "`gaussianverse VERB --help` lists a verb's options and shows examples; `gaussianverse --version` names the "
    "version.",
    "Every verb takes --quiet, which leaves out progress and notes, and all but `completion` --json.",
)


@dataclass(frozen=True)
class Verb:
    """One command."""

    group: str
    """One of `GROUPS`; help lists the verb under it."""
    help: str
    options: tuple[Callable[[argparse.ArgumentParser], None], ...]
    """Each adds options to a parser."""
    run: Callable[[argparse.Namespace], int]
    """Returns the exit code."""
    mixed: bool = False
    """Whether options may stand between words of which some can be left out."""


def from_module(group: str, help: str, module: str, *, mixed: bool = False) -> Verb:
    """A verb with a module of its own, which has `add_arguments` and `run`; it is imported when it is asked for."""

    def load() -> ModuleType:
        return importlib.import_module(f"gaussianverse.{module}")

    return Verb(group, help, (lambda parser: load().add_arguments(parser),), lambda args: load().run(args), mixed)


def parser_of(name: str, verb: Verb) -> Parser:
    """The parser of a verb: its options, `--quiet`, and its examples."""
    parser = Parser(prog=f"gaussianverse {name}", description=f"{verb.help}.")
    _fill(parser, name, verb)
    return parser


def whole_parser(verbs: Mapping[str, Verb]) -> Parser:
    """The parser of the whole command line, which imports all verbs."""
    parser = Parser(prog="gaussianverse")
    below = parser.add_subparsers(metavar="VERB")
    for name, verb in verbs.items():
        _fill(below.add_parser(name, help=verb.help), name, verb)
    return parser


def _fill(parser: Parser, name: str, verb: Verb) -> None:
    for add_options in verb.options:
        add_options(parser)
    examples = EXAMPLES.get(name, ())
    parser.show(examples)
    for leaf in leaves(parser):
        add_quiet(leaf)
        if leaf is not parser and isinstance(leaf, Parser):
            leaf.show([example for example in examples if example[1].startswith(f"{leaf.prog} ")])


def overview(verbs: Mapping[str, Verb], columns: int) -> str:
    """The help that lists all verbs by group, in so many columns."""
    width = max(map(len, verbs)) + 1
    lines = ["usage: gaussianverse VERB [options]", "", *textwrap.wrap(_ABOUT, max(columns, 8))]
    for group in GROUPS:
        lines += ["", f"{group}:"]
        for name, verb in verbs.items():
            if verb.group == group:
                lines += wrapped(name, verb.help, columns, width)
    for text in _END:
        lines += ["", *textwrap.wrap(text, max(columns, 8), break_on_hyphens=False)]
    return "\n".join(lines)
