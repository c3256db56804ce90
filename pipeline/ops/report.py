"""report: prints a table of a run's objects, one line each, with medians."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable
from typing import Any

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import OK
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.arguments import add_reading, add_shards, open_output
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.shards import committed_shards, journal_rows, stats_rows
from gaussianverse.pipeline.policy import ordered_shards
from gaussianverse.pipeline.run.job import Outcome

MAX_LINES = 60
_UNKNOWN = -1
"""Value in the tables for what was not measured, as for imported objects."""


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
    psnr = "held-out PSNR" if all(r["metrics_on"] == "heldout" for r in good) else "PSNR"
    lines = [f"{'uid':{width}}  Gaussians  {psnr:>13}    SSIM  smoothness  seconds"]
    lines += [_line(r, width) for r in rows[:MAX_LINES]]
    if len(rows) > MAX_LINES:
        lines.append(f"... and {len(rows) - MAX_LINES} more, all in {dataset_format.METADATA} once finalized")
    if len(good) > 1:
        middle = {
            name: statistics.median([r[name] for r in good if r[name] != _UNKNOWN] or [_UNKNOWN])
            for name in ("n_gaussians", "psnr", "ssim", "smoothness", "seconds")
        }
        lines.append(
            _line({**middle, "uid": "median", "status": OK, "n_gaussians": int(middle["n_gaussians"])}, width)
        )
    return "\n".join(lines)


def _line(r: dict[str, Any], width: int) -> str:
    if r["status"] != OK:
        return f"{r['uid']:{width}}  quarantined: {r['reason']}: {r['error_message'][:200]}"
    psnr, ssim = ("-" if r[n] == _UNKNOWN else f"{r[n]:{form}}" for n, form in (("psnr", ".2f"), ("ssim", ".4f")))
    return (
        f"{r['uid']:{width}}  {r['n_gaussians']:>9}  {psnr:>10} dB  {ssim:>6}"
        f"  {r['smoothness']:>10.3f}  {r['seconds']:>7.1f}"
    )


def print_outcome(outcome: Outcome) -> int:
    """Print the table of a call that built shards, and their address; returns the exit code, 0."""
    if outcome.idle:
        print("Nothing to do: the requested shards are committed already.")
    if rows := result_rows(outcome.storage, outcome.complete[:MAX_LINES]):
        print(table(rows))
    url = outcome.storage.url
    if outcome.finalized:
        print(f"\nThe dataset is complete: {url} (shards in atlas/ and splats/, described in README.md)")
    else:
        print(f"\nShards are committed: {url} (the dataset is finalized once all of its shards are)")
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse report`."""
    add_shards(parser)
    add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Print the table of committed shards; returns the exit code."""
    storage, opened = open_output(args)
    committed = committed_shards(storage)
    chosen = ordered_shards(args.shards, opened.n_shards)
    rows = result_rows(storage, [k for k in chosen if all((s, k) in committed for s in opened.families)])
    print(json.dumps(rows) if args.json else table(rows))
    return 0
