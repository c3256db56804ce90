"""purge: deletes old versions with the shards that no other version counts, or a version that was given up."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import suppress

from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.arguments import add_json, add_overrides, config_of
from gaussianverse.pipeline.dataset import purging
from gaussianverse.pipeline.dataset.makers import ranges
from gaussianverse.pipeline.dataset.purging import Purge
from gaussianverse.pipeline.errors import PipelineError, UsageError

_NAMED = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse purge`."""
    parser.add_argument("out", metavar="OUT", help="folder or s3://bucket/prefix of the dataset")
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--before", type=int, metavar="N", help="delete the versions before N")
    chosen.add_argument(
        "--unfinished", action="store_true", help="delete the version that was begun and is not finished"
    )
    parser.add_argument("--confirm", default="", metavar="NAME", help="such as 0003; default: it is asked for")
    parser.add_argument("--dry-run", action="store_true", help="say what would be deleted, and delete nothing")
    add_overrides(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Say what is deleted, ask, and delete it; returns the exit code.

    Raises:
        UsageError: there is nothing of the kind, or no confirmation.
        PipelineError: a file that a kept version counts is missing or damaged; nothing was deleted.
    """
    storage = open_storage(args.out, config_of(args).store)
    purge = _planned(storage, args)
    if not args.json:
        print(f"{storage.url}: {_text(purge)}", flush=True)
    if args.dry_run or not purge.entries:
        _print_json(storage, args, purge, deleted=False)
        return 0
    faults = list(purging.faults_of_kept(storage, purge))
    if faults:
        more = f" and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise PipelineError(
            f"{storage.url}: nothing was deleted, as a version that stays is damaged: "
            f"{'; '.join(faults[:_NAMED])}{more}. Mend it first (gaussianverse verify)"
        )
    _confirm(args, purge)
    purge = _planned(storage, args)  # checks and confirmation take long, and meanwhile the version may be finished
    purge.delete(storage)
    _print_json(storage, args, purge, deleted=True)
    if not args.json:
        print(f"deleted {len(purge.entries)} files, {_nbytes(purge)} bytes")
    return 0


def _planned(storage: Storage, args: argparse.Namespace) -> Purge:
    return purging.unfinished(storage) if args.unfinished else purging.before(storage, args.before)


def _print_json(storage: Storage, args: argparse.Namespace, purge: Purge, *, deleted: bool) -> None:
    """Print what was found, with --json, once it is known whether it was deleted."""
    if args.json:
        found = {"versions": purge.versions, "shards": len(purge.shards), "files": len(purge.entries)}
        print(json.dumps({"url": storage.url, **found, "bytes": _nbytes(purge), "deleted": deleted}))


def _confirm(args: argparse.Namespace, purge: Purge) -> None:
    """Raise UsageError unless the name of the version was given, or is typed."""
    what = "that is given up" if args.unfinished else "that becomes the first"
    given = args.confirm
    if not given and sys.stdin.isatty() and not args.json:
        with suppress(EOFError):
            given = input(f"Type the name of the version {what}, {purge.name}, to delete this for good: ").strip()
    if given != purge.name:
        raise UsageError(f"nothing was deleted: --confirm {purge.name} is the name of the version {what}")


def _nbytes(purge: Purge) -> int:
    return sum(entry.nbytes for entry in purge.entries)


def _text(purge: Purge) -> str:
    if not purge.entries:
        return "nothing to delete"
    versions = f"version{'s' if len(purge.versions) != 1 else ''} {ranges(tuple(purge.versions))}"
    shards = f"shards {ranges(tuple(purge.shards))}" if purge.shards else "no shards"
    return f"{versions} and {shards}, {len(purge.entries)} files, {_nbytes(purge)} bytes"
