"""Views of two spheres beside the origin, ray-cast: depth, normals and silhouettes are known exactly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import OpenEXR
from analytic import look_at
from numpy.typing import NDArray
from PIL import Image

CENTERS = np.array([[0.1, -0.15, 0.05], [-0.2, 0.12, -0.18]])
RADII = np.array([0.22, 0.13])


def vertices(count: int = 4000) -> NDArray[np.float64]:
    """Points on both spheres, evenly spread."""
    k = np.arange(count) + 0.5
    z, angle = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    unit = np.stack([np.sqrt(1 - z * z) * np.cos(angle), np.sqrt(1 - z * z) * np.sin(angle), z], axis=1)
    return np.concatenate([center + radius * unit for center, radius in zip(CENTERS, RADII, strict=True)])


def off_surface(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Distances [N] of points to the surface."""
    away = np.linalg.norm(points[:, None] - CENTERS, axis=-1) - RADII
    nearest: NDArray[np.float64] = np.abs(away).min(axis=1)
    return nearest


def poses(count: int, radius: float = 1.8) -> NDArray[np.float64]:
    """OpenCV camera-to-world matrices on a spiral around the origin."""
    found = []
    for k in range(count):
        z = -0.7 + 1.4 * (k + 0.5) / count
        side, angle = np.sqrt(1 - z * z), 2.4 * k + 0.3
        found.append(look_at(radius * np.array([side * np.cos(angle), side * np.sin(angle), z])))
    return np.stack(found)


def cast(
    pose: NDArray[np.float64], focal: float, size: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Mask [n, n], planar depth [n, n] and world normals [n, n, 3] at the centres of n = `size` pixels a side."""
    u, v = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    rays = np.stack([(u - size / 2) / focal, (v - size / 2) / focal, np.ones_like(u)], -1) @ pose[:3, :3].T
    eye = pose[:3, 3]
    depth, normal = np.full((size, size), np.inf), np.zeros((size, size, 3))
    for center, radius in zip(CENTERS, RADII, strict=True):
        a, b = (rays * rays).sum(-1), rays @ (eye - center)
        discriminant = b * b - a * ((eye - center) @ (eye - center) - radius**2)
        z = (-b - np.sqrt(np.maximum(discriminant, 0))) / a
        nearer = (discriminant > 0) & (z < depth)
        depth[nearer] = z[nearer]
        normal[nearer] = ((eye + z[..., None] * rays - center) / radius)[nearer]
    mask = np.isfinite(depth)
    return mask, np.where(mask, depth, 0), normal


def write_views(folder: Path, c2w: NDArray[np.float64], fov: float, size: int = 96, *, geometry: bool = True) -> Path:
    """Write views in GObjaverse's layout; colours are the normals'. `fov` is in degrees."""
    focal, coarse = 0.5 * size / np.tan(np.radians(fov) / 2), 4
    for k, pose in enumerate(c2w):
        _, depth, normal = cast(pose, focal, size)
        cover, _, fine = cast(pose, coarse * focal, coarse * size)
        alpha = cover.reshape(size, coarse, size, coarse).mean((1, 3))
        color = fine.reshape(size, coarse, size, coarse, 3).sum((1, 3)) / np.maximum(
            coarse**2 * alpha[..., None], 1e-9
        )
        rgb = np.where(alpha[..., None] > 0, 127.5 * (1 + np.clip(color, -1, 1)), 0)
        stem = folder / f"{k:05d}" / f"{k:05d}"
        stem.parent.mkdir(parents=True)
        Image.fromarray(np.rint(np.dstack([rgb, 255 * alpha])).astype(np.uint8)).save(f"{stem}.png")
        right, down, forward, origin = pose[:3].T.tolist()
        camera = {"x": right, "y": down, "z": forward, "origin": origin}
        Path(f"{stem}.json").write_text(json.dumps({**camera, "x_fov": np.radians(fov), "y_fov": np.radians(fov)}))
        if geometry:
            x, y, z = np.moveaxis(normal.astype(np.float32), -1, 0)
            channels = {"R": -x, "G": z, "B": -y, "A": depth.astype(np.float32)}
            header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
            OpenEXR.File(header, {name: np.ascontiguousarray(one) for name, one in channels.items()}).write(
                f"{stem}_nd.exr"
            )
    return folder
