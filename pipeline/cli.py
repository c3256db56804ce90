"""`gaussianverse <verb>`: reads the command line, calls the room, turns faults into one line and an exit code.

Exit codes: 0 done, 1 error, 2 usage, 3 breaker, 4 watchdog, 5 conflict.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import manifests.cli
import manifests.render
from atlas.errors import AtlasError
from fitter.config import ConfigError
from manifests.errors import ManifestError, RenderError
from manifests.schema import Row
from pipeline.config import RunConfig, load
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.job import Outcome

Verb = Callable[[argparse.Namespace], int]


def main(argv: list[str] | None = None) -> int:
    """Run one verb; the exit code."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    verb: Verb = args.verb
    try:
        return verb(args)
    except ManifestError as fault:
        for line in fault.faults[:20]:
            print(f"error: {line}", file=sys.stderr)
        if len(fault.faults) > 20:
            print(f"error: ... and {len(fault.faults) - 20} more", file=sys.stderr)
        return 1
    except PipelineError as fault:
        print(f"error: {fault}", file=sys.stderr)
        return fault.exit_code
    except (ConfigError, AtlasError, RenderError) as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gaussianverse", description=__doc__.split("\n")[0] if __doc__ else ""
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    sub = verbs.add_parser("manifest", help="build, check or shard a manifest")
    manifests.cli.add_arguments(sub)
    sub.set_defaults(verb=_manifest)
    sub = verbs.add_parser("render", help="a textured mesh to views")
    manifests.render.add_arguments(sub)
    sub.set_defaults(verb=manifests.render.run)

    for name, verb, text in (
        ("fit-shard", _fit_shard, "fit, make atlases, pack, and finalize once all shards are there"),
        ("build", _fit_shard, "the same for every shard"),
    ):
        sub = verbs.add_parser(name, help=text)
        sub.add_argument("--manifest", required=True, help="JSON Lines or objects.parquet; path or s3://")
        _add_output(sub)
        if name == "fit-shard":
            _add_shards(sub)
        _add_config(sub)
        sub.set_defaults(verb=verb)
    sub = verbs.add_parser("atlas-shard", help="stage 2 alone, from fits that are there")
    _add_output(sub)
    _add_shards(sub)
    _add_config(sub)
    sub.set_defaults(verb=_atlas_shard)

    for name, verb, text in (
        ("status", _status, "how far a run is, from the store alone"),
        ("verify", _verify, "read every byte back and name every fault"),
        ("finalize", _finalize, "write the files that make committed shards a dataset"),
        ("report", _report, "the table of a run's objects"),
        ("inspect", _inspect, "all that is known of one object"),
    ):
        sub = verbs.add_parser(name, help=text)
        if name == "inspect":
            sub.add_argument("uid")
        _add_output(sub)
        if name in ("verify", "report"):
            _add_shards(sub)
        _add_store(sub)
        if name != "finalize":
            sub.add_argument("--json", action="store_true", help="print JSON")
        sub.set_defaults(verb=verb)
    sub = verbs.add_parser("doctor", help="whether this machine and a store can do the work")
    sub.add_argument("--out", default="", help="also test this store")
    _add_config(sub)
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub.set_defaults(verb=_doctor)
    return parser


def _add_output(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--out", required=True, help="folder or s3://bucket/prefix")


def _add_shards(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--shard", "--shards", dest="shards", default="", help="such as 3 or 0-9,12; default: all"
    )


def _add_config(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--profile", default="cpu", help="cpu, fast, paper, test, or a TOML file")
    sub.add_argument("--workers", type=int, help="cores to use on this machine; default: all")
    sub.add_argument("--ray-address", help="a Ray cluster to join; default: Ray on this machine")
    _add_store(sub)


def _add_store(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override the profile"
    )


def _config(args: argparse.Namespace) -> RunConfig:
    overrides = list(args.set)
    if getattr(args, "workers", None) is not None:
        overrides.append(f"ray.workers={args.workers}")
    if getattr(args, "ray_address", None):
        overrides.append(f"ray.address={json.dumps(args.ray_address)}")
    return load(getattr(args, "profile", "cpu"), overrides)


def _manifest(args: argparse.Namespace) -> int:
    def probe(row: Row) -> object:
        from fitter.views import load_views
        from pipeline import inputs
        from pipeline.storage import StoreConfig

        with inputs.local(row.views, StoreConfig()) as path:
            return load_views(path, row.format)

    return manifests.cli.run(args, probe)


def _fit_shard(args: argparse.Namespace) -> int:
    from pipeline import job

    config = _config(args)
    storage, run, base = job.plan(args.out, args.manifest, config)
    return _carried(job.build(storage, run, config, base, shards=getattr(args, "shards", "")))


def _atlas_shard(args: argparse.Namespace) -> int:
    from pipeline import identity, job, layout
    from pipeline.storage import open_storage

    config = _config(args)
    storage = open_storage(args.out, config.store)
    run = identity.load(storage)
    return _carried(job.build(storage, run, config, "", shards=args.shards, stages=(layout.ATLAS,)))


def _carried(outcome: Outcome) -> int:
    from pipeline import report

    if outcome.idle:
        print("Nothing to do: everything that was asked for is there already.")
    if outcome.rows:
        print(report.table(outcome.rows))
    where = outcome.storage.url
    if outcome.finalized:
        print(
            f"\nThe dataset is complete and lies in {where}: shards in atlas/ and splats/, see README.md there."
        )
    else:
        print(f"\nThe shards lie in {where}; the dataset is finalized once all of its shards are there.")
    return 0


def _opened(args: argparse.Namespace) -> tuple[Any, Any]:
    from pipeline import identity
    from pipeline.storage import open_storage

    storage = open_storage(args.out, _config(args).store)
    return storage, identity.load(storage)


def _status(args: argparse.Namespace) -> int:
    from pipeline import status

    found = status.status_of(*_opened(args))
    print(json.dumps(found) if args.json else status.status_text(found))
    return 0


def _verify(args: argparse.Namespace) -> int:
    from pipeline import layout, tasks
    from pipeline.policy import ordered_shards
    from pipeline.verify import Checks, verify

    storage, run = _opened(args)
    config = run.atlas
    checks = Checks(
        main={layout.SPLATS: tasks.check_splats, layout.ATLAS: lambda data: tasks.check_atlas(data, config)},
        moments=lambda mains: tasks.moments_of(mains, run),
        merge=lambda moments: tasks.merged_statistics(moments, run),
    )
    shards = ordered_shards(args.shards, run.n_shards) if args.shards else None
    faults = []
    for line in verify(storage, run, checks, shards=shards):
        faults.append(line)
        if not args.json:
            print(f"fault: {line}")
    if args.json:
        print(json.dumps({"url": storage.url, "faults": faults}))
    elif not faults:
        print(f"{storage.url}: every byte, sample and hash is right")
    return 1 if faults else 0


def _finalize(args: argparse.Namespace) -> int:
    from pipeline import tasks
    from pipeline.finalize import finalize

    storage, run = _opened(args)
    finalize(storage, run, lambda moments: tasks.merged_statistics(moments, run))
    print(f"The dataset is complete and lies in {storage.url}")
    return 0


def _report(args: argparse.Namespace) -> int:
    from pipeline import layout, report
    from pipeline.driver import committed_shards
    from pipeline.policy import ordered_shards

    storage, run = _opened(args)
    there = committed_shards(storage)
    chosen = ordered_shards(args.shards, run.n_shards) if args.shards else list(range(run.n_shards))
    rows = report.result_rows(storage, [k for k in chosen if all((s, k) in there for s in layout.STAGES)])
    print(json.dumps(rows) if args.json else report.table(rows))
    return 0


def _inspect(args: argparse.Namespace) -> int:
    from pipeline import status

    found = status.inspect(*_opened(args), args.uid)
    print(json.dumps(found, indent=None if args.json else 1))
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from pipeline import doctor

    findings = []
    for finding in doctor.examine(_config(args), args.out):
        findings.append(finding)
        if not args.json:
            print(f"{'ok   ' if finding.ok else 'FAULT'} {finding.name}: {finding.text}")
    if args.json:
        print(json.dumps([{"name": f.name, "ok": f.ok, "text": f.text} for f in findings]))
    return 0 if all(f.ok for f in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
