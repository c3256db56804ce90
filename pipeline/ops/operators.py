"""The verbs that look after an output that is there: read it, check it, finish it, clean up behind it."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from gaussianverse.pipeline.config import RunConfig, load


def add_verbs(verbs: Any) -> None:
    """Add these verbs to the command line."""
    for name, verb, text in (
        ("status", _status, "how far a run is, from the store alone"),
        ("verify", _verify, "read every byte back and name every fault"),
        ("finalize", _finalize, "write the files that make committed shards a dataset"),
        ("report", _report, "the table of a run's objects"),
        ("top-errors", _top_errors, "why objects were given up, the most frequent cause first"),
        ("clean-work", _clean_work, "delete scratch that committed shards no longer need"),
        ("inspect", _inspect, "all that is known of one object"),
    ):
        sub = verbs.add_parser(name, help=text)
        if name == "inspect":
            sub.add_argument("uid")
        add_output(sub)
        if name in ("verify", "report"):
            add_shards(sub)
        if name == "verify":
            sub.add_argument("--sample", type=int, help="only this many objects, and every file's size")
            sub.add_argument("--seed", type=int, default=0, help="which objects --sample draws")
        if name == "top-errors":
            sub.add_argument("--most", type=int, default=20, help="causes to show")
        if name == "clean-work":
            sub.add_argument("--dry-run", action="store_true", help="count, delete nothing")
        add_store(sub)
        if name != "finalize":
            sub.add_argument("--json", action="store_true", help="print JSON")
        sub.set_defaults(verb=verb)


def add_output(sub: argparse.ArgumentParser) -> None:
    """`--out`."""
    sub.add_argument("--out", required=True, help="folder or s3://bucket/prefix")


def add_shards(sub: argparse.ArgumentParser) -> None:
    """`--shards`."""
    sub.add_argument(
        "--shard", "--shards", dest="shards", default="", help="such as 3 or 0-9,12; default: all"
    )


def add_store(sub: argparse.ArgumentParser) -> None:
    """`--set`, without a profile."""
    sub.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override the profile"
    )


def config_of(args: argparse.Namespace) -> RunConfig:
    """The configuration that a command line asks for. Raises ConfigError."""
    overrides = list(args.set)
    if getattr(args, "workers", None) is not None:
        overrides.append(f"ray.workers={args.workers}")
    if getattr(args, "plane_indices", None):
        overrides.append(f"atlas.plane_indices={json.dumps(str(Path(args.plane_indices).absolute()))}")
    if getattr(args, "ray_address", None):
        overrides.append(f"ray.address={json.dumps(args.ray_address)}")
    return load(getattr(args, "profile", "cpu"), overrides)


def opened(args: argparse.Namespace) -> tuple[Any, Any]:
    """The output that a command line names, and its run."""
    from gaussianverse.pipeline.dataset import run_file
    from gaussianverse.pipeline.store.storage import open_storage

    storage = open_storage(args.out, config_of(args).store)
    return storage, run_file.load(storage)


def _status(args: argparse.Namespace) -> int:
    from gaussianverse.pipeline.ops import status

    found = status.status_of(*opened(args))
    print(json.dumps(found) if args.json else status.status_text(found))
    return 0


def _verify(args: argparse.Namespace) -> int:
    from gaussianverse.atlas.reader.views import read_cameras
    from gaussianverse.pipeline.dataset import contents, layout, statistics
    from gaussianverse.pipeline.errors import UsageError
    from gaussianverse.pipeline.ops.spotcheck import spot_check
    from gaussianverse.pipeline.ops.verify import Checks, verify
    from gaussianverse.pipeline.policy import ordered_shards

    storage, run = opened(args)
    config = run.atlas
    checks = Checks(
        main={
            layout.SPLATS: contents.check_splats,
            layout.ATLAS: lambda data: contents.check_atlas(data, config),
            layout.VIEWS: read_cameras,
        },
        moments=lambda mains: statistics.moments_of(mains, run),
        merge=lambda moments: statistics.merged_statistics(moments, run),
        views=lambda members: contents.check_views(members, run),
    )
    if args.sample is not None:
        if args.sample < 1 or args.shards:
            raise UsageError("--sample: expected at least 1, and no --shards beside it")
        found = spot_check(storage, run, checks, args.sample, seed=args.seed)
    else:
        chosen = ordered_shards(args.shards, run.n_shards) if args.shards else None
        found = verify(storage, run, checks, shards=chosen)
    faults = []
    for line in found:
        faults.append(line)
        if not args.json:
            print(f"fault: {line}")
    if args.json:
        print(json.dumps({"url": storage.url, "faults": faults}))
    elif not faults:
        what = "every byte, sample and hash" if args.sample is None else "all that was looked at"
        print(f"{storage.url}: {what} is right")
    return 1 if faults else 0


def _finalize(args: argparse.Namespace) -> int:
    from gaussianverse.pipeline.dataset import statistics
    from gaussianverse.pipeline.dataset.finalize import finalize
    from gaussianverse.pipeline.store.publish import prove_conditional_puts

    storage, run = opened(args)
    prove_conditional_puts(storage)
    finalize(storage, run, lambda moments: statistics.merged_statistics(moments, run))
    print(f"The dataset is complete and lies in {storage.url}")
    return 0


def _report(args: argparse.Namespace) -> int:
    from gaussianverse.pipeline.ops import report
    from gaussianverse.pipeline.policy import ordered_shards
    from gaussianverse.pipeline.run.driver import committed_shards

    storage, run = opened(args)
    there = committed_shards(storage)
    chosen = ordered_shards(args.shards, run.n_shards) if args.shards else list(range(run.n_shards))
    rows = report.result_rows(storage, [k for k in chosen if all((s, k) in there for s in run.families)])
    print(json.dumps(rows) if args.json else report.table(rows))
    return 0


def _inspect(args: argparse.Namespace) -> int:
    from gaussianverse.pipeline.ops import status

    found = status.inspect(*opened(args), args.uid)
    print(json.dumps(found, indent=None if args.json else 1))
    return 0


def _top_errors(args: argparse.Namespace) -> int:
    from gaussianverse.pipeline.ops import top_errors

    storage, _ = opened(args)
    found = top_errors.top_errors(storage)
    if args.json:
        print(json.dumps([dataclasses.asdict(cause) for cause in found[: args.most]]))
    else:
        print(top_errors.errors_text(found, args.most))
    return 0


def _clean_work(args: argparse.Namespace) -> int:
    from gaussianverse.pipeline.ops.clean_work import clean_work

    storage, _ = opened(args)
    done = clean_work(storage, dry_run=args.dry_run)
    if args.json:
        print(json.dumps(dataclasses.asdict(done)))
    else:
        print(f"{'would delete' if args.dry_run else 'deleted'} {done.objects} files, {done.nbytes} bytes")
    return 0
