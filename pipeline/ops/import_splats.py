"""import: builds shards of objects that are already Gaussians."""

from __future__ import annotations

import argparse
from pathlib import Path

from gaussianverse.manifests import gobjaverse, runform
from gaussianverse.pipeline.arguments import add_building, add_output, add_shards, building_config_of
from gaussianverse.pipeline.ops import report, splat_folders
from gaussianverse.pipeline.run import job
from gaussianverse.pipeline.run.manifest import Manifest

_OF_SPLATS = ("sh", "min_sh_psnr", "activated")
"""Options that are fields of `SplatsConfig`; one that is not given leaves the profile's value, or that of --set."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse import`."""
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help="holds .ply files, folders with point_cloud.ply [and gs2sphere.npy], or tars of such; at any depth",
    )
    parser.add_argument(
        "--swap-red-blue", action="store_true", help="swap the channels, as published GaussianVerse objects need"
    )
    parser.add_argument(
        "--captions", nargs="+", default=[], metavar="FILE", help="JSON {path or uid: caption}, or CSV"
    )
    parser.add_argument("--caption-source", default="", help="who wrote the captions")
    parser.add_argument("--license", default="", help="licence of all objects; default: what shards say")
    parser.add_argument(
        "--sh", choices=("bake", "dc"), help="view-dependent colour: bake what is seen (default), or drop it"
    )
    parser.add_argument(
        "--min-sh-psnr", type=float, metavar="DB", help="quarantine objects that look less like before"
    )
    parser.add_argument(
        "--activated",
        choices=("auto", "yes", "no"),
        help="whether opacities and scales are activated already; auto (default): refuse those that seem to be",
    )
    add_output(parser)
    add_shards(parser)
    add_building(parser)


def run(args: argparse.Namespace) -> int:
    """Import a folder; returns the exit code."""
    given = {name: getattr(args, name) for name in _OF_SPLATS}
    args.set = [*args.set, *(f"splats.{name}={value}" for name, value in given.items() if value is not None)]
    config = building_config_of(args)
    captions: dict[str, str] = {}
    for file in args.captions:
        captions = gobjaverse.read_captions(Path(file)) | captions
    folder = Path(args.folder).absolute()
    found = splat_folders.build(
        folder,
        captions=captions,
        caption_source=args.caption_source,
        license=args.license,
        swap_red_blue=args.swap_red_blue,
    )
    if found.left_out and not args.json:
        print(found.left_out_text())
    manifest = Manifest(runform.encode(found.rows, shard_size=config.run.shard_size), str(folder))
    storage, opened, base = job.plan(args.out, manifest, config)
    outcome = job.build(storage, opened, config, base, shards=args.shards, events=args.events)
    return report.print_outcome(outcome, args, left_out=found.left_out)
