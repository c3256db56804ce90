"""Cameras around an object whose own views are not at hand, or that is to be shown like all others."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.fitter.views import Views

FOVY = 30.0
"""Vertical angle of view, in degrees."""
_ELEVATION, _AZIMUTH = math.radians(20.0), math.radians(35.0)
_ROOM = 1.05


def turntable(gaussians: Gaussians, count: int, size: int) -> Views:
    """Cameras that turn about the object's z axis and see all of it; their images are transparent.

    Args:
        gaussians: the object, at least one.
        count: number of cameras; the first is the one of `eye_and_target`.
        size: side of the square images, in pixels.
    """
    eye, target = eye_and_target(gaussians)
    poses = np.stack([_look(target + _turned(eye - target, 2 * math.pi * k / count), target) for k in range(count)])
    focal = size / 2 / math.tan(math.radians(FOVY) / 2)
    K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    images = np.zeros((count, size, size, 4), np.uint8)
    return Views(images, poses, np.tile(K, (count, 1, 1)), tuple(f"{k:02d}" for k in range(count)))


def eye_and_target(gaussians: Gaussians) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Position of the first camera and the point that it looks at, each [3]."""
    means = gaussians.means.astype(np.float64)
    low, high = np.quantile(means, (0.002, 0.998), axis=0)  # a few strays make no object small
    target = (low + high) / 2
    radius = float(np.quantile(np.linalg.norm(means - target, axis=1), 0.998)) or 1.0
    distance = _ROOM * radius / math.sin(math.radians(FOVY) / 2)
    flat = math.cos(_ELEVATION)
    direction = np.array([flat * math.cos(_AZIMUTH), flat * math.sin(_AZIMUTH), math.sin(_ELEVATION)])
    return target + distance * direction, target


def _turned(vector: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ vector


def _look(eye: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Camera to world, OpenCV: x right, y down, z towards the target."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(forward, right), forward, eye
    return pose
