"""Layouts with OpenGL world-to-camera matrices: `zero123` and `instantmesh`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gaussianverse.manifests.errors import LayoutError
from gaussianverse.manifests.rendering.layouts.encode import json_text, normals_as_colors, npy, npz, png
from gaussianverse.manifests.rendering.layouts.layout import Facts, Layout, Wish, by_uid
from gaussianverse.manifests.rendering.layouts.posed import Floats, PosedView, Subject, Views

_GL = "world-to-camera [3, 4], OpenGL axes (x right, y up, z back), z-up world"
_INSTANTMESH = "rendering_random_32views"
FARTHEST = 6.0
"""Depth that InstantMesh reads from a pixel of 255."""


def _w2c(view: PosedView) -> Floats:
    return np.linalg.inv(view.opengl)[:3].astype(np.float64, copy=False)


def _write_zero123(folder: Path, subject: Subject, views: Views) -> Facts:
    for k, view in enumerate(views):
        (folder / f"{k:03d}.png").write_bytes(png(view.image))
        (folder / f"{k:03d}.npy").write_bytes(npy(_w2c(view)))
    return {"layout_cameras": f"NNN.npy: {_GL}", "depth": "none", "background": "transparent, straight alpha"}


def _zero123_index(root: Path, found: Sequence[Facts]) -> Mapping[str, bytes]:
    return {"valid_paths.json": json_text([facts["uid"] for facts in found])}


def _write_instantmesh(folder: Path, subject: Subject, views: Views) -> Facts:
    for k, view in enumerate(views):
        normal, depth = view.geometry
        farthest = float(depth.max())
        if farthest > FARTHEST:
            raise LayoutError(
                f"instantmesh: view {view.name} has a depth of {farthest:.3g}, and its pictures of depth end at "
                f"{FARTHEST:g}; render with a smaller --radius"
            )
        alpha = view.image[..., 3:]
        colors = np.where((depth > 0)[..., None] & (alpha > 0), normals_as_colors(normal), np.uint8(0))
        (folder / f"{k:03d}.png").write_bytes(png(view.image))
        (folder / f"{k:03d}_normal.png").write_bytes(png(np.concatenate([colors, alpha], axis=-1)))
        (folder / f"{k:03d}_depth.png").write_bytes(png(np.rint(depth / FARTHEST * 255).astype(np.uint8)))
    (folder / "cameras.npz").write_bytes(npz(cam_poses=np.stack([_w2c(view) for view in views])))
    return {
        "layout_cameras": f"cameras.npz, cam_poses: {_GL}",
        "depth": f"NNN_depth.png, 8 bits, value / 255 * {FARTHEST:g} along the optical axis, 0 where empty",
        "normals": "of the world, NNN_normal.png, colour / 255 * 2 - 1",
        "background": "transparent, straight alpha",
    }


def _instantmesh_place(subject: Subject) -> str:
    return f"{_INSTANTMESH}/{subject.uid}"


def _instantmesh_index(root: Path, found: Sequence[Facts]) -> Mapping[str, bytes]:
    return {"valid_paths.json": json_text({"good_objs": [facts["uid"] for facts in found]})}


ZERO123 = Layout(
    name="zero123",
    reader="Zero123",
    place=by_uid,
    write=_write_zero123,
    found="*/rig.json",
    index=_zero123_index,
    views=Wish(12, "option total_view"),
)
INSTANTMESH = Layout(
    name="instantmesh",
    reader="InstantMesh",
    place=_instantmesh_place,
    write=_write_instantmesh,
    found=f"{_INSTANTMESH}/*/rig.json",
    index=_instantmesh_index,
    depth=True,
    normals=True,
    fov=Wish(50.0, "option fov"),
    views=Wish(32, "option total_view_n"),
    square=True,
)
