"""Camera rig of GObjaverse: 40 poses, 38 of them distinct.

Views 0-23 circle the object from above, 24 repeats 0, 25 looks down, 26 looks up, 27-38 circle it near the
horizon, 39 repeats 27. All look at the origin of a z-up world.
"""

import numpy as np
from numpy.typing import NDArray

FOV = 0.6911503  # radians, horizontal and vertical
MIN_RADIUS = 1.5
_MARGIN = 0.95  # share of half the picture's side that the object may fill

_UPPER = np.radians(25.0)
_LOWER = np.radians(-3.0)


def directions() -> NDArray[np.float64]:
    """Unit vectors [40, 3] from the origin to the cameras."""
    upper = [(np.radians(15.0 * i), _UPPER) for i in range(25)]
    poles = [(0.0, np.pi / 2), (0.0, -np.pi / 2)]
    lower = [(np.radians(30.0 * i), _LOWER) for i in range(13)]
    upper[24], lower[12] = upper[0], lower[0]  # exactly equal, without rounding errors
    azimuth, elevation = np.array(upper + poles + lower).T
    return np.stack(
        [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)], axis=1
    )


def rotations() -> NDArray[np.float64]:
    """OpenCV camera-to-world rotations [40, 3, 3]; columns are right, down, forward.

    At the two poles, where "up" is undefined, right = -x as in GObjaverse.
    """
    forward = -directions()
    right = np.cross(forward, [0.0, 0.0, 1.0])
    length = np.linalg.norm(right, axis=1, keepdims=True)
    right = np.where(length > 1e-6, right / np.maximum(length, 1e-6), [-1.0, 0.0, 0.0])
    return np.stack([right, np.cross(forward, right), forward], axis=2)


def fitting_radius(points: NDArray[np.floating]) -> float:
    """Smallest camera distance, at least 1.5, at which every view has all `points` [N, 3] in frame."""
    reach = _MARGIN * np.tan(FOV / 2)
    radius = MIN_RADIUS
    for rotation in rotations():
        right, down, forward = (points @ rotation).T  # depth of a point is radius + forward
        radius = max(radius, float((np.maximum(abs(right), abs(down)) / reach - forward).max()))
    return radius


def camera_to_world(radius: float) -> NDArray[np.float64]:
    """OpenCV camera-to-world poses [40, 4, 4] at distance `radius`."""
    c2w = np.tile(np.eye(4), (40, 1, 1))
    c2w[:, :3, :3] = rotations()
    c2w[:, :3, 3] = radius * directions()
    return c2w
