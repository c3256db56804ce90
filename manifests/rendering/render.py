"""Render a mesh to views in GObjaverse's layout.

    gaussianverse render MESH.glb OUT/

Colour does not depend on the view, since the Gaussians have no spherical harmonics: it is base colour under a
fixed soft light.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gaussianverse import foreign
from gaussianverse.manifests import jsonl
from gaussianverse.manifests.errors import ManifestError, RenderError
from gaussianverse.manifests.rendering import presets
from gaussianverse.manifests.rendering.drawing import Renderer, Shading
from gaussianverse.manifests.rendering.meshes import load_mesh
from gaussianverse.manifests.rendering.rig import FILE, Rig, dumps, fields_of_view
from gaussianverse.manifests.schema import Row


@dataclass(frozen=True)
class RenderConfig:
    """How meshes are rendered.

    Attributes:
        preset: name of the camera rig, one of `presets.PRESETS`.
        options: choices within the preset.
        shading: "diffuse", a soft light fixed in the world, or "albedo", base colour alone.
        geometry: whether to write `_nd.exr`, normals and z-depth.
    """

    preset: str = "gobjaverse"
    options: presets.Options = field(default_factory=presets.Options)
    shading: Shading = "diffuse"
    geometry: bool = True


@dataclass(frozen=True)
class Rendered:
    """A finished render: its rig, and a warning where the rig crops the object."""

    rig: Rig
    warning: str | None


_DEFAULT = RenderConfig()


def render_mesh(mesh_path: Path, out_dir: Path, config: RenderConfig = _DEFAULT) -> Rendered:
    """Render a mesh to the views of a rig, `VVVVV/VVVVV.{json,png,_nd.exr}` as in GObjaverse, and `rig.json`.

    The mesh is turned z-up, centred, and scaled to a longest side of 0.9 or what its preset says.

    Args:
        mesh_path: a mesh that `load_mesh` reads.
        out_dir: a folder that is empty or does not exist.
        config: rig, size and shading.

    Raises:
        RenderError: the mesh cannot be read or drawn, a setting is out of range, or `out_dir` is not empty.
    """
    if out_dir.exists() and any(out_dir.iterdir()):
        raise RenderError(f"{out_dir}: not empty; choose another folder or remove it")
    digest = mesh_digest(mesh_path)
    plan = presets.plan(config.preset, config.options, digest)
    mesh = load_mesh(mesh_path, extent=plan.extent, measure=plan.measure)
    points = mesh.points
    rig = presets.build(config.preset, plan, config.options.seed, points)
    box = [points.min(0).tolist(), points.max(0).tolist()]
    where = {"bbox": box, "scale": mesh.scale, "offset": mesh.offset.tolist()}
    facts = {
        "units": f"{plan.measure} of the object = {plan.extent:g}",
        "depth": "z" if config.geometry else "none",
        "normals": "world" if config.geometry else "none",
        "background": "transparent, straight alpha",
        "shading": config.shading,
        "mesh_sha256": digest,
    }
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with (
        Renderer(mesh, shading=config.shading) as renderer,
        tempfile.TemporaryDirectory(dir=out_dir.parent, prefix=".render-") as temporary,
    ):
        finished = Path(temporary) / "views"  # moved when complete: readers accept an object with fewer views
        for view, camera in enumerate(rig.cameras):
            folder = finished / f"{view:05d}"
            folder.mkdir(parents=True)
            right, down, forward, origin = camera.c2w[:3].T.tolist()
            x_fov, y_fov = fields_of_view(camera)
            entries = {"x": right, "y": down, "z": forward, "origin": origin, "x_fov": x_fov, "y_fov": y_fov, **where}
            (folder / f"{view:05d}.json").write_text(json.dumps(entries) + "\n")
            _write_png(folder / f"{view:05d}.png", renderer.color(camera))
            if config.geometry:
                _write_nd(folder / f"{view:05d}_nd.exr", renderer.geometry(camera))
        (finished / FILE).write_text(dumps(rig, {**facts, **where}))
        finished.replace(out_dir)
    return Rendered(rig, presets.crop_warning(rig, plan, points))


def mesh_digest(path: Path) -> str:
    """SHA-256 of a mesh file; draws of presets and `rig.json` name the mesh by it.

    Raises:
        RenderError: the file does not exist.
    """
    if not path.is_file():
        raise RenderError(f"{path}: no such file")
    return hashlib.sha256(foreign.read_bytes(path)).hexdigest()


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    from PIL import Image

    Image.fromarray(image).save(path, optimize=True)


def _write_nd(path: Path, geometry: NDArray[np.float32]) -> None:
    """Write normals as (R, G, B) = (-n_x, n_z, -n_y), so that n = (-R, -B, G), and z-depth as A."""
    import OpenEXR

    x, y, z, depth = np.moveaxis(geometry, -1, 0)
    channels = {"R": -x, "G": z, "B": -y, "A": depth}
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    contiguous = {name: np.ascontiguousarray(channel) for name, channel in channels.items()}
    OpenEXR.File(header, contiguous).write(str(path))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run` to a parser or sub-parser."""
    parser.add_argument("mesh", type=Path, metavar="MESH", help="a .glb or .gltf file")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the views; empty or absent")
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
    parser.add_argument("--no-geometry", action="store_true", help="leave out _nd.exr (normals and depth)")
    row = parser.add_argument_group("manifest row")
    row.add_argument("--manifest", type=Path, metavar="JSONL", help="add the object to this manifest")
    row.add_argument("--uid", help="default: the name of OUT")
    row.add_argument("--caption", default="")
    row.add_argument("--caption-source", default="")
    row.add_argument("--category", default="")
    row.add_argument("--license", default="")
    row.add_argument("--source-id", default="", help="origin of the mesh")


def run(args: argparse.Namespace) -> int:
    """Render one mesh and add its row to a manifest if one is given; returns the exit code."""
    try:
        if args.manifest:
            jsonl.extended(args.manifest, _row(args))  # refuse a row that cannot be added before rendering
        rendered = render_mesh(args.mesh, args.out, config_of(args))
        if args.manifest:
            jsonl.append(args.manifest, _row(args))
    except (RenderError, ManifestError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if rendered.warning:
        print(f"warning: {args.mesh}: {rendered.warning}", file=sys.stderr)
    print(f"{len(rendered.rig.cameras)} views in {args.out}")
    return 0


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
    return "fit" if text == "fit" else float(text)


def _row(args: argparse.Namespace) -> Row:
    return Row(
        uid=args.uid or args.out.resolve().name,
        views=Path(os.path.relpath(args.out.resolve(), args.manifest.resolve().parent)).as_posix(),
        format="gobjaverse",
        category=args.category,
        license=args.license,
        caption=args.caption,
        caption_source=args.caption_source,
        source_id=args.source_id,
    )
