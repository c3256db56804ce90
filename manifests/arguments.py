"""Options by which every verb that takes a manifest reads it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gaussianverse.manifests.table import Rules


def add_rules(parser: argparse._ActionsContainer) -> None:
    """Add `--strict`, `--default` and `--source`."""
    parser.add_argument("--strict", action="store_true", help="refuse a manifest with any faulty row")
    parser.add_argument(
        "--default", action="append", default=[], metavar="NAME=VALUE", help="value of your column where rows lack it"
    )
    parser.add_argument(
        "--source", action="append", default=[], metavar="PREFIX",
        help="folder or s3://bucket/prefix that views may lie under; rows that point elsewhere are faulty",
    )  # fmt: skip


def rules_of(args: argparse.Namespace) -> Rules:
    """The rules that the options name. Raises ManifestError if a default has another form."""
    from gaussianverse.manifests.table import Rules, parse_default

    return Rules(defaults=dict(map(parse_default, args.default)), sources=tuple(args.source))
