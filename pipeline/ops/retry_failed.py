"""retry-failed: tries quarantined objects again, as the next version of the dataset.

No byte that is there changes: who has read the version before reads the same again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from gaussianverse.atlas.store import open_storage
from gaussianverse.pipeline.arguments import add_base, add_building, add_output, continued_config_of, store_of
from gaussianverse.pipeline.dataset import extension, new_version
from gaussianverse.pipeline.dataset.live_rows import LiveRows
from gaussianverse.pipeline.dataset.new_version import Given
from gaussianverse.pipeline.dataset.shards import Counts
from gaussianverse.pipeline.errors import UsageError
from gaussianverse.pipeline.ops.building import build_version
from gaussianverse.pipeline.policy import REASONS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse retry-failed`."""
    add_output(parser)
    add_base(parser)
    parser.add_argument("--reasons", default="", help="such as timeout,nan_loss; default: all")
    parser.add_argument("--note", default="", metavar="TEXT", help="why; version.json and the card keep it")
    add_building(parser)
    parser.set_defaults(profile=None)


def run(args: argparse.Namespace) -> int:
    """Make the version and print its table; returns the exit code.

    Raises:
        RunConflict: the next version was begun with another plan.
        PipelineError: the dataset is not finished.
    """
    reasons = frozenset(filter(None, args.reasons.split(",")))
    if unknown := sorted(reasons - set(REASONS)):
        raise UsageError(f"--reasons {', '.join(unknown)}: expected some of {', '.join(REASONS)}")
    storage = open_storage(args.out, store_of(args))
    parent = new_version.open_parent(storage)
    config = continued_config_of(args, parent.run.identity["config"])
    live = LiveRows(storage, parent)
    again = extension.quarantined(live, reasons)
    if not len(again):
        where = f"version {parent.number}" if parent.number > 1 else "this dataset"
        if args.json:
            none = {**asdict(Counts(0, 0, {})), "quarantined": 0}
            print(json.dumps({"url": storage.url, "finalized": True, "idle": True, **none}))
            return 0
        print(f"Nothing to do: no object of {where} is quarantined{' for these reasons' if reasons else ''}.")
        return 0
    plan = extension.plan_of(live, None, again=again)
    given = Given(parent, plan, config, new_version.continued(parent.run, config), args.base)
    if not args.json:
        objects = "1 object is" if len(again) == 1 else f"{len(again)} objects are"
        print(f"version {parent.number + 1}: {objects} tried again", flush=True)
    return build_version(storage, given, args)
