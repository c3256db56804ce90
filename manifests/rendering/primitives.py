"""Parts of a glTF scene: the triangles of its primitives, posed by nodes, skins and morph targets."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaussianverse.manifests.errors import RenderError
from gaussianverse.manifests.rendering import draco
from gaussianverse.manifests.rendering.gltf import Gltf
from gaussianverse.manifests.rendering.materials import look_of
from gaussianverse.manifests.rendering.parts import Part, smooth_normals, step_of, unit_length

_POINTS, _TRIANGLES, _STRIP, _FAN = 0, 4, 5, 6
_MAX_VERTICES = 1 << 27  # of all instances of a node's mesh
_Y_UP_TO_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


def parts_of(gltf: Gltf) -> list[Part]:
    """The triangles of the default scene, turned z-up."""
    parts = []
    for node, transforms in gltf.placements():
        mesh = gltf.item("meshes", node["mesh"])
        weights = np.asarray(node.get("weights", mesh.get("weights", ())), np.float64).reshape(-1)
        for primitive in mesh["primitives"]:
            if primitive.get("mode", _TRIANGLES) in (_TRIANGLES, _STRIP, _FAN):
                parts.append(_part(gltf, _Arrays(gltf, primitive, weights), node, transforms))
            else:
                gltf.left_out.add("points" if primitive["mode"] == _POINTS else "lines")
    return [part for part in parts if len(part.faces)]


class _Arrays:
    """Vertex attributes and indices of a primitive, decompressed and morphed."""

    def __init__(self, gltf: Gltf, primitive: dict[str, Any], weights: NDArray[np.float64]) -> None:
        self.gltf, self.primitive = gltf, primitive
        self._attributes: dict[str, int] = primitive["attributes"]
        self._draco = draco.decoded(gltf, primitive)
        targets = primitive.get("targets", [])
        self._morphs = [(w, target) for w, target in zip(weights, targets, strict=False) if w]
        position = self._attributes["POSITION"]
        self.count = len(self._draco.get("POSITION", ())) or int(gltf.item("accessors", position)["count"])

    def __contains__(self, name: str) -> bool:
        return name in self._attributes

    def get(self, name: str, width: int) -> NDArray[Any]:
        """Vertex attribute [n, width]."""
        array = self.any(name)
        if array.shape != (self.count, width):
            raise ValueError(f"{name} has shape {list(array.shape)}, expected {[self.count, width]}")
        return array

    def any(self, name: str) -> NDArray[Any]:
        """Vertex attribute of any width."""
        array = self.stored(name)
        for weight, target in self._morphs:
            if name in target:
                array = array.astype(np.float64) + weight * self.gltf.array(target[name])
        return array

    def stored(self, name: str) -> NDArray[Any]:
        """Vertex attribute as the file has it, without morph targets."""
        return self._draco[name] if name in self._draco else self.gltf.array(self._attributes[name])

    def faces(self) -> NDArray[np.int64]:
        """Faces [F, 3] of a list, strip or fan of triangles."""
        flat = np.arange(self.count)
        if "indices" in self._draco:
            flat = self._draco["indices"]
        elif "indices" in self.primitive:
            flat = self.gltf.array(self.primitive["indices"])
            if flat.dtype.kind != "u" or flat.ndim != 1:
                raise ValueError("indices are not unsigned integers")
        flat = flat.astype(np.int64)
        if len(flat) and flat.max() >= self.count:
            raise ValueError(f"indices are not in [0, {self.count}), the range of vertices")
        mode = self.primitive.get("mode", _TRIANGLES)
        if mode == _TRIANGLES:
            return flat.reshape(-1, 3)
        first = np.arange(max(len(flat) - 2, 0))
        if mode == _FAN:
            return flat[np.stack([first + 1, first + 2, np.zeros_like(first)], axis=1)]
        odd = first % 2  # every other triangle of a strip has the opposite winding
        return flat[np.stack([first, first + 1 + odd, first + 2 - odd], axis=1)]


def _part(gltf: Gltf, arrays: _Arrays, node: dict[str, Any], transforms: NDArray[np.float64]) -> Part:
    """A primitive at all placements [I, 4, 4] of its node."""
    points, faces = arrays.get("POSITION", 3).astype(np.float64), arrays.faces()
    if "NORMAL" in arrays:
        normals = arrays.get("NORMAL", 3).astype(np.float64)
    else:
        normals = smooth_normals(points, faces)
    look = look_of(gltf, arrays.primitive, arrays.any, arrays.count)
    if len(transforms) * len(points) > _MAX_VERTICES:
        raise RenderError(f"{gltf.path}: {len(transforms)} instances of {len(points)} vertices are too many to draw")
    moved = []
    for transform in transforms:
        matrices = _skinning(arrays, node["skin"], np.unique(faces)) if "skin" in node else transform[None]
        moved.append(_placed(points, normals, faces, matrices))
    vertices, turned, placed, sizes = (list(column) for column in zip(*moved, strict=True))
    n = len(transforms)
    return Part(
        np.concatenate(vertices),
        np.concatenate(turned).astype(np.float32),
        np.tile(look.colors, (n, 1)),
        np.concatenate([k * len(points) + part for k, part in enumerate(placed)]).astype(np.uint32),
        look.repeated(look.base, n),
        look.cutoff,
        look.emissive,
        look.repeated(look.emission, n),
        look.unlit,
        step_of(arrays.stored("POSITION"), faces) * max(sizes),
    )


def _placed(
    points: NDArray[np.float64], normals: NDArray[np.float64], faces: NDArray[np.int64], matrices: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], float]:
    """Vertices, normals and faces under local-to-world matrices [N or 1, 4, 4], and the largest scale."""
    linear = _Y_UP_TO_Z_UP @ matrices[:, :3, :3]
    vertices = _apply(linear, points) + matrices[:, :3, 3] @ _Y_UP_TO_Z_UP.T
    determinant = np.broadcast_to(np.linalg.det(linear), len(points))
    mirrored = determinant < 0  # which turns triangles inside out
    normals = unit_length(_apply(_cofactors(linear), normals)) * np.where(mirrored, -1, 1)[:, None]
    faces = np.where(mirrored[faces[:, :1]], faces[:, ::-1], faces)
    return vertices, normals, faces, float(np.linalg.norm(linear, axis=1).max())


def _skinning(arrays: _Arrays, skin: int, used: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Local-to-world matrix of each vertex [n, 4, 4], from the pose of the file's joints.

    Raises:
        RenderError: a vertex of those `used` by triangles hangs from no joint.
    """
    gltf, n = arrays.gltf, arrays.count
    entry = gltf.item("skins", skin)
    joints = np.stack([gltf.world[joint] for joint in entry["joints"]])
    if "inverseBindMatrices" in entry:
        inverse_bind = gltf.array(entry["inverseBindMatrices"]).astype(np.float64)
        joints = joints @ inverse_bind.reshape(len(joints), 4, 4).transpose(0, 2, 1)
    blended, total = np.zeros((n, 4, 4)), np.zeros((n, 1, 1))
    k = 0
    while f"JOINTS_{k}" in arrays:
        indices, weights = arrays.get(f"JOINTS_{k}", 4), arrays.get(f"WEIGHTS_{k}", 4).astype(np.float64)
        for joint, weight in zip(indices.T, weights.T[..., None, None], strict=True):
            blended += weight * joints[joint]
            total += weight
        k += 1
    held = total[used, 0, 0]
    if lost := int((~np.isfinite(held) | (held <= 0)).sum()):
        raise RenderError(
            f"{gltf.path}: {lost} of {len(used)} vertices of a skinned mesh hang from no joint: WEIGHTS_0 are NaN, "
            "infinite or add up to 0"
        )
    mean: NDArray[np.float64] = np.divide(blended, total, out=np.full_like(blended, np.nan), where=total > 0)
    return mean


def _apply(matrices: NDArray[np.float64], vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Products [N, 3] of matrices [N or 1, 3, 3] and vectors [N, 3]."""
    product: NDArray[np.float64] = (matrices @ vectors[..., None])[..., 0]
    return product


def _cofactors(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cofactor matrices [..., 3, 3], A^-T det(A), which transform normals; defined for a zero scale too."""
    a, b, c = np.moveaxis(matrices, -2, 0)
    return np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], axis=-2)
