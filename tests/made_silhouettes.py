"""Silhouettes of made objects from any camera, ray-cast in NumPy: ellipsoids, and rectangles without thickness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from analytic import look_at
from numpy.typing import NDArray

Array = NDArray[np.float64]
FOV = 0.6911503


@dataclass(frozen=True)
class Ellipsoid:
    center: tuple[float, float, float]
    axes: tuple[float, float, float]

    def hit(self, eye: Array, rays: Array) -> NDArray[np.bool_]:
        """Whether rays [.., 3] from `eye` [3] meet it."""
        o, d = (eye - self.center) / self.axes, rays / self.axes
        b, a, c = d @ o, (d * d).sum(-1), float(o @ o) - 1
        return np.asarray((b * b - a * c > 0) & (b < 0))


@dataclass(frozen=True)
class Rectangle:
    """In the plane y = 0: nothing at all is seen of it from within that plane."""

    center: tuple[float, float]
    half: tuple[float, float]

    def hit(self, eye: Array, rays: Array) -> NDArray[np.bool_]:
        with np.errstate(divide="ignore", invalid="ignore"):
            t = -eye[1] / rays[..., 1]
            x, z = eye[0] + t * rays[..., 0], eye[2] + t * rays[..., 2]
            inside = (abs(x - self.center[0]) < self.half[0]) & (abs(z - self.center[1]) < self.half[1])
        return np.asarray((t > 0) & inside)


Made = tuple[Ellipsoid | Rectangle, ...]

CREATURE: Made = (
    Ellipsoid((0.0, 0.0, 0.0), (0.28, 0.13, 0.12)),
    Ellipsoid((0.27, 0.05, 0.14), (0.1, 0.08, 0.09)),
    Ellipsoid((0.3, 0.12, 0.27), (0.03, 0.04, 0.1)),
    Ellipsoid((0.15, -0.07, -0.2), (0.05, 0.04, 0.17)),
    Ellipsoid((-0.2, 0.09, -0.18), (0.04, 0.05, 0.19)),
    Ellipsoid((-0.34, -0.1, 0.08), (0.13, 0.03, 0.04)),
)
"""Without any symmetry."""
NEEDLE: Made = (Ellipsoid((0.05, 0.0, 0.0), (0.4, 0.012, 0.012)),)
HAIR: Made = (Ellipsoid((0.05, 0.0, 0.0), (0.4, 0.004, 0.004)),)
"""Thinner than a pixel: some views lose its ends, some lose all of it."""
SHEET: Made = (Ellipsoid((0.0, 0.0, 0.0), (0.35, 0.3, 0.008)),)
RING: Made = tuple(
    Ellipsoid((0.35 * np.cos(a), 0.35 * np.sin(a), 0.1 * np.sin(a)), (0.05, 0.05, 0.02))
    for a in np.linspace(0, 2 * np.pi, 24, endpoint=False)
)
SIGN: Made = (Rectangle((0.0, 0.1), (0.3, 0.2)), Ellipsoid((0.0, 0.0, -0.25), (0.02, 0.02, 0.2)))
BALL: Made = (Ellipsoid((0.0, 0.0, 0.0), (0.3, 0.3, 0.3)),)


class Posed(NamedTuple):
    """Alpha uint8 [V, H, W] and its cameras."""

    alpha: NDArray[np.uint8]
    c2w: Array
    K: Array


def spiral(count: int, distance: float = 1.6) -> Array:
    """Poses that look at the origin from all around."""
    poses = []
    for i in range(count):
        z, angle = -0.55 + 1.3 * (i + 0.5) / count, 2.399963 * i
        r = np.sqrt(1 - z * z)
        poses.append(look_at(distance * np.array([r * np.cos(angle), r * np.sin(angle), z])))
    return np.stack(poses)


def ring(count: int, distance: float = 1.6) -> Array:
    """Poses on a ring above the object, then on one at the horizon, some exactly within the planes of the axes."""
    poses = []
    for i in range(count):
        angle, z = 4 * np.pi * i / count, 0.0 if i >= count // 2 else 0.42
        r = np.sqrt(1 - z * z)
        poses.append(look_at(distance * np.array([r * np.cos(angle), r * np.sin(angle), z])))
    return np.stack(poses)


def turned_aside(c2w: Array, most: float = 0.15) -> Array:
    """Poses that each look up to `most` radians past what they looked at."""
    rng, turned = np.random.default_rng(0), c2w.copy()
    for pose in turned:
        x, y = rng.uniform(-most, most, 2)
        right = np.array([[np.cos(x), 0, np.sin(x)], [0, 1, 0], [-np.sin(x), 0, np.cos(x)]])
        down = np.array([[1, 0, 0], [0, np.cos(y), -np.sin(y)], [0, np.sin(y), np.cos(y)]])
        pose[:3, :3] = pose[:3, :3] @ right @ down
    return turned


def draw(made: Made, c2w: Array, width: int = 64, height: int = 64, fine: int = 2) -> Posed:
    """Alpha of every view, supersampled."""
    focal = 0.5 * max(width, height) / np.tan(0.5 * FOV)
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    x, y = np.meshgrid((np.arange(width * fine) + 0.5) / fine, (np.arange(height * fine) + 0.5) / fine)
    camera = np.stack([(x - K[0, 2]) / focal, (y - K[1, 2]) / focal, np.ones_like(x)], -1)
    alpha = []
    for pose in c2w:
        rays = camera @ pose[:3, :3].T
        hit = np.logical_or.reduce([part.hit(pose[:3, 3], rays) for part in made])
        alpha.append(hit.reshape(height, fine, width, fine).mean((1, 3)))
    return Posed(np.round(255 * np.stack(alpha)).astype(np.uint8), c2w.copy(), np.repeat(K[None], len(c2w), 0))


def transposed(c2w: Array) -> Array:
    turned = c2w.copy()
    turned[:, :3, :3] = np.swapaxes(c2w[:, :3, :3], 1, 2)
    return turned


def swapped(K: Array) -> Array:
    """Intrinsics as if width and height were exchanged."""
    other = K.copy()
    other[:, [0, 1], [0, 1]], other[:, [0, 1], [2, 2]] = K[:, [1, 0], [1, 0]], K[:, [1, 0], [2, 2]]
    return other
