"""status: shows the progress of a run once, or again and again, from the store alone, with or without a driver."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache, partial
from typing import Any

from gaussianverse.atlas.dataset_format import ATLAS, OK, SPLATS
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.arguments import add_reading, open_dataset
from gaussianverse.pipeline.dataset import layout, run_file
from gaussianverse.pipeline.dataset.finalize import is_finalized
from gaussianverse.pipeline.dataset.in_order import in_order
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.shards import committed_shards, read_commit, stats_rows
from gaussianverse.pipeline.dataset.versions import Version, version_of
from gaussianverse.pipeline.interrupt import QuietInterrupt
from gaussianverse.pipeline.run.bar import FIT_SHARE, Bar, Tally
from gaussianverse.terminal import columns, folded

_EVERY_S = 2.0
_PAUSE = 9.0
"""Least pause after a look, in multiples of its duration: looking takes at most a tenth of the time."""
_TABLES = 8
"""Tables of shards that one look reads; a long run's are read over many looks."""


def status_of(
    storage: Storage, run: Run, commit_of: Callable[[Storage, str, int], dict[str, Any]] = read_commit
) -> dict[str, Any]:
    """Progress of a run: objects and shards by stage, reasons of quarantine, whether it is finalized.

    Reasons come from committed shards; the objects of other shards are counted by their fragments. Of a version
    that was begun these are its new shards; of a finished one all that count, less the rows that no longer do.

    Args:
        storage: store of the output.
        run: the run of the version.
        commit_of: reads a commit record, which never changes.
    """
    version, finalized = version_of(storage, run), is_finalized(storage, run.number)
    own = version.shards if finalized else run.shards
    committed = {pair for pair in committed_shards(storage) if pair[1] in own}
    stages: dict[str, Any] = {}
    reasons: Counter[str] = Counter()
    for stage in run.families:
        shards = sorted(k for family, k in committed if family == stage)
        done = samples = 0
        commits = in_order(storage, partial(commit_of, storage, stage), shards)
        for shard, commit in zip(shards, commits, strict=True):
            lost = version.superseded.samples_in(stage, shard), len(version.superseded.in_shard(shard))
            done, samples = done + commit["objects"] - lost[1], samples + commit["samples"] - lost[0]
            if stage == ATLAS:
                reasons.update(commit["quarantined"])
                if lost[1]:
                    reasons.subtract(_reasons_of_lost(storage, version, shard))
        # not all of the scratch, which has the fragments of committed shards as well until clean-work
        begun = {int(name) for name in storage.folders(f"{layout.WORK}{stage}/") if name.isdecimal()}
        uncommitted = sum(
            layout.parse_fragment(entry.key) is not None
            for shard in sorted(begun.intersection(own) - set(shards))
            for entry in storage.list(layout.fragments(stage, shard))
        )
        stages[stage] = {
            "shards": len(shards),
            "objects": done + uncommitted,
            "samples": samples,
            "uncommitted_fragments": uncommitted,
        }
    return {
        "url": storage.url,
        "version": run.number,
        "objects": stages[ATLAS]["objects"] if finalized else run.n_objects,
        "shards": len(own),
        "config_digest": run.digest,
        "stages": stages,
        "quarantined": {reason: count for reason, count in reasons.most_common() if count},
        "finalized": finalized,
    }


def _reasons_of_lost(storage: Storage, version: Version, shard: int) -> Counter[str]:
    """Reasons of the rows of a shard that were quarantined and no longer count."""
    rows = stats_rows(storage, ATLAS, shard)
    lost = set(version.superseded.in_shard(shard).tolist())
    return Counter(row["reason"] for row in rows if row["index"] in lost and row["status"] != OK)


def status_text(status: dict[str, Any]) -> str:
    """Format the result of `status_of` for people."""
    of = "" if status["version"] == 1 else f", version {status['version']}"
    new = "" if status["finalized"] or not of else "new "
    lines = [f"{status['url']}{of}: {status['objects']} {new}objects in {status['shards']} {new}shards"]
    for stage, counts in status["stages"].items():
        shards = f"{counts['shards']} of {status['shards']} shards committed"
        lines.append(f"  {stage:7} {counts['objects']:>8} objects done, {shards}")
    lines += [f"  quarantined: {count} {reason}" for reason, count in status["quarantined"].items()]
    lines.append("  finalized" if status["finalized"] else "  not finalized")
    return "\n".join(lines)


def watch(storage: Storage, run: Run, *, as_json: bool) -> int:
    """Draw the progress until the run has ended; returns the exit code.

    Args:
        storage: store of the run.
        run: the run.
        as_json: print each status that differs from the one before as a line of JSON, and draw nothing.

    Raises:
        NotFound: the output is not there any more.
        QuietInterrupt: the command was interrupted.
    """
    try:
        if as_json:
            last: dict[str, Any] = {}
            for found in looks(storage, run):
                if found != last:
                    print(json.dumps(found), flush=True)
                last = found
            return 0
        with closing(Bar(run.n_objects, at_once=True)) as bar:
            seen = Seen(storage, run)
            for found in looks(storage, run):
                bar.show(*seen.after(found))
        print(folded(status_text(found), columns()))
        return 0
    except KeyboardInterrupt as error:
        raise QuietInterrupt from error


def looks(storage: Storage, run: Run) -> Iterator[dict[str, Any]]:
    """Yield the status of a run every few seconds, last when it has ended; commit records are read once."""
    commits = cache(read_commit)
    while True:
        began = time.monotonic()
        run_file.load(storage, run.number)  # an output that is gone would look like one with nothing in it
        found = status_of(storage, run, commits)
        yield found
        if found["finalized"] or _without_dataset(found):
            return
        time.sleep(max(_EVERY_S, _PAUSE * (time.monotonic() - began)))


def _without_dataset(status: dict[str, Any]) -> bool:
    """Whether a run has ended without an object that came through, so that it will not be finalized."""
    atlases = status["stages"][ATLAS]
    return atlases["shards"] == status["shards"] and not atlases["samples"]


class Seen:
    """Progress of a run since the first look."""

    def __init__(self, storage: Storage, run: Run) -> None:
        self._storage, self._shards, self._tally = storage, run.shards, Tally(run.n_objects)
        self._began, self._before = time.monotonic(), -1.0
        self._read: set[int] = set()
        """Shards whose table of fits was read."""

    def after(self, status: dict[str, Any]) -> tuple[float, str]:
        """The position, in objects, and the line of progress, after another look."""
        fits, atlases = (status["stages"][stage]["objects"] for stage in (SPLATS, ATLAS))
        position = atlases + FIT_SHARE * max(0, fits - atlases)
        if self._before < 0:
            self._before = position
        self._tally.done, self._tally.reasons = atlases, Counter(status["quarantined"])
        self._read_tables()
        return position, self._tally.text(position, position - self._before, time.monotonic() - self._began)

    def _read_tables(self) -> None:
        there = committed_shards(self._storage)
        new = [k for k in self._shards if (SPLATS, k) in there and k not in self._read]
        for shard in new[:_TABLES]:
            self._read.add(shard)
            for row in stats_rows(self._storage, SPLATS, shard):
                if row["status"] == OK:
                    self._tally.add(row["n_gaussians"], row.get("atlas_heldout_psnr", -1.0))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse status`."""
    add_reading(parser)
    parser.add_argument("--watch", action="store_true", help="show the progress until the run has ended, or Ctrl-C")


def run(args: argparse.Namespace) -> int:
    """Print the status; returns the exit code."""
    storage, version = open_dataset(args, begun=True)
    opened = version.run
    if args.watch:
        return watch(storage, opened, as_json=args.json)
    found = status_of(storage, opened)
    print(json.dumps(found) if args.json else folded(status_text(found), columns()))
    return 0
