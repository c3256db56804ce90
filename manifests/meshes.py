"""Textured meshes from GLB files, normalised for rendering."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manifests.errors import RenderError

EXTENT = 0.9  # longest side of a normalised mesh's bounding box
_Y_UP_TO_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


@dataclass(frozen=True)
class Part:
    """Triangles of one material.

    Attributes:
        vertices: float32 [N, 3].
        normals: float32 [N, 3], unit length or 0 where unknown.
        uv: float32 [N, 2], origin at the lower left of the texture.
        colors: float32 [N, 4], linear RGBA that multiplies the texture.
        faces: uint32 [F, 3].
        texture: uint8 [h, w, 4], sRGB with straight alpha, top row first; or None.
        cutoff: alpha below which a texel is empty: 0 opaque; None when alpha is a degree of coverage.
    """

    vertices: NDArray[np.float32]
    normals: NDArray[np.float32]
    uv: NDArray[np.float32]
    colors: NDArray[np.float32]
    faces: NDArray[np.uint32]
    texture: NDArray[np.uint8] | None
    cutoff: float | None


@dataclass(frozen=True)
class Mesh:
    """A mesh in a z-up world, centred on its bounding box with longest side 0.9.

    A vertex of the file, turned z-up, is at `scale * vertex + offset`.
    """

    parts: tuple[Part, ...]
    scale: float
    offset: NDArray[np.float64]

    @property
    def points(self) -> NDArray[np.float32]:
        """float32 [N, 3], the vertices that triangles use."""
        return np.concatenate([part.vertices[np.unique(part.faces)] for part in self.parts])


def load_mesh(path: Path) -> Mesh:
    """Triangles of a GLB or glTF file with base colour from texture, factor and vertex colours.

    Lines and points are left out, and so is what is not base colour: metal, gloss, bumps, emission.

    Raises:
        RenderError: the file cannot be read or has no triangles; or trimesh isn't installed.
    """
    try:
        import trimesh
    except ImportError as error:
        raise RenderError("rendering needs trimesh: pip install 'gaussianverse[render]'") from error
    if not path.is_file():
        raise RenderError(f"{path}: no such file")
    try:
        scene = trimesh.load_scene(path, process=False)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error) as error:
        raise RenderError(f"{path}: cannot be read as a mesh: {error!r}") from error
    parts = []
    for node in sorted(scene.graph.nodes_geometry):
        transform, name = scene.graph[node]
        geometry = scene.geometry[name]
        if isinstance(geometry, trimesh.Trimesh) and len(geometry.faces):
            parts.append(_part(geometry, np.asarray(transform, np.float64)))
    if not parts:
        raise RenderError(f"{path}: no triangles; only meshes can be rendered")
    return _normalise(parts, path)


def _normalise(parts: list[Part], path: Path) -> Mesh:
    used = np.concatenate([part.vertices[np.unique(part.faces)] for part in parts]).astype(np.float64)
    if not np.isfinite(used).all():
        raise RenderError(f"{path}: vertices that are NaN or infinite")
    low, high = used.min(0), used.max(0)
    extent = float((high - low).max())
    if extent == 0:
        raise RenderError(f"{path}: all vertices are one point")
    scale = EXTENT / extent
    offset = -scale * (low + high) / 2
    moved = (
        Part(
            (scale * part.vertices.astype(np.float64) + offset).astype(np.float32),
            part.normals,
            part.uv,
            part.colors,
            part.faces,
            part.texture,
            part.cutoff,
        )
        for part in parts
    )
    return Mesh(tuple(moved), scale, offset)


def _part(mesh: Any, transform: NDArray[np.float64]) -> Part:
    linear = _Y_UP_TO_Z_UP @ transform[:3, :3]
    vertices = np.asarray(mesh.vertices) @ linear.T + _Y_UP_TO_Z_UP @ transform[:3, 3]
    normals = np.asarray(mesh.vertex_normals) @ np.linalg.pinv(linear)  # (A^-T n)^T = n^T A^-1
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.divide(normals, length, out=np.zeros_like(normals), where=length > 0)
    faces = np.asarray(mesh.faces)
    if np.linalg.det(linear) < 0:  # a mirrored node turns its triangles inside out
        faces = faces[:, ::-1]
    uv, colors, texture, cutoff = _surface(mesh.visual, len(vertices))
    return Part(
        vertices.astype(np.float32),
        normals.astype(np.float32),
        uv,
        colors,
        np.ascontiguousarray(faces, np.uint32),
        texture,
        cutoff,
    )


def _surface(
    visual: Any, n: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8] | None, float | None]:
    """uv [n, 2], colors [n, 4], texture and cutoff of a trimesh visual; white where nothing is said."""
    uv, colors = np.zeros((n, 2), np.float32), np.ones((n, 4), np.float32)
    material = getattr(visual, "material", None)
    if material is None:
        if visual.defined:
            colors *= _unit(visual.vertex_colors)
        return uv, colors, None, 0.0
    attributes = getattr(visual, "vertex_attributes", {})
    if "color" in attributes:
        vertex_colors = _unit(attributes["color"])
        colors[:, : vertex_colors.shape[1]] *= vertex_colors
    if not hasattr(material, "baseColorFactor"):
        material = material.to_pbr()
    if material.baseColorFactor is not None:
        colors *= _unit(material.baseColorFactor)
    texture = None
    if material.baseColorTexture is not None and visual.uv is not None:
        uv = np.asarray(visual.uv, np.float32)
        texture = np.array(material.baseColorTexture.convert("RGBA"), np.uint8)
    if material.alphaMode == "MASK":
        return uv, colors, texture, 0.5 if material.alphaCutoff is None else float(material.alphaCutoff)
    return uv, colors, texture, None if material.alphaMode == "BLEND" else 0.0


def _unit(colors: Any) -> NDArray[np.float32]:
    """Colours of any type as float32 in [0, 1]."""
    array = np.asarray(colors)
    scale = np.iinfo(array.dtype).max if np.issubdtype(array.dtype, np.integer) else 1
    return np.clip(array.astype(np.float32) / scale, 0, 1)
