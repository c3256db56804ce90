"""Layout `gobjaverse`: `VVVVV/VVVVV.json`, `.png` and `_nd.exr`, which fits, DiffSplat and GSV3D's trainers read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gaussianverse.manifests.rendering.layouts.encode import exr, png
from gaussianverse.manifests.rendering.layouts.layout import Facts, Layout, by_uid
from gaussianverse.manifests.rendering.layouts.posed import Subject, Views
from gaussianverse.manifests.rendering.rig import Camera, fields_of_view

_PLACE = ("bbox", "scale", "offset")


def camera_json(camera: Camera, place: Facts) -> str:
    """Format a camera; `place` says where the mesh went (bbox, scale, offset)."""
    right, down, forward, origin = camera.c2w[:3].T.tolist()
    x_fov, y_fov = fields_of_view(camera)
    entries: Facts = {"x": right, "y": down, "z": forward, "origin": origin, "x_fov": x_fov, "y_fov": y_fov}
    return json.dumps({**entries, **place}) + "\n"


def nd_exr(normal: NDArray[np.float32], depth: NDArray[np.float32]) -> bytes:
    """Encode normals as (R, G, B) = (-n_x, n_z, -n_y), so that n = (-R, -B, G), and depth as A."""
    x, y, z = np.moveaxis(normal, -1, 0)
    return exr({"R": -x, "G": z, "B": -y, "A": depth})


def _write(folder: Path, subject: Subject, views: Views) -> Facts:
    place = {name: subject.facts[name] for name in _PLACE if name in subject.facts}
    geometry = False
    for k, view in enumerate(views):
        name = f"{k:05d}"
        (folder / name).mkdir()
        (folder / name / f"{name}.json").write_text(camera_json(view.camera, place))
        (folder / name / f"{name}.png").write_bytes(png(view.image))
        if view.depth is not None and view.normal is not None:
            (folder / name / f"{name}_nd.exr").write_bytes(nd_exr(view.normal, view.depth))
            geometry = True
    return {
        "layout_cameras": "camera-to-world, OpenCV axes (columns x right, y down, z forward, origin), z-up world",
        "depth": "channel A of NNNNN_nd.exr, along the optical axis, 0 where empty" if geometry else "none",
        "normals": "of the world, (-R, -B, G) of NNNNN_nd.exr" if geometry else "none",
        "background": "transparent, straight alpha",
    }


GOBJAVERSE = Layout(
    name="gobjaverse",
    reader="a reader of GObjaverse",
    place=by_uid,
    write=_write,
    found="*/rig.json",
    maps=True,
    format="gobjaverse",
)
