"""Camera rigs as data: cameras with intrinsics, and `rig.json`, which says what the images beside it mean."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaussianverse import foreign
from gaussianverse.manifests.errors import RenderError

FILE = "rig.json"
CONVENTION = "opencv camera-to-world, z up"  # x right, y down, z forward
MARGIN = 0.95  # share of half the picture's side that a fitted object may fill


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera.

    Attributes:
        c2w: OpenCV camera-to-world [4, 4], float64, in a z-up world.
        K: intrinsics in pixels [3, 3], float64; the centre of the first pixel is at (0.5, 0.5).
        width: pixels.
        height: pixels.
    """

    c2w: NDArray[np.float64]
    K: NDArray[np.float64]
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class Rig:
    """Cameras around one object, and how they were chosen.

    Attributes:
        preset: name of the preset, or any other name.
        version: of the preset; it changes when the same settings give other cameras.
        seed: of what the preset draws.
        cameras: one for each view, in the order of the views.
        inputs: indices of the views that a model is given; the first one is the condition image.
    """

    preset: str
    version: int
    seed: int
    cameras: tuple[Camera, ...]
    inputs: tuple[int, ...] = ()


def intrinsics(fov: float, width: int, height: int) -> NDArray[np.float64]:
    """Intrinsics [3, 3] of a horizontal field of view in radians: square pixels, centred."""
    focal = 0.5 * width / np.tan(fov / 2)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def fields_of_view(camera: Camera) -> tuple[float, float]:
    """Horizontal and vertical field of view in radians, for a principal point at the centre."""
    x, y = (2 * np.arctan(0.5 * n / f) for n, f in ((camera.width, camera.K[0, 0]), (camera.height, camera.K[1, 1])))
    return round(float(x), 12), round(float(y), 12)  # as it was given, without the error of tan and arctan


def directions(azimuth: NDArray[np.float64], elevation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors [V, 3] from the origin, of angles [V] in radians."""
    return np.stack(
        [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)], axis=1
    )


def rotations(toward: NDArray[np.float64]) -> NDArray[np.float64]:
    """OpenCV camera-to-world rotations [V, 3, 3] of cameras that look at the origin, upright.

    At the poles, where "up" is undefined, right = -x as in GObjaverse.

    Args:
        toward: unit vectors [V, 3] from the origin to the cameras.
    """
    forward = -toward
    right = np.cross(forward, [0.0, 0.0, 1.0])
    length = np.linalg.norm(right, axis=1, keepdims=True)
    right = np.where(length > 1e-6, right / np.maximum(length, 1e-6), [-1.0, 0.0, 0.0])
    return np.stack([right, np.cross(forward, right), forward], axis=2)


def poses(toward: NDArray[np.float64], radius: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """OpenCV camera-to-world poses [V, 4, 4] at distance `radius`, which look at the origin."""
    c2w = np.tile(np.eye(4), (len(toward), 1, 1))
    c2w[:, :3, :3] = rotations(toward)
    c2w[:, :3, 3] = np.reshape(radius, (-1, 1)) * toward
    return c2w


def fitting_radius(
    points: NDArray[np.floating], toward: NDArray[np.float64], fov: NDArray[np.float64], *, least: float = 0.0
) -> float:
    """Smallest distance, at least `least`, at which all `points` [N, 3] are in the frame of every square view.

    Args:
        points: vertices of the object.
        toward: unit vectors [V, 3] from the origin to the cameras.
        fov: fields of view [V] in radians.
        least: smallest distance that is taken.
    """
    radius = least
    for rotation, angle in zip(rotations(toward), fov, strict=True):
        right, down, forward = (points @ rotation).T  # depth of a point is radius + forward
        reach = MARGIN * np.tan(angle / 2)
        radius = max(radius, float((np.maximum(abs(right), abs(down)) / reach - forward).max()))
    return radius


def cropped(points: NDArray[np.floating], cameras: Sequence[Camera]) -> list[int]:
    """Indices of the cameras in whose frame not all `points` [N, 3] are."""
    found = []
    for index, camera in enumerate(cameras):
        seen = (points - camera.c2w[:3, 3]) @ camera.c2w[:3, :3]
        x, y, w = camera.K @ seen.T
        inside = (w > 0) & (x >= 0) & (x <= w * camera.width) & (y >= 0) & (y <= w * camera.height)
        if not inside.all():
            found.append(index)
    return found


def dumps(rig: Rig, facts: dict[str, Any]) -> str:
    """Format a rig and `facts` of its render as JSON, one camera a line."""
    head = {"preset": rig.preset, "version": rig.version, "seed": rig.seed, "convention": CONVENTION}
    head |= {**facts, "inputs": list(rig.inputs)}
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    cameras = [
        json.dumps({"width": c.width, "height": c.height, "K": c.K.tolist(), "c2w": c.c2w.tolist()})
        for c in rig.cameras
    ]
    return "\n".join(["{", *lines, '  "cameras": [', "    " + ",\n    ".join(cameras), "  ]", "}"]) + "\n"


def read(folder: Path) -> tuple[Rig, dict[str, Any]]:
    """Read the `rig.json` of rendered views: the rig, and its other entries, such as `units` and `depth`.

    Raises:
        RenderError: there is none, or it cannot be read.
    """
    path = folder / FILE
    try:
        entries = json.loads(foreign.read_bytes(path))
        cameras = tuple(
            Camera(
                np.asarray(entry["c2w"], np.float64).reshape(4, 4),
                np.asarray(entry["K"], np.float64).reshape(3, 3),
                int(entry["width"]),
                int(entry["height"]),
            )
            for entry in entries.pop("cameras")
        )
        if entries.pop("convention") != CONVENTION:
            raise ValueError(f"its convention is not {CONVENTION!r}")
        inputs = tuple(int(index) for index in entries.pop("inputs"))
        rig = Rig(str(entries.pop("preset")), int(entries.pop("version")), int(entries.pop("seed")), cameras, inputs)
    except FileNotFoundError as error:
        raise RenderError(f"{path}: no such file; `gaussianverse render` writes one beside the views") from error
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise RenderError(f"{path}: cannot be read as a rig: {error!r}; render the views again") from error
    return rig, entries
