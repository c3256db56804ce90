"""report: prints a table of a run's objects, one line each, with medians, and makes a page to look at."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import OK
from gaussianverse.atlas.store import is_remote
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.escape import one_line
from gaussianverse.pipeline.arguments import add_base, add_reading, add_shards, config_of, open_dataset
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.dataset.shards import Counts, committed_shards, journal_rows, stats_rows
from gaussianverse.pipeline.dataset.versions import Version, open_version
from gaussianverse.pipeline.errors import NoObject, PipelineError, UsageError, message
from gaussianverse.pipeline.ops.page.folder import INDEX
from gaussianverse.pipeline.ops.page.make import Chosen, make_page
from gaussianverse.pipeline.ops.page.objects import METRICS, Entry
from gaussianverse.pipeline.ops.table import MAX_LINES, UNKNOWN, Table, table
from gaussianverse.pipeline.policy import ordered_shards
from gaussianverse.pipeline.run.job import Outcome
from gaussianverse.pipeline.run.measure import Measurer
from gaussianverse.terminal import columns, note

TOO_MANY_QUARANTINED = 6
"""Exit code if more than `--fail-above` of the objects are quarantined."""
MOST_AT_END = 200
"""Objects of an output whose page is made as soon as it is built."""


def result_rows(storage: Storage, shards: Iterable[int], version: Version | None = None) -> Iterator[dict[str, Any]]:
    """Rows of the objects of committed shards: columns of both stages' tables, and the seconds of both stages.

    Args:
        storage: store of the output.
        shards: numbers of the shards.
        version: the version whose rows are wanted; None = all rows.
    """
    for shard in shards:
        lost = set() if version is None else set(version.superseded.in_shard(shard).tolist())
        read = (stats_rows(storage, stage, shard) for stage in layout.STAGES)
        splats, atlases = ([row for row in rows if row["index"] not in lost] for rows in read)
        seconds = _seconds(storage, shard)
        for fit, atlas in zip(splats, atlases, strict=True):
            yield _row(fit, atlas, seconds.get(fit["uid"], UNKNOWN))


def _seconds(storage: Storage, shard: int) -> dict[str, float]:
    """The seconds of both stages by uid; none without the journals, which are not part of the dataset."""
    try:
        journals = [journal_rows(storage, stage, shard) for stage in layout.STAGES]
    except (NotFound, PipelineError):
        return {}
    found: dict[str, float] = {}
    for entry in chain(*journals):
        found[entry["uid"]] = found.get(entry["uid"], 0.0) + max(0.0, float(entry["seconds"]))
    return found


def _row(fit: Facts, atlas: Facts, seconds: float) -> dict[str, Any]:
    return {
        "uid": fit["uid"],
        "n_gaussians": fit["n_gaussians"],
        "atlas_heldout_psnr": fit.get("atlas_heldout_psnr", UNKNOWN),
        "psnr": fit["psnr"],
        "ssim": fit["ssim"],
        "metrics_on": fit["metrics_on"],
        "smoothness": atlas["smoothness"],
        "seconds": seconds,
        "status": atlas["status"],
        "reason": atlas["reason"],
        "error_message": atlas["error_message"],
    }


def print_outcome(outcome: Outcome, args: argparse.Namespace, left_out: Mapping[str, int] | None = None) -> int:
    """Print what a call that built shards has done: a table, their address, and last how many objects were published.

    Args:
        outcome: the result of the call.
        args: the options of `add_building`.
        left_out: files of an import that were not taken, by reason; printed as JSON.

    Returns:
        The exit code: 0, or `TOO_MANY_QUARANTINED`.
    """
    url, counts = outcome.storage.url, outcome.counts
    too_many = args.fail_above is not None and counts.quarantined > args.fail_above * counts.objects
    if args.json:
        numbers = {**asdict(counts), "quarantined": counts.quarantined}
        files = {} if left_out is None else {"left_out": dict(sorted(left_out.items()))}
        print(json.dumps({"url": url, "finalized": outcome.finalized, "idle": outcome.idle, **numbers, **files}))
        return TOO_MANY_QUARANTINED if too_many else 0
    if outcome.idle and outcome.complete:
        print("Nothing to do: the requested shards are committed already.")
    rows = list(result_rows(outcome.storage, outcome.complete[:MAX_LINES]))
    if rows:
        print(table(rows, columns()))
    if outcome.finalized:
        what = "The dataset" if outcome.number == 1 else f"Version {outcome.number}"
        card = dataset_format.version_key(outcome.number, dataset_format.CARD)
        print(f"\n{what} is complete: {url} (shards in atlas/ and splats/, described in {card})")
    else:
        print(f"\nShards are committed: {url} (the dataset is finalized once all of its shards are)")
    if counts.objects:
        print(counts_text(counts, url, next((r["uid"] for r in rows if r["status"] != OK), "")))
    if too_many:
        share = counts.quarantined / counts.objects
        print(f"error: {share:.1%} of the objects are quarantined, more than --fail-above", file=sys.stderr)
        return TOO_MANY_QUARANTINED
    return 0


def counts_text(counts: Counts, url: str, uid: str) -> str:
    """The last line of a run; `uid` is a quarantined object to look at, "" if none is at hand."""
    line = f"{counts.published} of {counts.objects} objects published"
    if not counts.quarantined:
        return line
    listed = ", ".join(f"{n} {reason}" for reason, n in counts.reasons.items())
    look = f"gaussianverse inspect {uid} --out {url}" if uid else f"gaussianverse top-errors --out {url}"
    return f"{line}, {counts.quarantined} quarantined: {listed} ({look})"


def look_at(outcome: Outcome, args: argparse.Namespace, base: str) -> None:
    """Make the page of a small output in a folder after it was built, and print where it is; of others, say how.

    A page that cannot be made is said on stderr, whatever the error: the shards are there all the same.
    """
    if args.json or args.no_report or not outcome.complete:
        return
    command = f"gaussianverse report --out {outcome.storage.url}"
    try:
        page = _page_at_end(outcome, args, base)
    except Exception as error:  # an error of the page is none of the run, which has ended
        print(f"warning: no page: {one_line(message(error))}; to make it: {command}", file=sys.stderr)
    else:
        print(f"look: {page or command}")


def _page_at_end(outcome: Outcome, args: argparse.Namespace, base: str) -> Path | None:
    """The page of all committed shards; None for an output that is large, or no folder."""
    storage = outcome.storage
    version = open_version(storage, outcome.number)
    opened = version.run
    if is_remote(storage.url) or version.n_objects > MOST_AT_END:
        return None
    dest = Path(storage.url, layout.PAGE)
    if outcome.idle and (dest / INDEX).is_file():
        return dest / INDEX
    measurer = Measurer(opened, base, config_of(args).store)
    return make_page(storage, opened, _whole_shards(storage, version), dest, measurer).path


def _whole_shards(storage: Storage, version: Version, shards: str = "") -> list[int]:
    """Shards that are committed in every family, of those that `shards` names; "" = all."""
    committed = committed_shards(storage)
    return [k for k in ordered_shards(shards, version.shards) if all((s, k) in committed for s in version.families)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse report`."""
    add_shards(parser)
    add_reading(parser)
    parser.add_argument(
        "--dest", type=Path, metavar="DIR", help=f"folder of the page; default: {layout.PAGE} in the output, or in "
        "the working directory where the output is no folder",
    )  # fmt: skip
    parser.add_argument(
        "--objects", nargs="+", default=[], metavar="N|UID",
        help="objects that get a page of their own: the first N, or those named; one number is N unless it is an "
        f"object's uid; default: {Chosen.first}",
    )  # fmt: skip
    parser.add_argument("--worst", type=int, default=Chosen.worst, metavar="N",
        help=f"and the N that are the worst by one metric; default: {Chosen.worst}",
    )  # fmt: skip
    parser.add_argument("--worst-by", choices=METRICS, default=Chosen.worst_by, metavar="METRIC",
        help=f"the metric: {', '.join(METRICS)}; default: {Chosen.worst_by}",
    )  # fmt: skip
    add_base(parser)
    parser.add_argument(
        "--evaluation", type=Path, metavar="FILE", help="evaluation.json of `evaluate`, whose tables the page shows; "
        "default: the one that `evaluate` left in the output, or in the working directory where that is no folder",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Print the table of committed shards, and make the page; returns the exit code. With --json only the rows."""
    storage, version = open_dataset(args)
    opened, shards = version.run, _whole_shards(storage, version, args.shards)
    if args.json:
        _print_json(result_rows(storage, shards, version))
        return 0
    measurer = Measurer(opened, args.base, config_of(args).store)
    dest = args.dest or Path(layout.PAGE if is_remote(args.out) else Path(args.out, layout.PAGE))
    lines = Table()

    def seen(entry: Entry) -> None:
        lines.add(_row(entry.fit, entry.made, UNKNOWN if entry.seconds is None else entry.seconds))

    chosen = _chosen(storage, version, args)
    made = make_page(storage, opened, shards, dest, measurer, chosen, args.evaluation, seen)
    print(lines.text(columns()))
    for fault in made.faults.texts:
        note(f"note: {one_line(fault)}")
    if made.faults.more:
        note(f"note: and {made.faults.more} more")
    print(f"look: {one_line(made.path)}")
    return 0


def _print_json(rows: Iterable[dict[str, Any]]) -> None:
    """Print a list of rows as they come."""
    print("[", end="")
    for k, row in enumerate(rows):
        print(", " * bool(k), json.dumps(row), sep="", end="")
    print("]")


def _chosen(storage: Storage, version: Version, args: argparse.Namespace) -> Chosen:
    """The objects that the options choose; a number is a count only if it stands alone and is no object's uid."""
    if args.worst < 0:
        raise UsageError(f"--worst: {args.worst}: expected a number of objects")
    if not args.objects:
        return Chosen(worst=args.worst, worst_by=args.worst_by)
    if len(args.objects) == 1 and args.objects[0].isdecimal():
        try:
            version.find(storage, args.objects[0])
        except NoObject:
            return Chosen(int(args.objects[0]), args.worst, args.worst_by)
    return Chosen(0, args.worst, args.worst_by, args.objects)
