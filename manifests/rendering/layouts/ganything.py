"""Layout `ganything`: GaussianAnything's chunks of 16 views, side by side in one image each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gaussianverse.manifests.errors import LayoutError
from gaussianverse.manifests.rendering.layouts.encode import (
    jpeg,
    json_text,
    normals_as_colors,
    npy,
    npz,
    on_white,
    png,
)
from gaussianverse.manifests.rendering.layouts.layout import Facts, Layout, folder_of
from gaussianverse.manifests.rendering.layouts.points import Points
from gaussianverse.manifests.rendering.layouts.posed import PosedView, Subject, Views

CHUNK = 16
_HALF = CHUNK // 2
_BOX_SIDE = 256  # pixels that its boxes mean
_RINGS = (24, 12)  # views of GObjaverse's upper and lower ring
_LEVEL = np.radians(0.5)  # views of a ring differ less in elevation
_POLE = np.radians(89.0)


def instance(subject: Subject) -> str:
    """Name of an object, category/dictionary/instance; the dictionary is 0, as our objects have none."""
    return f"{folder_of(subject.category)}/0/{subject.uid}"


def _points_path(subject: Subject, name: str) -> str | None:
    return f"pcd/{instance(subject)}/{name}.ply" if name.startswith("fps-") else None


def order(views: Views) -> list[list[int]]:
    """Indices of the views of each chunk.

    Views of GObjaverse's rig are taken as in the published chunks: each half of a chunk has a view from a pole, 4 of
    the upper ring, 105 degrees apart, and 3 of the lower ring, 120 degrees apart; 3 chunks have all 24 of the upper
    ring. Of other rigs every n-th view goes into one of n chunks, so that each half of a chunk sees all sides.
    """
    rings = _rings(views)
    if rings is None:
        n_chunks = len(views) // CHUNK
        places = [*range(0, CHUNK, 2), *range(1, CHUNK, 2)]  # the first half of a chunk is encoded
        return [[n_chunks * k + chunk for k in places] for chunk in range(n_chunks)]
    poles, upper, lower = rings
    halves = [
        [
            poles[half % 2],
            *(upper[7 * (4 * half + k) % len(upper)] for k in range(4)),
            *(lower[(half + 4 * k) % len(lower)] for k in range(3)),
        ]
        for half in range(6)
    ]
    return [halves[k] + halves[k + 1] for k in range(0, 6, 2)]


def _rings(views: Views) -> tuple[list[int], list[int], list[int]] | None:
    """Top and bottom view, upper and lower ring by azimuth, if the views are GObjaverse's; repeats are left out."""
    poses = np.stack([view.c2w for view in views])
    first = [k for k in range(len(views)) if not (np.abs(poses[:k] - poses[k]).reshape(k, 16).max(1) < 1e-6).any()]
    elevations = {k: views[k].elevation for k in first}
    poles = [[k for k in first if sign * elevations[k] > _POLE] for sign in (1, -1)]
    sides = sorted((k for k in first if abs(elevations[k]) <= _POLE), key=lambda k: -elevations[k])
    if [len(pole) for pole in poles] != [1, 1] or len(sides) != sum(_RINGS):
        return None
    rings = [sides[: _RINGS[0]], sides[_RINGS[0] :]]
    if any(np.ptp([elevations[k] for k in ring]) > _LEVEL for ring in rings):
        return None
    upper, lower = (sorted(ring, key=lambda k: views[k].azimuth) for ring in rings)
    return [pole[0] for pole in poles], upper, lower


def _write(folder: Path, subject: Subject, views: Views) -> Facts:
    chunks = order(views)
    if not chunks:
        raise LayoutError(f"ganything: {len(views)} views, and a chunk has {CHUNK}; render more")
    for number, chosen in enumerate(chunks, start=1):
        chunk = folder / str(number)
        chunk.mkdir()
        _write_chunk(chunk, [views[k] for k in chosen], subject)
    return {
        "layout_cameras": "c.npy: camera-to-world, OpenCV axes (x right, y down, z forward), z up; K / height",
        "depth": "depth.npz, along the optical axis, 0 where empty",
        "normals": "of the world, (-R, -B, G) of normal.png, colour / 127.5 - 1",
        "background": "white",
        "instance": instance(subject),
        "chunks": chunks,
    }


def _write_chunk(folder: Path, views: list[PosedView], subject: Subject) -> None:
    depths, normals = [], []
    for view in views:
        normal, depth = view.geometry
        depths.append(depth)
        x, y, z = np.moveaxis(normal, -1, 0)
        normals.append(normals_as_colors(np.stack([-x, z, -y], axis=-1)))
    (folder / "raw_img.jpg").write_bytes(jpeg(np.hstack([on_white(view.image) for view in views])))
    (folder / "alpha.jpg").write_bytes(jpeg(np.hstack([view.image[..., 3] for view in views])))
    (folder / "normal.png").write_bytes(png(np.hstack(normals)))
    (folder / "depth.npz").write_bytes(npz(depth=np.stack(depths)))
    (folder / "c.npy").write_bytes(npy(np.stack([_camera(view) for view in views])))
    (folder / "bbox.npy").write_bytes(npy(np.stack([_box(view) for view in views])))
    (folder / "caption.txt").write_bytes((subject.captions[0] if subject.captions else "").encode())
    (folder / "ins.txt").write_text(instance(subject))


def _camera(view: PosedView) -> NDArray[np.float32]:
    """Pose and intrinsics, float32 [25]; all of K is divided by the height, its last 1 too."""
    return np.concatenate([view.c2w.ravel(), (view.K / view.height).ravel()]).astype(np.float32)


def _box(view: PosedView) -> NDArray[np.uint8]:
    """Top, left, bottom and right of the mask in an image of 256 pixels a side; of the whole image if it is empty."""
    mask = view.image[..., 3] > 0
    if not mask.any():
        return np.array([0, 0, _BOX_SIDE - 1, _BOX_SIDE - 1], np.uint8)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    ends = np.array([rows[0], columns[0], rows[-1], columns[-1]]) * _BOX_SIDE // view.height
    return ends.astype(np.uint8)


def _index(root: Path, found: Sequence[Facts]) -> Mapping[str, bytes]:
    chunks: dict[str, list[str]] = {}
    for facts in found:
        category = facts["instance"].split("/")[0]
        paths = [f"{facts['instance']}/{number}" for number in range(1, len(facts["chunks"]) + 1)]
        chunks.setdefault(category, []).extend(paths)
    return {"dataset.json": json_text(chunks)}


GANYTHING = Layout(
    name="ganything",
    reader="GaussianAnything",
    place=instance,
    write=_write,
    found="*/0/*/rig.json",
    index=_index,
    depth=True,
    normals=True,
    square=True,
    points=(Points("fps", 4096),),
    points_path=_points_path,
)
