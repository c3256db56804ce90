"""Textured meshes from GLB files, normalised for rendering."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gaussianverse.manifests.errors import RenderError
from gaussianverse.manifests.rendering.gltf import REPEAT, Gltf

EXTENT = 0.9  # longest side of a normalised mesh's bounding box, if nothing else is asked for
Measure = Literal["longest side", "diagonal"]  # of the bounding box
_ROUNDED = 1 / 256  # a larger step of the file's numbers is refused, as a fraction of the mesh
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_Y_UP_TO_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


@dataclass(frozen=True)
class Part:
    """Triangles of one material.

    Attributes:
        vertices: float32 [N, 3]; float64 until the mesh is centred, since it may lie far out.
        normals: float32 [N, 3], unit length, or 0 where unknown.
        uv: float32 [N, 2], origin at the lower left of the texture.
        colors: float32 [N, 4], linear RGBA that multiplies the texture.
        faces: uint32 [F, 3].
        texture: uint8 [h, w, 4], sRGB with straight alpha, top row first; or None.
        wrap: wrap modes of the texture in u and v; `gltf.REPEAT`, `MIRROR` or `CLAMP`.
        cutoff: alpha below which a texel is empty, 0 if opaque; None if alpha is coverage.
        step: distance between neighbouring numbers of the file's format at its vertices, in the mesh's unit.
    """

    vertices: NDArray[np.floating]
    normals: NDArray[np.float32]
    uv: NDArray[np.float32]
    colors: NDArray[np.float32]
    faces: NDArray[np.uint32]
    texture: NDArray[np.uint8] | None
    wrap: tuple[int, int]
    cutoff: float | None
    step: float = 0.0


@dataclass(frozen=True)
class Mesh:
    """A mesh in a z-up world, with its bounding box centred at the origin and of the length asked for.

    A vertex of the file, turned z-up, is at `scale * vertex + offset`.
    """

    parts: tuple[Part, ...]
    scale: float
    offset: NDArray[np.float64]

    @property
    def points(self) -> NDArray[np.float32]:
        """Vertices that triangles use, float32 [N, 3]."""
        return np.concatenate([part.vertices[np.unique(part.faces)] for part in self.parts]).astype(np.float32)


def load_mesh(path: Path, *, extent: float = EXTENT, measure: Measure = "longest side") -> Mesh:
    """Load the triangles of a GLB or glTF file, with base colour from texture, factor and vertex colours.

    Skinned meshes keep the pose of the file's joints. Lines, points and all material properties except base
    colour are ignored; for specular-glossiness materials, base colour is the diffuse colour.

    Raises:
        RenderError: the file cannot be read, requires an extension that is not read, uses morph targets, or
            has no triangles.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            gltf = Gltf(path)
            parts = [
                _part(gltf, primitive, node, transform)
                for node, transform in gltf.placements()
                for primitive in _primitives(gltf, node, path)
            ]
            return _normalise([part for part in parts if len(part.faces)], path, extent, measure)
    except RenderError:
        raise
    except Exception as error:  # malformed files raise errors of many types
        raise RenderError(f"{path}: cannot be read as glTF: {error!r}") from error


def _primitives(gltf: Gltf, node: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """Primitives of a node's mesh that consist of triangles."""
    mesh = gltf.item("meshes", node["mesh"])
    if any(node.get("weights", mesh.get("weights", ()))):
        raise RenderError(f"{path}: uses morph targets, which are not read; apply them and save it again")
    return [p for p in mesh["primitives"] if p.get("mode", _TRIANGLES) in (_TRIANGLES, _STRIP, _FAN)]


def _normalise(parts: list[Part], path: Path, length: float, measure: Measure) -> Mesh:
    if not parts:
        raise RenderError(f"{path}: no triangles; only meshes can be rendered")
    used = np.concatenate([part.vertices[np.unique(part.faces)] for part in parts])
    if not np.isfinite(used).all():
        raise RenderError(f"{path}: has vertices that are NaN or infinite")
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
    moved = (replace(part, vertices=(scale * (part.vertices - middle)).astype(np.float32)) for part in parts)
    return Mesh(tuple(moved), scale, offset)


def _part(gltf: Gltf, primitive: dict[str, Any], node: dict[str, Any], transform: NDArray[np.float64]) -> Part:
    attributes = primitive["attributes"]
    stored = _attribute(gltf, attributes, "POSITION", 3)
    points = stored.astype(np.float64)
    faces = _faces(gltf, primitive, len(points))
    if "NORMAL" in attributes:
        normals = _attribute(gltf, attributes, "NORMAL", 3, len(points)).astype(np.float64)
    else:
        normals = _smooth_normals(points, faces)
    matrices = _skinning(gltf, node["skin"], attributes, len(points)) if "skin" in node else transform[None]
    linear = _Y_UP_TO_Z_UP @ matrices[:, :3, :3]
    vertices = _apply(linear, points) + matrices[:, :3, 3] @ _Y_UP_TO_Z_UP.T
    determinant = np.broadcast_to(np.linalg.det(linear), len(points))
    mirrored = determinant < 0  # which turns triangles inside out
    normals = _unit_length(_apply(_cofactors(linear), normals)) * np.where(mirrored, -1, 1)[:, None]
    faces = np.where(mirrored[faces[:, :1]], faces[:, ::-1], faces)
    material = gltf.item("materials", primitive["material"]) if "material" in primitive else {}
    factor, info = _base_color(material)
    colors = _vertex_colors(gltf, attributes, len(points)) * np.asarray(factor, np.float32).reshape(4).clip(0, 1)
    uv, texture, wrap = np.zeros((len(points), 2), np.float32), None, (REPEAT, REPEAT)
    if info is not None:
        uv = _texture_coordinates(gltf, attributes, info, len(points))
        texture, wrap = gltf.image(info["index"]), gltf.wrap(info["index"])
    cutoffs = {"OPAQUE": 0.0, "MASK": float(material.get("alphaCutoff", 0.5)), "BLEND": None}
    return Part(
        vertices,
        normals.astype(np.float32),
        uv,
        colors,
        np.ascontiguousarray(faces, np.uint32),
        texture,
        wrap,
        cutoffs[material.get("alphaMode", "OPAQUE")],
        _step(stored, faces) * float(np.linalg.norm(linear, axis=1).max()),
    )


def _step(stored: NDArray[Any], faces: NDArray[np.int64]) -> float:
    """Largest distance between neighbouring float32 numbers at the vertices that are used; 0 for integers."""
    if stored.dtype.kind != "f" or not faces.size:
        return 0.0
    return float(np.spacing(np.abs(stored[np.unique(faces)]).max().astype(np.float32)))


def _attribute(gltf: Gltf, attributes: dict[str, int], name: str, width: int, n: int | None = None) -> NDArray[Any]:
    """Vertex attribute [n, width]."""
    array = gltf.array(attributes[name])
    if array.ndim != 2 or array.shape != (array.shape[0] if n is None else n, width):
        raise ValueError(f"{name} has shape {list(array.shape)}, expected {[n, width]}")
    return array


def _faces(gltf: Gltf, primitive: dict[str, Any], n: int) -> NDArray[np.int64]:
    """Faces [F, 3] of a list, strip or fan of triangles."""
    flat = np.arange(n)
    if "indices" in primitive:
        indices = gltf.array(primitive["indices"])
        if indices.dtype.kind != "u" or indices.ndim != 1 or indices.max() >= n:
            raise ValueError(f"indices are not integers in [0, {n}), the range of vertices")
        flat = indices.astype(np.int64)
    mode = primitive.get("mode", _TRIANGLES)
    if mode == _TRIANGLES:
        return flat.reshape(-1, 3)
    first = np.arange(max(len(flat) - 2, 0))
    if mode == _FAN:
        return flat[np.stack([first + 1, first + 2, np.zeros_like(first)], axis=1)]
    odd = first % 2  # every other triangle of a strip has the opposite winding
    return flat[np.stack([first, first + 1 + odd, first + 2 - odd], axis=1)]


def _skinning(gltf: Gltf, skin: int, attributes: dict[str, int], n: int) -> NDArray[np.float64]:
    """Local-to-world matrix of each vertex [n, 4, 4], from the pose of the file's joints."""
    entry = gltf.item("skins", skin)
    joints = np.stack([gltf.world[joint] for joint in entry["joints"]])
    if "inverseBindMatrices" in entry:
        inverse_bind = gltf.array(entry["inverseBindMatrices"]).astype(np.float64)
        joints = joints @ inverse_bind.reshape(len(joints), 4, 4).transpose(0, 2, 1)
    blended, total = np.zeros((n, 4, 4)), np.zeros((n, 1, 1))
    sets = [k for k in range(len(attributes)) if f"JOINTS_{k}" in attributes]
    for k in sets:
        indices = _attribute(gltf, attributes, f"JOINTS_{k}", 4, n)
        weights = _attribute(gltf, attributes, f"WEIGHTS_{k}", 4, n).astype(np.float64)
        for joint, weight in zip(indices.T, weights.T[..., None, None], strict=True):
            blended += weight * joints[joint]
            total += weight
    mean: NDArray[np.float64] = np.divide(blended, total, out=np.full_like(blended, np.nan), where=total > 0)
    return mean


def _smooth_normals(points: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Vertex normals [N, 3]: the mean of the triangles' normals, weighted by their angle at the vertex."""
    corners = points[faces]
    edges = _unit_length(np.roll(corners, -1, axis=1) - corners)
    facing = _unit_length(np.cross(edges[:, 0], edges[:, 1]))
    cosines = -(edges * np.roll(edges, 1, axis=1)).sum(-1, keepdims=True)
    weighted = facing[:, None] * np.arccos(np.clip(cosines, -1, 1))
    normals = np.zeros_like(points)
    np.add.at(normals, faces, weighted)
    return _unit_length(normals)


def _unit_length(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale vectors [..., 3] to length 1; 0 stays 0."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: NDArray[np.float64] = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return unit


def _apply(matrices: NDArray[np.float64], vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Products [N, 3] of matrices [N or 1, 3, 3] and vectors [N, 3]."""
    product: NDArray[np.float64] = (matrices @ vectors[..., None])[..., 0]
    return product


def _cofactors(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cofactor matrices [..., 3, 3], A^-T det(A), which transform normals; defined for a zero scale too."""
    a, b, c = np.moveaxis(matrices, -2, 0)
    return np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], axis=-2)


def _vertex_colors(gltf: Gltf, attributes: dict[str, int], n: int) -> NDArray[np.float32]:
    """Vertex colours, linear RGBA [n, 4] in 0..1; white if the file has none."""
    colors = np.ones((n, 4), np.float32)
    if "COLOR_0" in attributes:
        given = gltf.array(attributes["COLOR_0"])
        if given.shape not in ((n, 3), (n, 4)) or given.dtype.kind != "f":
            raise ValueError(f"COLOR_0 is {given.dtype} {list(given.shape)}, neither float nor normalised")
        colors[:, : given.shape[1]] = np.clip(given, 0, 1)
    return colors


def _base_color(material: dict[str, Any]) -> tuple[Any, dict[str, Any] | None]:
    """Base colour of a material: linear RGBA factor, and the reference to its texture or None."""
    gloss = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness")
    if gloss is not None:
        return gloss.get("diffuseFactor", (1, 1, 1, 1)), gloss.get("diffuseTexture")
    pbr = material.get("pbrMetallicRoughness", {})
    return pbr.get("baseColorFactor", (1, 1, 1, 1)), pbr.get("baseColorTexture")


def _texture_coordinates(gltf: Gltf, attributes: dict[str, int], info: dict[str, Any], n: int) -> NDArray[np.float32]:
    """Texture coordinates, float32 [n, 2], with the origin at the lower left; glTF's is at the upper left."""
    transform = info.get("extensions", {}).get("KHR_texture_transform", {})
    name = f"TEXCOORD_{transform.get('texCoord', info.get('texCoord', 0))}"
    if name not in attributes:
        raise RenderError(f"{gltf.path}: a textured mesh has no {name}, so its colours are unknown")
    uv = _attribute(gltf, attributes, name, 2, n).astype(np.float64)
    angle = float(transform.get("rotation", 0))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    uv = uv * transform.get("scale", (1, 1)) @ turn.T + transform.get("offset", (0, 0))
    return np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1).astype(np.float32)
