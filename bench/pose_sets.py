"""Sets of silhouettes and cameras for `bench.pose_gate`: objects, rigs, drawing, and what may be right or wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter

from bench.objects import SHARED
from gaussianverse.manifests.errors import RenderError
from gaussianverse.manifests.rendering import presets, rig
from gaussianverse.manifests.rendering.drawing import Renderer
from gaussianverse.manifests.rendering.meshes import Mesh, load_mesh
from gaussianverse.manifests.rendering.parts import Part

Array = NDArray[np.float64]
Bytes = NDArray[np.uint8]
SIZE = 128
FLAT = ("sign", "billboards", "upright sheet", "needle", "ring", "sticks")
"""Made objects that some views see edge-on, or lose."""


class Posed(NamedTuple):
    """Alpha uint8 [V, H, W], OpenCV camera-to-world [V, 4, 4] and intrinsics in pixels [V, 3, 3]."""

    alpha: Bytes
    c2w: Array
    K: Array

    def some(self, index: NDArray[np.intp]) -> Posed:
        return Posed(self.alpha[index], self.c2w[index], self.K[index])


def _box(low: tuple[float, ...], high: tuple[float, ...]) -> tuple[Array, NDArray[np.int64]]:
    points = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return points, np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])


def _grid(points: Array, rows: int, columns: int) -> tuple[Array, NDArray[np.int64]]:
    """Surface of points [rows, columns, 3], closed along both."""
    at = np.arange(rows * columns).reshape(rows, columns)
    right, down = np.roll(at, -1, 1), np.roll(at, -1, 0)
    both = np.roll(right, -1, 0)
    faces = np.concatenate([np.stack([at, right, both], -1), np.stack([at, both, down], -1)])
    return points.reshape(-1, 3), faces.reshape(-1, 3)


def _torus(radius: float, thick: float) -> tuple[Array, NDArray[np.int64]]:
    a, b = np.meshgrid(np.linspace(0, 2 * np.pi, 64, False), np.linspace(0, 2 * np.pi, 12, False), indexing="ij")
    r = radius + thick * np.cos(b)
    return _grid(np.stack([r * np.cos(a), r * np.sin(a), thick * np.sin(b)], -1), 64, 12)


def _sphere(radius: float) -> tuple[Array, NDArray[np.int64]]:
    a, b = np.meshgrid(np.linspace(0, 2 * np.pi, 48, False), np.linspace(1e-3, np.pi - 1e-3, 24), indexing="ij")
    return _grid(radius * np.stack([np.sin(b) * np.cos(a), np.sin(b) * np.sin(a), np.cos(b)], -1), 48, 24)


_STICKS = ((-0.3, 0.1), (0.2, -0.2), (0.1, 0.3))


def made() -> dict[str, Mesh]:
    """Objects that are hard for silhouettes; "sign" and "billboards" are planes without thickness."""
    plane = _box((-0.3, 0.0, -0.1), (0.3, 0.0, 0.3))
    solids = {
        "needle": [_box((-0.45, -0.003, -0.003), (0.45, 0.003, 0.003))],
        "ring": [_torus(0.44, 0.006)],
        "sheet": [_box((-0.45, -0.4, -0.002), (0.45, 0.4, 0.002))],
        "upright sheet": [_box((-0.45, -0.002, -0.3), (0.45, 0.002, 0.3))],
        "sticks": [_box((x, y, -0.4), (x + 0.008, y + 0.008, 0.4)) for x, y in _STICKS],
        "sphere": [_sphere(0.4)],
        "cube": [_box((-0.35, -0.35, -0.35), (0.35, 0.35, 0.35))],
        "sign": [plane, _box((-0.01, -0.01, -0.45), (0.01, 0.01, -0.1))],
        "billboards": [
            _box((-0.4, 0.0, -0.4), (0.4, 0.0, 0.4)), _box((0.0, -0.4, -0.3), (0.0, 0.4, 0.2)),
        ],
    }  # fmt: skip
    return {name: mesh_of(parts) for name, parts in solids.items()}


def mesh_of(parts: list[tuple[Array, NDArray[np.int64]]]) -> Mesh:
    drawn = []
    for points, faces in parts:
        n = len(points)
        blank, white = np.zeros((n, 3), np.float32), np.ones((n, 4), np.float32)
        drawn.append(Part(points.astype(np.float32), blank, white, faces.astype(np.uint32)))
    return Mesh(tuple(drawn), 1.0, np.zeros(3))


def quaternius() -> list[Path]:
    """All meshes of the collection, in one random order."""
    files = sorted((SHARED / "quaternius").rglob("*.gl*"))
    return [files[i] for i in np.random.default_rng(0).permutation(len(files))]


def meshes(files: list[Path]) -> Iterator[tuple[str, Mesh]]:
    """Yield those that the product reads; one with vertices that are NaN, for example, it does not."""
    for file in files:
        try:
            yield file.stem, load_mesh(file)
        except RenderError:
            continue


def random_rig(seed: int, count: int = 40) -> Array:
    """Poses at distances 0.8 to 1.7 that look past the middle, with the camera rolled; objects are partly cropped."""
    rng, poses = np.random.default_rng(seed), np.tile(np.eye(4), (count, 1, 1))
    for pose in poses:
        eye = rng.normal(size=3)
        eye *= rng.uniform(0.8, 1.7) / np.linalg.norm(eye)
        forward = rng.uniform(-0.12, 0.12, 3) - eye
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, rng.normal(size=3))
        right /= np.linalg.norm(right)
        pose[:3, :3], pose[:3, 3] = np.stack([right, np.cross(forward, right), forward], 1), eye
    return poses


def gobjaverse_rig(seed: int) -> Array:
    """Cameras of one of GObjaverse's own objects: 51 poses."""
    folders = sorted(p for p in (SHARED / "gobjaverse_cameras").iterdir() if p.is_dir())
    poses = []
    for file in sorted(folders[seed % len(folders)].rglob("*.json")):
        camera = json.loads(file.read_text())
        pose = np.eye(4)
        pose[:3] = np.stack([camera[name] for name in ("x", "y", "z", "origin")], 1)
        poses.append(pose)
    return np.stack(poses)


def intrinsics(count: int, size: int = SIZE) -> Array:
    return np.repeat(rig.intrinsics(presets.GOBJAVERSE_FOV, size, size)[None], count, 0)


def cameras(c2w: Array, size: int = SIZE) -> list[rig.Camera]:
    """Cameras of GObjaverse's field of view at poses [V, 4, 4]."""
    return [rig.Camera(pose, K, size, size) for pose, K in zip(c2w, intrinsics(len(c2w), size), strict=True)]


def poses_of(mesh: Mesh) -> Array:
    """The product's 40 poses of a mesh [40, 4, 4]."""
    plan = presets.plan("gobjaverse", presets.Options(), "")
    return np.stack([camera.c2w for camera in presets.build("gobjaverse", plan, 0, mesh.points).cameras])


def draw(mesh: Mesh, rigs: dict[str, Array], size: int = SIZE) -> dict[str, Posed]:
    """Silhouettes of a mesh through the product's renderer, for each rig."""
    with Renderer(mesh, shading="albedo") as renderer:
        return {
            name: Posed(
                np.stack([renderer.color(c)[..., 3] for c in cameras(c2w, size)]), c2w, intrinsics(len(c2w), size)
            )
            for name, c2w in rigs.items()
        }


def rigs_of(mesh: Mesh, seed: int) -> dict[str, Array]:
    rigs = {"A": poses_of(mesh), "B": random_rig(seed)}
    if (SHARED / "gobjaverse_cameras").is_dir():
        rigs["G"] = gobjaverse_rig(seed)
    return rigs


def jittered(posed: Posed, degrees: float, rng: np.random.Generator) -> Posed:
    """Poses turned about the origin and about themselves by about `degrees`."""
    c2w = posed.c2w.copy()
    for pose in c2w:
        for left in (True, False):
            x, y, z = np.radians(degrees) * rng.normal(size=3)
            turn = np.eye(4)
            turn[:3, :3] += np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
            turn[:3, :3] = np.linalg.svd(turn[:3, :3])[0] @ np.linalg.svd(turn[:3, :3])[2]
            pose[:] = turn @ pose if left else pose @ turn
    return posed._replace(c2w=c2w)


def cropped(posed: Posed, share: float) -> Posed:
    H = posed.alpha.shape[1]
    edge = round(H * (1 - share) / 2)
    K = posed.K.copy()
    K[:, :2, 2] -= edge
    return Posed(posed.alpha[:, edge : H - edge, edge : H - edge], posed.c2w, K)


def cut(posed: Posed) -> Posed:
    return posed._replace(alpha=np.where(posed.alpha >= 128, 255, 0).astype(np.uint8))


def grown(posed: Posed, rng: np.random.Generator) -> Posed:
    """Cut, and half of the masks grown or shrunk by a pixel."""
    alpha = cut(posed).alpha > 0
    for v in np.flatnonzero(rng.random(len(alpha)) < 0.5):
        alpha[v] = binary_dilation(alpha[v]) if rng.random() < 0.5 else binary_erosion(alpha[v])
    return posed._replace(alpha=np.where(alpha, 255, 0).astype(np.uint8))


def segmented(posed: Posed, rng: np.random.Generator) -> Posed:
    """Masks like a segmentation's: smoothed, which rounds corners and loses thin parts, cut anywhere near half."""
    alpha = []
    for picture in posed.alpha:
        soft = gaussian_filter(picture / 255.0, rng.uniform(0.5, 1.5))
        alpha.append(np.where(soft > rng.uniform(0.4, 0.6), 255, 0))
    return posed._replace(alpha=np.stack(alpha).astype(np.uint8))


def placed(posed: Posed, size: float, origin: tuple[float, float, float]) -> Posed:
    c2w = posed.c2w.copy()
    c2w[:, :3, 3] = c2w[:, :3, 3] * size + origin
    return posed._replace(c2w=c2w)


def in_a_corner(posed: Posed) -> Posed:
    """The object in the upper left of a larger picture."""
    V, H, W = posed.alpha.shape
    alpha = np.zeros((V, 2 * H, 2 * W), np.uint8)
    alpha[:, :H, :W] = posed.alpha
    return posed._replace(alpha=alpha)


def wide(posed: Posed) -> Posed:
    """Cut to 4:3 where the object is cropped as well; as wide by transparent margins where it is not."""
    alpha, K = posed.alpha, posed.K.copy()
    border = np.concatenate([alpha[:, 0], alpha[:, -1], alpha[:, :, 0], alpha[:, :, -1]], 1)
    if border.any():
        edge = alpha.shape[1] // 8
        K[:, 1, 2] -= edge
        return posed._replace(alpha=np.ascontiguousarray(alpha[:, edge:-edge]), K=K)
    edge = alpha.shape[2] // 6
    K[:, 0, 2] += edge
    return posed._replace(alpha=np.pad(alpha, ((0, 0), (0, 0), (edge, edge))), K=K)
