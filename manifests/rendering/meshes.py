"""Meshes from files, normalised for rendering."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gaussianverse.manifests.errors import RenderError
from gaussianverse.manifests.rendering import primitives, trimeshes
from gaussianverse.manifests.rendering.gltf import Gltf
from gaussianverse.manifests.rendering.parts import Part

EXTENT = 0.9  # longest side of a normalised mesh's bounding box, if nothing else is asked for
Measure = Literal["longest side", "diagonal"]  # of the bounding box
_ROUNDED = 1 / 256  # a larger step of the file's numbers is refused, as a fraction of the mesh


@dataclass(frozen=True, eq=False)
class Mesh:
    """A mesh in a z-up world, with its bounding box centred at the origin and of the length asked for.

    A vertex of the file, turned z-up, is at `scale * vertex + offset`. `left_out` names what the file has and is not
    drawn, such as "lines".
    """

    parts: tuple[Part, ...]
    scale: float
    offset: NDArray[np.float64]
    left_out: tuple[str, ...] = ()

    @property
    def points(self) -> NDArray[np.float32]:
        """Vertices that triangles use, float32 [N, 3]."""
        return np.concatenate([part.vertices[np.unique(part.faces)] for part in self.parts]).astype(np.float32)


def load_mesh(path: Path, *, extent: float = EXTENT, measure: Measure = "longest side") -> Mesh:
    """Load the triangles of a mesh, with base colour and emission from textures, factors and vertex colours.

    Skinned meshes keep the pose of the file's joints, and morph targets have the file's weights. `docs/rendering.md`
    says what of glTF is drawn; for specular-glossiness materials, base colour is the diffuse colour.

    Args:
        path: a .glb or .gltf file, or, with trimesh, an .obj, .ply or .stl.
        extent: length to which the mesh is scaled.
        measure: which length of its bounding box that is.

    Raises:
        RenderError: the file cannot be read, requires an extension that is not read, or has no triangles.
    """
    left_out: set[str] = set()
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            if path.suffix.lower() in trimeshes.SUFFIXES:
                parts, left_out = trimeshes.parts_of(path)
            else:
                gltf = Gltf(path)
                parts, left_out = primitives.parts_of(gltf), gltf.left_out
            return _normalise(parts, path, extent, measure, tuple(sorted(left_out)))
    except RenderError:
        raise
    except Exception as error:  # malformed files raise errors of many types
        kind = path.suffix.lower().lstrip(".") if path.suffix.lower() in trimeshes.SUFFIXES else "glTF"
        raise RenderError(f"{path}: cannot be read as {kind}: {error!r}") from error


def _normalise(parts: list[Part], path: Path, length: float, measure: Measure, left_out: tuple[str, ...]) -> Mesh:
    if not parts:
        raise RenderError(f"{path}: no triangles; only meshes can be rendered")
    used = np.concatenate([part.vertices[np.unique(part.faces)] for part in parts])
    if not np.isfinite(used).all():
        raise RenderError(f"{path}: has vertices that are NaN or infinite")
    if not all(np.isfinite(part.colors).all() and np.isfinite(part.emissive).all() for part in parts):
        raise RenderError(f"{path}: has colours that are NaN or infinite")
    low, high = used.min(0), used.max(0)
    extent = float(np.linalg.norm(high - low) if measure == "diagonal" else (high - low).max())
    if extent == 0:
        raise RenderError(f"{path}: all vertices are at one point")
    step = max(part.step for part in parts)
    if step > _ROUNDED * extent:
        raise RenderError(
            f"{path}: its vertices lie so far out that float32 rounds them to {step:.2g}, and the mesh is "
            f"{extent:.3g} wide; move it to the origin in the program that made it, and export it again"
        )
    scale = length / extent
    middle = low / 2 + high / 2
    offset = -scale * middle
    moved = tuple(
        replace(
            part,
            vertices=(scale * (part.vertices - middle)).astype(np.float32),
            normals=np.nan_to_num(part.normals, posinf=0, neginf=0),  # 0: unknown
        )
        for part in parts
    )
    if not any(_has_area(part) for part in moved):
        raise RenderError(
            f"{path}: none of its triangles has an area; a scale of 0 or vertices on one line give such"
        )
    return Mesh(moved, scale, offset, left_out)


def _has_area(part: Part) -> bool:
    """Whether a triangle is larger than float32 rounds vertices at a distance of 1."""
    a, b, c = part.vertices.astype(np.float64)[part.faces].transpose(1, 0, 2)
    return bool((np.linalg.norm(np.cross(b - a, c - a), axis=1) > 1e-12).any())
