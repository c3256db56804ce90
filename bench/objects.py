"""Inputs of benchmarks: an analytic object with exact images, and real scenes where they are available."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gaussianverse.fitter.views import Views, load_views

Array = NDArray[np.float64]

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
MIC = SHARED / "nerf_synthetic_mic_800"
SAMPLE = Path(__file__).resolve().parents[1] / "manifests" / "sample"


def _distance(p: Array) -> Array:
    """Signed distance [..] at p [.., 3] of a torus, a ball, a plinth and a rod with rough surfaces."""
    x, y, z = p[..., 0], p[..., 1], p[..., 2]
    torus = np.sqrt((np.hypot(x, y) - 0.62) ** 2 + (z + 0.25) ** 2) - 0.2
    ball = np.sqrt(x * x + y * y + (z - 0.25) ** 2) - 0.42
    q = np.abs(p - np.array([0.0, 0.0, -0.5])) - np.array([0.55, 0.55, 0.08])
    plinth = np.linalg.norm(np.maximum(q, 0), axis=-1) + np.minimum(q.max(-1), 0) - 0.02
    rod = np.maximum(np.hypot(x - 0.3, y + 0.1) - 0.09, np.abs(z - 0.6) - 0.3)
    solid = np.minimum(np.minimum(torus, ball), np.minimum(plinth, rod))
    return np.asarray(solid + 0.012 * np.sin(18 * x) * np.sin(18 * y) * np.sin(18 * z))


def _albedo(p: Array) -> Array:
    """Texture of five octaves and a checker, [.., 3] in 0.03..0.97."""
    rng = np.random.default_rng(5)
    color = np.full((*p.shape[:-1], 3), 0.5)
    for octave in range(5):
        for _ in range(4):
            direction = rng.normal(size=3)
            direction /= np.linalg.norm(direction)
            wave = np.sin(3 * 1.9**octave * (p @ direction) + rng.uniform(0, 6))
            color += 0.32 / 1.25**octave * wave[..., None] * rng.uniform(-1, 1, 3)
    checker = np.floor(6 * p).sum(-1) % 2
    return np.clip(0.75 * color + 0.25 * checker[..., None], 0.03, 0.97)


def _image(c2w: Array, K: Array, size: int, supersample: int = 3) -> NDArray[np.uint8]:
    """Render RGBA [size, size, 4] by sphere tracing, shaded by a fixed light."""
    n = size * supersample
    u = (np.arange(n) + 0.5) / supersample
    x, y = np.meshgrid(u, u)
    rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], -1)
    rays = (rays / np.linalg.norm(rays, axis=-1, keepdims=True) @ c2w[:3, :3].T).reshape(-1, 3)
    eye = c2w[:3, 3]
    depth, hit = np.full(len(rays), 1.8), np.zeros(len(rays), bool)
    active = np.arange(len(rays))
    for _ in range(90):
        step = _distance(eye + rays[active] * depth[active, None])
        depth[active] += 0.8 * step
        arrived = step < 1e-3
        hit[active[arrived]] = True
        active = active[~arrived & (depth[active] < 5.5)]
        if not len(active):
            break
    points = eye + rays[hit] * depth[hit, None]
    axes = 1e-3 * np.eye(3)
    normals = np.stack([_distance(points + a) - _distance(points - a) for a in axes], -1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True) + 1e-9
    shade = 0.35 + 0.65 * np.clip(normals @ np.array([0.5, 0.3, 0.8]), 0, 1)
    rgba = np.zeros((len(rays), 4))
    rgba[hit, :3], rgba[hit, 3] = np.clip(_albedo(points) * shade[:, None], 0, 1), 1
    rgba = rgba.reshape(size, supersample, size, supersample, 4).mean((1, 3))
    rgba[..., :3] /= np.maximum(rgba[..., 3:], 1e-9)
    return np.round(255 * rgba).astype(np.uint8)


def spiral(count: int, first: float, span: float, turn: float, distance: float = 3.0) -> Array:
    """OpenCV poses [count, 4, 4] that look at the origin, from `first` to `first + span` of the sphere's height."""
    poses = []
    for i in range(count):
        azimuth, z = 2.399963 * i + turn, first + span * (i + 0.5) / count
        r = math.sqrt(1 - z * z)
        eye = distance * np.array([r * math.cos(azimuth), r * math.sin(azimuth), z])
        forward = -eye / np.linalg.norm(eye)
        right = np.cross(forward, [0.0, 0, 1])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = np.stack([right, np.cross(forward, right), forward], 1), eye
        poses.append(pose)
    return np.stack(poses)


def analytic(size: int = 128) -> tuple[Views, Views]:
    """32 training and 8 test views of the analytic object."""
    focal = 0.5 * size / math.tan(math.radians(21))
    K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])

    def views(poses: Array) -> Views:
        images = np.stack([_image(pose, K, size) for pose in poses])
        return Views(images, poses, np.repeat(K[None], len(poses), 0), tuple(f"{i}" for i in range(len(poses))))

    return views(spiral(32, -0.35, 1.25, 0.0)), views(spiral(8, -0.25, 1.05, 1.1))


def mic(size: int) -> tuple[Views, Views] | None:
    """100 training and 25 test views of NeRF-synthetic's mic at `size` px; None if the data is absent."""
    if not MIC.is_dir():
        return None
    train, test = (load_views(MIC / f"transforms_{split}.json", size=size) for split in ("train", "test"))
    return train, test
