"""Views of a textured ball from any camera, ray-cast in NumPy within milliseconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gaussianverse.fitter.views import Views

RADIUS = 0.4


def look_at(eye: NDArray[np.float64]) -> NDArray[np.float64]:
    """OpenCV camera-to-world matrix at `eye` looking at the origin, z up."""
    forward = -eye / np.linalg.norm(eye)
    up = np.array([0.0, 0, 1]) if abs(forward[2]) < 0.99 else np.array([0.0, 1, 0])
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    pose[:3, 3] = eye
    return pose


def ball_color(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smooth stripes, [P, 3] in (0, 1)."""
    return 0.5 + 0.4 * np.sin(7 * points + np.array([0.0, 1.0, 2.0]))


def ball_views(count: int = 12, size: int = 48, distance: float = 1.6) -> Views:
    """`count` views of the ball, on a spiral around it; alpha is supersampled 3 x 3."""
    fine = 3 * size
    focal = 0.5 * size / np.tan(0.5 * 0.6911503)
    K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    images, poses = [], []
    for i in range(count):
        z = -0.6 + 1.3 * (i + 0.5) / count
        angle, r = 2.399963 * i, np.sqrt(1 - z * z)
        pose = look_at(distance * np.array([r * np.cos(angle), r * np.sin(angle), z]))
        u = (np.arange(fine) + 0.5) / 3
        x, y = np.meshgrid(u, u)
        rays = np.stack([(x - K[0, 2]) / focal, (y - K[1, 2]) / focal, np.ones_like(x)], -1)
        rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True) @ pose[:3, :3].T
        eye = pose[:3, 3]
        b = rays @ eye
        discriminant = b * b - (eye @ eye - RADIUS**2)
        hit = discriminant > 0
        depth = -b - np.sqrt(np.maximum(discriminant, 0))
        rgba = np.zeros((fine, fine, 4))
        rgba[hit, :3] = ball_color((eye + depth[..., None] * rays)[hit])
        rgba[hit, 3] = 1
        rgba = rgba.reshape(size, 3, size, 3, 4).mean((1, 3))
        rgba[..., :3] /= np.maximum(rgba[..., 3:], 1e-9)
        images.append(np.round(255 * rgba).astype(np.uint8))
        poses.append(pose)
    return Views(
        np.stack(images), np.stack(poses), np.repeat(K[None], count, 0), tuple(f"{i:05d}" for i in range(count))
    )


def write_views(views: Views, folder: Path) -> Path:
    """Write views to a folder with transforms.json."""
    folder.mkdir(parents=True)
    frames = []
    for name, image, c2w in zip(views.names, views.images, views.c2w, strict=True):
        Image.fromarray(image).save(folder / f"{name}.png")
        # OpenGL cameras look along -z with y up
        frames.append({"file_path": f"{name}.png", "transform_matrix": (c2w * (1, -1, -1, 1)).tolist()})
    fov = 2 * float(np.arctan(views.width / 2 / views.Ks[0, 0, 0]))
    (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": fov, "frames": frames}))
    return folder


def ball_geometry(views: Views, radius: float = RADIUS) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Depth along the optical axis [V, H, W] and normals in the world [V, H, W, 3] of the ball, NaN beside it."""
    y, x = np.mgrid[: views.height, : views.width] + 0.5
    depths, normals = [], []
    for K, pose in zip(views.Ks, views.c2w, strict=True):
        rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], -1) @ pose[:3, :3].T
        eye = pose[:3, 3]
        a, b = (rays**2).sum(-1), rays @ eye
        discriminant = b * b - a * (eye @ eye - radius**2)
        z = np.where(discriminant > 0, (-b - np.sqrt(np.maximum(discriminant, 0))) / a, np.nan)
        depths.append(z)
        normals.append((eye + z[..., None] * rays) / radius)
    return np.array(depths, np.float32), np.array(normals, np.float32)
