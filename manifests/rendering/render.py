"""Command line of `render`: one mesh, or a list of them, to views.

    gaussianverse render MESH.glb OUT/
    gaussianverse render --list meshes.csv OUT/

Colour does not depend on the view, since the Gaussians have no spherical harmonics: it is base colour under a
fixed soft light.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal, get_args

from gaussianverse.manifests import jsonl
from gaussianverse.manifests.errors import LayoutError, ManifestError, RenderError
from gaussianverse.manifests.rendering import batch, lists, presets
from gaussianverse.manifests.rendering.drawing import Shading
from gaussianverse.manifests.rendering.fresh import render_into
from gaussianverse.manifests.rendering.layouts.layout import Layout
from gaussianverse.manifests.rendering.layouts.names import LAYOUTS, layout_of
from gaussianverse.manifests.rendering.layouts.points import add_points, points_of
from gaussianverse.manifests.rendering.layouts.root import opened
from gaussianverse.manifests.rendering.views import RenderConfig, Rendered, render_mesh
from gaussianverse.manifests.schema import Row, completed, faults_of
from gaussianverse.terminal import note

_OF_ONE = ("uid", "caption", "caption_source", "category", "license", "source_id")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run` to a parser or sub-parser."""
    parser.add_argument("mesh", type=Path, nargs="?", metavar="MESH", help=".glb, .gltf, .obj, .ply or .stl")
    parser.add_argument(
        "out",
        type=Path,
        metavar="OUT",
        help="folder for the views; empty or absent. With --list: of one folder per object",
    )
    parser.add_argument(
        "--list", type=Path, metavar="FILE",
        help="render many meshes: a path a line, or .csv or .jsonl with `mesh` and the fields of a manifest; goes on "
        "where it was stopped",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, metavar="N", help="with --list: processes (default: one per core)")
    parser.add_argument(
        "--preset", default="gobjaverse", metavar="NAME", help=f"camera rig: {', '.join(presets.PRESETS)}"
    )
    parser.add_argument("--fov", type=float, metavar="DEG", help="field of view (default: the preset's)")
    parser.add_argument(
        "--radius", type=_radius, metavar="R|fit",
        help="distance of the cameras; fit: the smallest that keeps the whole object in every frame",
    )  # fmt: skip
    parser.add_argument("--extent", type=float, metavar="LENGTH", help="longest side of the object, 0.9 or 1.0")
    parser.add_argument("--size", type=int, metavar="N", help="pixels a side (default: the preset's, mostly 512)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of what a preset draws per object")
    parser.add_argument(
        "--vary-elevation", action="store_true", help="gobjaverse: upper ring at 5 to 30 degrees, drawn per object"
    )
    parser.add_argument(
        "--condition", choices=("first", "last"), default="first", help="orbit21: the view that a model is given"
    )
    shading = parser.add_mutually_exclusive_group()
    shading.add_argument("--shading", choices=get_args(Shading), default="diffuse", help="default: diffuse")
    shading.add_argument(
        "--albedo", dest="shading", action="store_const", const="albedo", help="the same as --shading albedo"
    )
    parser.add_argument(
        "--layout", metavar="NAME",
        help=f"write what another project's loader reads, OUT is its root: {', '.join(LAYOUTS)} (see views-to)",
    )  # fmt: skip
    add_points(parser)
    parser.add_argument("--no-geometry", action="store_true", help="leave out _nd.exr (normals and depth)")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    row = parser.add_argument_group("manifest row")
    row.add_argument(
        "--manifest", type=Path, metavar="JSONL", help="add to this manifest (default with --list: OUT/objects.jsonl)"
    )
    row.add_argument("--uid", help="default: the name of OUT; with --layout that of MESH")
    row.add_argument("--caption", default="")
    row.add_argument("--caption-source", default="")
    row.add_argument("--category", default="")
    row.add_argument("--license", default="")
    row.add_argument("--source-id", default="", help="origin of the mesh")


def run(args: argparse.Namespace) -> int:
    """Render one mesh or a list and add rows to a manifest; returns the exit code."""
    if (args.mesh is None) == (args.list is None):
        print("error: expected MESH OUT, or --list FILE OUT", file=sys.stderr)
        return 2
    if args.layout is None and (args.points or args.voxels is not None):
        print("error: --points and --voxels are for --layout", file=sys.stderr)
        return 2
    try:
        return _run_one(args) if args.list is None else _run_list(args)
    except ManifestError as error:
        for fault in error.faults:
            print(f"error: {fault}", file=sys.stderr)
    except (RenderError, LayoutError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
    return 1


def _run_one(args: argparse.Namespace) -> int:
    if args.jobs is not None:
        print("error: --jobs is for --list", file=sys.stderr)
        return 2
    if args.layout:
        return _run_layout(args)
    if args.manifest:
        jsonl.extended(args.manifest, _row(args, args.out))  # refuse a row that cannot be added before rendering
    rendered = render_mesh(args.mesh, args.out, config_of(args))
    if args.manifest:
        jsonl.append(args.manifest, _row(args, args.out))
    return _told(args, rendered)


def _told(args: argparse.Namespace, rendered: Rendered) -> int:
    for warning in rendered.warnings:
        print(f"warning: {args.mesh}: {warning}", file=sys.stderr)
    if rendered.left_out:
        note(f"left out: {', '.join(rendered.left_out)}")
    if args.json:
        views = {"views": len(rendered.rig.cameras), "out": str(args.out), "drawn": rendered.drawn}
        print(json.dumps({**views, "warnings": rendered.warnings, "left_out": rendered.left_out}))
        return 0
    there = "" if rendered.drawn else ", which were there"
    print(f"{len(rendered.rig.cameras)} views in {args.out}{there}")
    return 0


def _run_layout(args: argparse.Namespace) -> int:
    layout, points = _layout_of(args), points_of(args)
    uid = args.uid or lists.uid_of(args.mesh)
    row = completed(replace(_row(args, args.out / uid), uid=uid, format=layout.format or "auto"))
    if faults := faults_of(row):
        raise ManifestError(faults)
    if args.manifest:
        jsonl.extended(args.manifest, row)  # refuse a row that cannot be added before rendering
    config = config_of(args)
    config.plan("")  # refuse wrong settings before a folder is made
    with opened(layout, args.out, points) as root:
        rendered = render_into(root, args.mesh, row, config)
    if args.manifest:
        jsonl.append(args.manifest, row)
    return _told(args, rendered)


def _layout_of(args: argparse.Namespace) -> Layout:
    layout = layout_of(args.layout)
    if args.manifest and not layout.format:
        able = ", ".join(one.name for one in LAYOUTS.values() if one.format)
        raise LayoutError(f"--manifest: fits do not read layout {layout.name}; those that they read are {able}")
    return layout


def _run_list(args: argparse.Namespace) -> int:
    useless = [f"--{name.replace('_', '-')}" for name in _OF_ONE if getattr(args, name)]
    if useless:
        print(f"error: {', '.join(useless)}: not allowed with --list; make it a column of the list", file=sys.stderr)
        return 2
    jobs = len(os.sched_getaffinity(0)) if args.jobs is None else args.jobs
    if jobs < 1:
        print(f"error: --jobs is {jobs}, expected at least 1", file=sys.stderr)
        return 2
    listed, config = lists.read(args.list), config_of(args)
    manifest: Path | None = args.manifest or args.out / "objects.jsonl"
    if args.layout:
        layout, points = _layout_of(args), points_of(args)
        manifest = manifest if layout.format else None
        config.plan("")  # refuse wrong settings before a folder is made
        with opened(layout, args.out, points) as root:
            done = batch.render_all(listed, args.out, manifest, config, jobs, root)
    else:
        done = batch.render_all(listed, args.out, manifest, config, jobs)
    if args.json:
        place = {"out": str(args.out), "manifest": manifest and str(manifest)}
        print(json.dumps({**asdict(done), **place}))
        return 1 if done.failed else 0
    where = f"manifest: {manifest}" if manifest else f"root: {args.out}"
    print(f"{done.drawn} drawn, {done.there} there before, {done.failed} failed; {where}")
    return 1 if done.failed else 0


def config_of(args: argparse.Namespace) -> RenderConfig:
    """The configuration that parsed arguments ask for."""
    options = presets.Options(
        fov=args.fov,
        radius=args.radius,
        extent=args.extent,
        size=args.size,
        seed=args.seed,
        vary_elevation=args.vary_elevation,
        condition=args.condition,
    )
    return RenderConfig(args.preset, options, args.shading, not args.no_geometry)


def _radius(text: str) -> float | Literal["fit"]:
    try:
        return "fit" if text == "fit" else float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number, or fit") from error


def _row(args: argparse.Namespace, views: Path) -> Row:
    """The row of an object, with its views as seen from the manifest."""
    folder = args.manifest.resolve().parent if args.manifest else Path.cwd()
    return Row(
        uid=args.uid or args.out.resolve().name,
        views=Path(os.path.relpath(views.resolve(), folder)).as_posix(),
        format="gobjaverse",
        category=args.category,
        license=args.license,
        caption=args.caption,
        caption_source=args.caption_source,
        source_id=args.source_id,
    )
