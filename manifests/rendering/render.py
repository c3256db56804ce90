"""Render a mesh to views in GObjaverse's layout.

    gaussianverse render MESH.glb OUT/

Colour does not depend on the view, since the Gaussians have no spherical harmonics: it is base colour under a
fixed soft light.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from gaussianverse.manifests import jsonl
from gaussianverse.manifests.errors import ManifestError, RenderError
from gaussianverse.manifests.rendering import rig
from gaussianverse.manifests.rendering.drawing import Renderer, Shading
from gaussianverse.manifests.rendering.meshes import load_mesh
from gaussianverse.manifests.schema import Row


def render_mesh(
    glb_path: Path, out_dir: Path, *, size: int = 512, shading: Shading = "diffuse", geometry: bool = True
) -> int:
    """Render a GLB file to 40 views in GObjaverse's layout, `VVVVV/VVVVV.{json,png,_nd.exr}`.

    The mesh is turned z-up, centred, and scaled to a longest side of 0.9. The distance of the cameras, at
    least 1.5, keeps the whole mesh in every frame.

    Args:
        glb_path: a mesh that `load_mesh` reads.
        out_dir: a folder that is empty or does not exist.
        size: pixels a side.
        shading: "diffuse", a soft light fixed in the world, or "albedo", base colour alone.
        geometry: whether to write `_nd.exr`, normals and z-depth.

    Returns:
        The number of views.

    Raises:
        RenderError: the mesh cannot be read or drawn, or `out_dir` is not empty.
    """
    if out_dir.exists() and any(out_dir.iterdir()):
        raise RenderError(f"{out_dir}: not empty; choose another folder or remove it")
    mesh = load_mesh(glb_path)
    points = mesh.points
    poses = rig.camera_to_world(rig.fitting_radius(points))
    box = [points.min(0).tolist(), points.max(0).tolist()]
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with (
        Renderer(mesh, size=size, shading=shading) as renderer,
        tempfile.TemporaryDirectory(dir=out_dir.parent, prefix=".render-") as temporary,
    ):
        finished = Path(temporary) / "views"  # moved when complete: readers accept an object with fewer views
        for view, c2w in enumerate(poses):
            folder = finished / f"{view:05d}"
            folder.mkdir(parents=True)
            right, down, forward, origin = c2w[:3].T.tolist()
            camera = {"x": right, "y": down, "z": forward, "origin": origin}
            camera |= {"x_fov": rig.FOV, "y_fov": rig.FOV, "bbox": box}
            camera |= {"scale": mesh.scale, "offset": mesh.offset.tolist()}
            (folder / f"{view:05d}.json").write_text(json.dumps(camera) + "\n")
            _write_png(folder / f"{view:05d}.png", renderer.color(c2w))
            if geometry:
                _write_nd(folder / f"{view:05d}_nd.exr", renderer.geometry(c2w))
        finished.replace(out_dir)
    return len(poses)


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
    parser.add_argument("--size", type=int, default=512, help="pixels a side (default: 512)")
    parser.add_argument("--shading", choices=get_args(Shading), default="diffuse", help="default: diffuse")
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
        views = render_mesh(args.mesh, args.out, size=args.size, shading=args.shading, geometry=not args.no_geometry)
        if args.manifest:
            jsonl.append(args.manifest, _row(args))
    except (RenderError, ManifestError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{views} views in {args.out}")
    return 0


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
