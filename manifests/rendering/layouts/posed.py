"""Posed views of one object and what is known of it: all that a layout is written from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaussianverse.manifests.errors import LayoutError
from gaussianverse.manifests.rendering.rig import Camera, Rig, fields_of_view

Floats = NDArray[np.float64]

GL = np.diag([1.0, -1.0, -1.0, 1.0])
"""Turns OpenCV camera axes (x right, y down, z forward) into OpenGL's (y up, z back), and the reverse."""
_NEAR = 1e-6


@dataclass(frozen=True)
class PosedView:
    """One view.

    Attributes:
        name: name of the view where it came from, for errors.
        image: uint8 [H, W, 4], RGBA with straight alpha.
        camera: the camera; its size is that of the image.
        depth: float32 [H, W] along the optical axis, 0 where empty; None if unknown.
        normal: float32 [H, W, 3] in the world, 0 where empty; None if unknown.
    """

    name: str
    image: NDArray[np.uint8]
    camera: Camera
    depth: NDArray[np.float32] | None = None
    normal: NDArray[np.float32] | None = None

    @property
    def c2w(self) -> Floats:
        """OpenCV camera-to-world, float64 [4, 4]."""
        return self.camera.c2w

    @property
    def K(self) -> Floats:
        """Intrinsics in pixels, float64 [3, 3]."""
        return self.camera.K

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.camera.height

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.camera.width

    @property
    def opengl(self) -> Floats:
        """OpenGL camera-to-world, float64 [4, 4]."""
        return self.c2w @ GL

    @property
    def centred(self) -> bool:
        """Whether pixels are squares and the principal point is the middle: an angle of view says all of K."""
        middle = (self.width / 2, self.height / 2)
        off = max(abs(self.K[0, 2] - middle[0]) / self.width, abs(self.K[1, 2] - middle[1]) / self.height)
        return bool(off < _NEAR and abs(self.K[0, 0] / self.K[1, 1] - 1) < _NEAR)

    @property
    def fov(self) -> tuple[float, float]:
        """Horizontal and vertical angle of view in radians."""
        return fields_of_view(self.camera)

    @property
    def elevation(self) -> float:
        """Elevation of the camera above the horizon of the origin, in radians."""
        x, y, z = self.c2w[:3, 3]
        return float(np.arctan2(z, np.hypot(x, y)))

    @property
    def azimuth(self) -> float:
        """Azimuth of the camera, in radians from x towards y, from 0 to 2 pi."""
        return float(np.arctan2(self.c2w[1, 3], self.c2w[0, 3]) % (2 * np.pi))

    @property
    def geometry(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Normals and depth.

        Raises:
            LayoutError: one of them is unknown.
        """
        if self.depth is None or self.normal is None:
            raise LayoutError(f"view {self.name} lacks normals or depth; render them anew")
        return self.normal, self.depth

    def points(self) -> NDArray[np.float32]:
        """World positions of the pixels that the object covers whole and that have a depth, float32 [N, 3]."""
        if self.depth is None:
            raise LayoutError(f"view {self.name} has no depth")
        v, u = np.nonzero((self.image[..., 3] == 255) & (self.depth > 0))
        z = self.depth[v, u].astype(np.float64)
        x = (u + 0.5 - self.K[0, 2]) / self.K[0, 0] * z
        y = (v + 0.5 - self.K[1, 2]) / self.K[1, 1] * z
        world = np.stack([x, y, z], axis=1) @ self.c2w[:3, :3].T + self.c2w[:3, 3]
        return world.astype(np.float32)


Views = Sequence[PosedView]


@dataclass(frozen=True)
class Surface:
    """Triangles of the mesh, in the world of the views; only a fresh render knows them.

    Attributes:
        vertices: float32 [N, 3].
        faces: integers [F, 3].
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.integer]


@dataclass(frozen=True)
class Subject:
    """An object: its name, the texts beside it, and where its views came from.

    Attributes:
        uid: its name, of A-Z a-z 0-9 _ - only.
        digest: sha256 of the mesh or, where none is known, of its views' files, in hexadecimal digits.
        rig: the cameras and how they were chosen; preset "unknown" if nobody says.
        category: any word, or "".
        captions: texts that describe it.
        split: "train", "val", "test" or "".
        license: its licence, or "".
        source_id: its origin, or "".
        extras: values of further columns of a manifest.
        facts: the other entries of the `rig.json` beside the views (units, scale, offset), as far as there are any.
        surface: its mesh, None unless freshly rendered.
    """

    uid: str
    digest: str
    rig: Rig
    category: str = ""
    captions: tuple[str, ...] = ()
    split: str = ""
    license: str = ""
    source_id: str = ""
    extras: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    surface: Surface | None = None
