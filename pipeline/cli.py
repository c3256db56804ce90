"""`gaussianverse <verb>`: reads the command line, calls the room, turns faults into one line and an exit code.

Exit codes: 0 done, 1 error, 2 usage, 3 breaker, 4 watchdog, 5 conflict.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gaussianverse.atlas.configuration import ConfigError
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.manifests import cli as manifests_cli
from gaussianverse.manifests.errors import ManifestError, RenderError
from gaussianverse.manifests.rendering import render as manifests_render
from gaussianverse.manifests.schema import Row
from gaussianverse.pipeline.errors import PipelineError, UsageError
from gaussianverse.pipeline.ops import operators

if TYPE_CHECKING:
    from gaussianverse.pipeline.run.job import Outcome

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
    manifests_cli.add_arguments(sub)
    sub.set_defaults(verb=_manifest)
    sub = verbs.add_parser("render", help="a textured mesh to views")
    manifests_render.add_arguments(sub)
    sub.set_defaults(verb=manifests_render.run)

    for name, verb, text in (
        ("fit-shard", _fit_shard, "fit, make atlases, pack, and finalize once all shards are there"),
        ("build", _fit_shard, "the same for every shard"),
    ):
        sub = verbs.add_parser(name, help=text)
        sub.add_argument("--manifest", required=True, help="JSON Lines or objects.parquet; path or s3://")
        operators.add_output(sub)
        if name == "fit-shard":
            operators.add_shards(sub)
        _add_config(sub)
        sub.set_defaults(verb=verb)
    sub = verbs.add_parser("import", help="objects that are Gaussians already to shards, without a GPU")
    sub.add_argument(
        "folder", metavar="FOLDER", help="folders with point_cloud.ply [and gs2sphere.npy], or .ply files"
    )
    operators.add_output(sub)
    sub.add_argument(
        "--swap-red-blue", action="store_true", help="as published GaussianVerse objects need it"
    )
    sub.add_argument(
        "--captions", nargs="+", default=[], metavar="FILE", help="JSON {path or uid: caption}, or CSV"
    )
    sub.add_argument("--caption-source", default="", help="who wrote the captions")
    sub.add_argument("--license", default="", help="of all objects")
    operators.add_shards(sub)
    _add_config(sub)
    sub.set_defaults(verb=_import)
    sub = verbs.add_parser("export", help="finished objects in the forms of others")
    sub.add_argument("uids", nargs="*", metavar="UID", help="which; none = all that came through")
    sub.add_argument("dest", metavar="DEST", help="the folder to write into")
    operators.add_output(sub)
    sub.add_argument("--format", required=True, choices=("ply", "gaussianverse", "gaussiancube"))
    sub.add_argument("--count", type=int, default=0, metavar="N", help="ply: N Gaussians for every object")
    operators.add_store(sub)
    sub.set_defaults(verb=_export)
    sub = verbs.add_parser("plan", help="GPU-hours, days, bytes and requests of a run; runs nothing")
    sub.add_argument("--manifest", required=True, help="JSON Lines or objects.parquet; path or s3://")
    sub.add_argument("--slots", type=int, default=0, help="fits at once; default: the cores of this machine")
    sub.add_argument("--seconds", type=float, help="per fit, where it is known")
    sub.add_argument("--like", default="", help="output of a run to take seconds and bytes from")
    _add_config(sub)
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub.set_defaults(verb=_plan)
    sub = verbs.add_parser("retry-failed", help="try objects that were given up, in a revision below the run")
    sub.add_argument("--manifest", required=True, help="the run's own, for where the views are")
    operators.add_output(sub)
    sub.add_argument("--reasons", default="", help="only these, such as timeout,nan_loss; default: all")
    _add_config(sub)
    sub.set_defaults(verb=_retry_failed)
    sub = verbs.add_parser("atlas-shard", help="stage 2 alone, from fits that are there")
    operators.add_output(sub)
    operators.add_shards(sub)
    _add_config(sub)
    sub.set_defaults(verb=_atlas_shard)

    operators.add_verbs(verbs)
    sub = verbs.add_parser("doctor", help="whether this machine and a store can do the work")
    sub.add_argument("--out", default="", help="also test this store")
    _add_config(sub)
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub.set_defaults(verb=_doctor)
    return parser


def _add_config(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--profile", default="cpu", help="cpu, fast, paper, test, or a TOML file")
    sub.add_argument(
        "--plane-indices", metavar="FILE", help="such as the published sphere2plane.npy; default: ours"
    )
    sub.add_argument("--workers", type=int, help="cores to use on this machine; default: all")
    sub.add_argument("--ray-address", help="a Ray cluster to join; default: Ray on this machine")
    sub.add_argument("--events", type=Path, metavar="FILE", help="append JSON lines of what happens")
    operators.add_store(sub)


def _manifest(args: argparse.Namespace) -> int:
    def probe(row: Row) -> object:
        from gaussianverse.fitter.views import load_views
        from gaussianverse.pipeline.run import inputs
        from gaussianverse.pipeline.store.storage import StoreConfig

        with inputs.local(row.views, StoreConfig()) as path:
            return load_views(path, row.format)

    return manifests_cli.run(args, probe)


def _fit_shard(args: argparse.Namespace) -> int:
    from gaussianverse.pipeline.run import job

    config = operators.config_of(args)
    storage, run, base = job.plan(args.out, args.manifest, config)
    return _carried(
        job.build(storage, run, config, base, shards=getattr(args, "shards", ""), events=args.events)
    )


def _import(args: argparse.Namespace) -> int:
    from gaussianverse.manifests import gobjaverse, runform, splats
    from gaussianverse.pipeline.run import job
    from gaussianverse.pipeline.run.manifest import Manifest

    config = operators.config_of(args)
    captions: dict[str, str] = {}
    for file in args.captions:
        captions = gobjaverse.read_captions(Path(file)) | captions
    folder = Path(args.folder).absolute()
    rows = splats.build(
        folder,
        captions=captions,
        caption_source=args.caption_source,
        license=args.license,
        swap_red_blue=args.swap_red_blue,
    )
    given = Manifest(runform.encode(rows, shard_size=config.run.shard_size), str(folder))
    storage, run, base = job.plan(args.out, given, config)
    return _carried(job.build(storage, run, config, base, shards=args.shards, events=args.events))


def _export(args: argparse.Namespace) -> int:
    from gaussianverse.pipeline.ops.export import export

    storage, run = operators.opened(args)
    for path in export(storage, run, Path(args.dest), args.format, args.uids, count=args.count):
        print(path)
    return 0


def _atlas_shard(args: argparse.Namespace) -> int:
    from gaussianverse.pipeline.dataset import layout, run_file
    from gaussianverse.pipeline.run import job
    from gaussianverse.pipeline.store.storage import open_storage

    config = operators.config_of(args)
    storage = open_storage(args.out, config.store)
    run = run_file.load(storage)
    stages = (layout.ATLAS,)
    return _carried(
        job.build(storage, run, config, "", shards=args.shards, stages=stages, events=args.events)
    )


def _carried(outcome: Outcome) -> int:
    from gaussianverse.pipeline.ops import report

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


def _plan(args: argparse.Namespace) -> int:

    from gaussianverse.fitter.threads import available_cores
    from gaussianverse.pipeline.dataset import run_file
    from gaussianverse.pipeline.ops import plan
    from gaussianverse.pipeline.run.manifest import read_manifest
    from gaussianverse.pipeline.store.storage import open_storage

    config = operators.config_of(args)
    manifest = read_manifest(args.manifest, config.run.shard_size, config.store)
    measured = None
    if args.like:
        storage = open_storage(args.like, config.store)
        measured = plan.measure(storage, run_file.load(storage).n_shards)
    slots = args.slots or config.ray.workers or available_cores()
    made = plan.plan_of(manifest.data, config, slots=slots, seconds=args.seconds, measured=measured)
    print(json.dumps(plan.plan_json(made)) if args.json else plan.plan_text(made))
    return 0


def _retry_failed(args: argparse.Namespace) -> int:
    from gaussianverse.pipeline.dataset import run_file
    from gaussianverse.pipeline.dataset.schemas import REASONS
    from gaussianverse.pipeline.node import machine
    from gaussianverse.pipeline.ops.retry_failed import open_revision
    from gaussianverse.pipeline.run import job
    from gaussianverse.pipeline.run.manifest import read_manifest
    from gaussianverse.pipeline.store.storage import open_storage

    config = operators.config_of(args)
    reasons = frozenset(filter(None, args.reasons.split(",")))
    if unknown := sorted(reasons - set(REASONS)):
        raise UsageError(f"--reasons {', '.join(unknown)}: expected some of {', '.join(REASONS)}")
    storage = open_storage(args.out, config.store)
    run = run_file.load(storage)
    manifest = read_manifest(args.manifest, run.settings.shard_size, config.store)
    if not config.ray.address:
        machine.check_machine(config.fit)
    revision = open_revision(storage, run, manifest, config, reasons)
    if revision is None:
        print(
            "Nothing to do: no object of this run is given up" + (" for these reasons." if reasons else ".")
        )
        return 0
    print(f"Revision {revision.number}: {revision.run.n_objects} objects")
    return _carried(job.build(revision.storage, revision.run, config, manifest.base, events=args.events))


def _doctor(args: argparse.Namespace) -> int:
    from gaussianverse.pipeline.node import doctor

    findings = []
    for finding in doctor.examine(operators.config_of(args), args.out):
        findings.append(finding)
        if not args.json:
            print(f"{'ok   ' if finding.ok else 'FAULT'} {finding.name}: {finding.text}")
    if args.json:
        print(json.dumps([{"name": f.name, "ok": f.ok, "text": f.text} for f in findings]))
    return 0 if all(f.ok for f in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
