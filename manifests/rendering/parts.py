"""Triangles of a mesh with what colours them, and geometry that readers of meshes share."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REPEAT, MIRROR, CLAMP = 10497, 33648, 33071  # OpenGL's constants, which glTF uses


@dataclass(frozen=True, eq=False)
class Texture:
    """An image on triangles.

    Attributes:
        image: uint8 [h, w, 4], sRGB with straight alpha, top row first.
        uv: float32 [N, 2], one a vertex, origin at the lower left of the image.
        wrap: wrap modes in u and v; `REPEAT`, `MIRROR` or `CLAMP`.
        nearest: whether texels that are larger than pixels have sharp edges.
    """

    image: NDArray[np.uint8]
    uv: NDArray[np.float32]
    wrap: tuple[int, int] = (REPEAT, REPEAT)
    nearest: bool = False


@dataclass(frozen=True, eq=False)
class Part:
    """Triangles of one material.

    Attributes:
        vertices: float32 [N, 3]; float64 until the mesh is centred, since it may lie far out.
        normals: float32 [N, 3], unit length, or 0 where unknown.
        colors: float32 [N, 4], linear RGBA that multiplies `base`.
        faces: uint32 [F, 3].
        base: base colour, or None for `colors` alone.
        cutoff: alpha below which a texel is empty, 0 if opaque; None if alpha is coverage.
        emissive: linear RGB that is added to the lit colour, times `emission` if there is one.
        emission: texture of what the surface emits.
        unlit: whether the light has no effect.
        step: distance between neighbouring numbers of the file's format at its vertices, in the mesh's unit.
    """

    vertices: NDArray[np.floating]
    normals: NDArray[np.float32]
    colors: NDArray[np.float32]
    faces: NDArray[np.uint32]
    base: Texture | None = None
    cutoff: float | None = 0.0
    emissive: tuple[float, float, float] = (0.0, 0.0, 0.0)
    emission: Texture | None = None
    unlit: bool = False
    step: float = 0.0


def smooth_normals(points: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Vertex normals [N, 3]: the mean of the triangles' normals, weighted by their angle at the vertex."""
    corners = points[faces]
    edges = unit_length(np.roll(corners, -1, axis=1) - corners)
    facing = unit_length(np.cross(edges[:, 0], edges[:, 1]))
    cosines = -(edges * np.roll(edges, 1, axis=1)).sum(-1, keepdims=True)
    weighted = facing[:, None] * np.arccos(np.clip(cosines, -1, 1))
    normals = np.zeros_like(points)
    np.add.at(normals, faces, weighted)
    return unit_length(normals)


def unit_length(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale vectors [..., 3] to length 1; 0 stays 0."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: NDArray[np.float64] = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return unit


def step_of(stored: NDArray[np.generic], faces: NDArray[np.integer]) -> float:
    """Largest distance between neighbouring float32 numbers at the vertices that are used; 0 for integers."""
    if stored.dtype.kind != "f" or not faces.size:
        return 0.0
    return float(np.spacing(np.abs(stored[np.unique(faces)]).max().astype(np.float32)))
