"""Layouts of images with a pose beside each: `lgm`, `gen3d` and `srn`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gaussianverse.manifests.rendering.layouts.encode import numbers, on_white, png, webp
from gaussianverse.manifests.rendering.layouts.layout import Facts, Layout, Wish, by_uid, folder_of
from gaussianverse.manifests.rendering.layouts.posed import GL, Subject, Views

_CV = "camera-to-world, OpenCV axes (x right, y down, z forward), z-up world"
_TRANSPARENT = "transparent, straight alpha"
_CV_FILES = f"{_CV}; 16 numbers in rows"

GEN3D_VIEWS = 132
_GEN3D_IMAGES = "ImagedreamLGM_objects_132view"  # its loader takes the middle of this name for the data set's
_GEN3D_CAMERAS = "cam_poses_objnew"
_GEN3D_SIDE = 1024  # pixels that its K files mean
_CONTEXT = range(100, GEN3D_VIEWS)  # views that it reads as WebP too
_SRN_FOV = 51.98948897809546


def _write_lgm(folder: Path, subject: Subject, views: Views) -> Facts:
    for kind in ("rgb", "pose"):
        (folder / kind).mkdir()
    for k, view in enumerate(views):
        (folder / "rgb" / f"{k:03d}.png").write_bytes(png(view.image))
        (folder / "pose" / f"{k:03d}.txt").write_text(numbers(view.c2w) + "\n")
    return {"layout_cameras": f"pose/NNN.txt: {_CV_FILES}", "depth": "none", "background": _TRANSPARENT}


def _write_gen3d(folder: Path, subject: Subject, views: Views) -> Facts:
    for k, view in enumerate(views):
        name = f"rgb_{GEN3D_VIEWS}_{k}"
        (folder / f"{name}.png").write_bytes(png(view.image))
        if k in _CONTEXT:
            (folder / f"{name}.webp").write_bytes(webp(view.image))
    return {
        "layout_cameras": f"{_GEN3D_CAMERAS}/{GEN3D_VIEWS}_V_RT.txt: camera-to-world, OpenGL axes, z-up world",
        "depth": "none",
        "background": _TRANSPARENT,
    }


def _gen3d_place(subject: Subject) -> str:
    return f"{_GEN3D_IMAGES}/{subject.uid}"


def _gen3d_cameras(root: Path, found: Sequence[Facts]) -> Mapping[str, bytes]:
    """The cameras that all objects share."""
    if not found:
        return {}
    files = {}
    for k, camera in enumerate(found[0]["cameras"]):
        scale = np.array([_GEN3D_SIDE / camera["width"], _GEN3D_SIDE / camera["height"], 1.0])
        K, c2w = scale[:, None] * np.array(camera["K"]), np.array(camera["c2w"]) @ GL
        name = f"{_GEN3D_CAMERAS}/{GEN3D_VIEWS}_{k}"
        files[f"{name}_K.txt"] = "".join(f"{numbers(row)}\n" for row in K).encode()
        files[f"{name}_RT.txt"] = f"{numbers(c2w)}\n".encode()
    return files


def _write_srn(folder: Path, subject: Subject, views: Views) -> Facts:
    for kind in ("rgb", "pose"):
        (folder / kind).mkdir()
    for k, view in enumerate(views):
        (folder / "rgb" / f"{k:06d}.png").write_bytes(png(on_white(view.image)))
        (folder / "pose" / f"{k:06d}.txt").write_text(numbers(view.c2w) + "\n")
    view = views[0]
    focal, cx, cy = numbers(np.array([view.K[0, 0], view.K[0, 2], view.K[1, 2]])).split()
    lines = [f"{focal} {cx} {cy} 0.", "0. 0. 0.", "1.", f"{view.height} {view.width}"]
    (folder / "intrinsics.txt").write_text("\n".join(lines) + "\n")
    return {"layout_cameras": f"pose/NNNNNN.txt: {_CV_FILES}", "depth": "none", "background": "white"}


def _srn_place(subject: Subject) -> str:
    category = folder_of(subject.category)
    return f"srn_{category}/{category}_{subject.split or 'train'}/{subject.uid}"


def uids(root: Path, found: Sequence[Facts]) -> Mapping[str, bytes]:
    """List of the objects, one a line."""
    return {"objects.txt": "".join(f"{facts['uid']}\n" for facts in found).encode()}


LGM = Layout(
    name="lgm",
    reader="LGM",
    place=by_uid,
    write=_write_lgm,
    found="*/rig.json",
    index=uids,
    fov=Wish(49.1, "option fovy"),
    views=Wish(100, "list of view numbers"),
    square=True,
)
GEN3D = Layout(
    name="gen3d",
    reader="Gen-3Diffusion",
    place=_gen3d_place,
    write=_write_gen3d,
    found=f"{_GEN3D_IMAGES}/*/rig.json",
    index=_gen3d_cameras,
    fov=Wish(49.1, "option fovy"),
    views=Wish(GEN3D_VIEWS),
    exact=True,
    square=True,
    shared=True,
)
SRN = Layout(
    name="srn",
    reader="Splatter Image",
    place=_srn_place,
    write=_write_srn,
    found="srn_*/*/*/rig.json",
    fov=Wish(_SRN_FOV),
    square=True,
)
