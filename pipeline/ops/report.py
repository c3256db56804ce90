"""report: prints a table of a run's objects, one line each, with medians, and makes a page to look at."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import OK
from gaussianverse.atlas.store import is_remote
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.escape import one_line
from gaussianverse.pipeline.arguments import add_reading, add_shards, config_of, open_output
from gaussianverse.pipeline.dataset import layout, run_file
from gaussianverse.pipeline.dataset.manifest_rows import find_row
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.shards import Counts, committed_shards, journal_rows, stats_rows
from gaussianverse.pipeline.errors import NoObject, PipelineError, UsageError, message
from gaussianverse.pipeline.ops.page.folder import INDEX
from gaussianverse.pipeline.ops.page.make import Chosen, make_page
from gaussianverse.pipeline.policy import ordered_shards
from gaussianverse.pipeline.run.job import Outcome
from gaussianverse.pipeline.run.measure import Measurer

MAX_LINES = 60
TOO_MANY_QUARANTINED = 6
"""Exit code if more than `--fail-above` of the objects are quarantined."""
MOST_AT_END = 200
"""Objects of an output whose page is made as soon as it is built."""
_UNKNOWN = -1
"""Value in the tables for what was not measured, as for imported objects and columns of later versions."""


def result_rows(storage: Storage, shards: Iterable[int]) -> list[dict[str, Any]]:
    """Rows of the objects of committed shards: columns of both stages' tables, and the seconds of both stages."""
    rows = []
    for shard in shards:
        splats, atlases = (stats_rows(storage, stage, shard) for stage in layout.STAGES)
        journals = [journal_rows(storage, stage, shard) for stage in layout.STAGES]
        for fit, atlas, *spent in zip(splats, atlases, *journals, strict=True):
            rows.append(
                {
                    "uid": fit["uid"],
                    "n_gaussians": fit["n_gaussians"],
                    "atlas_heldout_psnr": fit.get("atlas_heldout_psnr", _UNKNOWN),
                    "psnr": fit["psnr"],
                    "ssim": fit["ssim"],
                    "metrics_on": fit["metrics_on"],
                    "smoothness": atlas["smoothness"],
                    "seconds": sum(max(0.0, float(entry["seconds"])) for entry in spent),
                    "status": atlas["status"],
                    "reason": atlas["reason"],
                    "error_message": atlas["error_message"],
                }
            )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Format the rows for people: quarantined objects with their reason, and a last line of medians."""
    width = max([3, *(len(r["uid"]) for r in rows)])
    good = [r for r in rows if r["status"] == OK]
    heldout = "held-out " if all(r["metrics_on"] == "heldout" for r in good) else ""
    atlas, fit = f"{heldout}PSNR of atlas", "of fit"
    lines = [f"{'uid':{width}}  Gaussians  {atlas:>22}  {fit:>9}    SSIM  smoothness  seconds"]
    lines += [_line(r, width) for r in rows[:MAX_LINES]]
    if len(rows) > MAX_LINES:
        lines.append(f"... and {len(rows) - MAX_LINES} more, all in {dataset_format.METADATA} once finalized")
    if len(good) > 1:
        middle = {
            name: statistics.median([r[name] for r in good if r[name] != _UNKNOWN] or [_UNKNOWN])
            for name in ("n_gaussians", "atlas_heldout_psnr", "psnr", "ssim", "smoothness", "seconds")
        }
        lines.append(
            _line({**middle, "uid": "median", "status": OK, "n_gaussians": int(middle["n_gaussians"])}, width)
        )
    return "\n".join(lines)


def _line(r: dict[str, Any], width: int) -> str:
    if r["status"] != OK:
        return f"{r['uid']:{width}}  quarantined: {r['reason']}: {one_line(r['error_message'][:200])}"
    forms = (("atlas_heldout_psnr", ".2f"), ("psnr", ".2f"), ("ssim", ".4f"))
    atlas, fit, ssim = ("-" if r[name] == _UNKNOWN else f"{r[name]:{form}}" for name, form in forms)
    return (
        f"{r['uid']:{width}}  {r['n_gaussians']:>9}  {atlas:>19} dB  {fit:>6} dB  {ssim:>6}"
        f"  {r['smoothness']:>10.3f}  {r['seconds']:>7.1f}"
    )


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
    if outcome.idle:
        print("Nothing to do: the requested shards are committed already.")
    if rows := result_rows(outcome.storage, outcome.complete[:MAX_LINES]):
        print(table(rows))
    if outcome.finalized:
        print(f"\nThe dataset is complete: {url} (shards in atlas/ and splats/, described in README.md)")
    else:
        print(f"\nShards are committed: {url} (the dataset is finalized once all of its shards are)")
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
    opened = run_file.load(storage)
    if is_remote(storage.url) or opened.n_objects > MOST_AT_END:
        return None
    dest = Path(storage.url, layout.PAGE)
    if outcome.idle and (dest / INDEX).is_file():
        return dest / INDEX
    measurer = Measurer(opened, base, config_of(args).store)
    return make_page(storage, opened, _whole_shards(storage, opened), dest, measurer).path


def _whole_shards(storage: Storage, opened: Run, shards: str = "") -> list[int]:
    """Shards that are committed in every family, of those that `shards` names; "" = all."""
    committed = committed_shards(storage)
    return [k for k in ordered_shards(shards, opened.shards) if all((s, k) in committed for s in opened.families)]


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
        help=f"and the N of the lowest PSNR; default: {Chosen.worst}",
    )  # fmt: skip
    parser.add_argument(
        "--base", default=".", metavar="DIR", help="folder or s3:// prefix that addresses of views in the manifest "
        "are relative to, which is that of the manifest; default: the working directory",
    )  # fmt: skip
    parser.add_argument(
        "--evaluation", type=Path, metavar="FILE", help="evaluation.json of `evaluate`, whose tables the page shows"
    )


def run(args: argparse.Namespace) -> int:
    """Print the table of committed shards, and make the page; returns the exit code. With --json only the rows."""
    storage, opened = open_output(args)
    shards = _whole_shards(storage, opened, args.shards)
    if args.json:
        print(json.dumps(result_rows(storage, shards)))
        return 0
    print(table(list(_readable(storage, shards))))
    measurer = Measurer(opened, args.base, config_of(args).store)
    dest = args.dest or Path(layout.PAGE if is_remote(args.out) else Path(args.out, layout.PAGE))
    made = make_page(storage, opened, shards, dest, measurer, _chosen(storage, opened, args), args.evaluation)
    for fault in made.faults[:MAX_LINES]:
        print(f"note: {one_line(fault)}", file=sys.stderr)
    print(f"look: {made.path}")
    return 0


def _readable(storage: Storage, shards: Iterable[int]) -> Iterator[dict[str, Any]]:
    """The rows of the shards that can be read; the page's notes name the others."""
    for shard in shards:
        with suppress(PipelineError, NotFound):
            yield from result_rows(storage, [shard])


def _chosen(storage: Storage, opened: Run, args: argparse.Namespace) -> Chosen:
    """The objects that the options choose; a number is a count only if it stands alone and is no object's uid."""
    if args.worst < 0:
        raise UsageError(f"--worst: {args.worst}: expected a number of objects")
    if not args.objects:
        return Chosen(worst=args.worst)
    if len(args.objects) == 1 and args.objects[0].isdecimal():
        try:
            find_row(storage, opened, args.objects[0])
        except NoObject:
            return Chosen(first=int(args.objects[0]), worst=args.worst)
    return Chosen(first=0, worst=args.worst, uids=args.objects)
