"""Completion scripts for shells, made by shtab of the parsers: static, so that a Tab does not start Python."""

from __future__ import annotations

import argparse
from pathlib import Path

from gaussianverse.pipeline.parser import leaves

SHELLS = ("bash", "zsh", "fish")
_OF_FILES = {"out", "manifest", "views", "dest", "output", "folder", "base", "reuse", "captions", "profile", "like"}
"""Options and words without the type of a path that are paths, or can be."""


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script by which a shell completes verbs, options, choices and paths.

    Args:
        parser: of the whole command line.
        shell: one of `SHELLS`.
    """
    import shtab

    for leaf in leaves(parser):
        for action in leaf._actions:
            if action.nargs != 0 and action.choices is None and (action.type is Path or action.dest in _OF_FILES):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))
