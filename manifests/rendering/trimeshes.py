"""Meshes in OBJ with MTL, PLY and STL, read by trimesh."""

import io
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gaussianverse import foreign
from gaussianverse.manifests.errors import RenderError
from gaussianverse.manifests.rendering.parts import Part, Texture, step_of

SUFFIXES = (".obj", ".ply", ".stl")
_IMAGES = ("PNG", "JPEG", "WEBP", "BMP", "TGA", "TIFF")
_Y_UP_TO_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
_NORMALS = {".obj": b"\nvn ", ".ply": b" nx\n", ".stl": b""}  # what a file has that brings normals of vertices


def parts_of(path: Path) -> tuple[list[Part], set[str]]:
    """The triangles of a file, and the names of what it has and is not drawn.

    OBJ is y-up, PLY and STL are z-up, as Blender imports them. Files without normals are shaded flat. Colours of
    vertices are sRGB, those of MTL linear; a texture takes the place of the colour that stands beside it.

    Raises:
        RenderError: trimesh is missing, or a file that is named is missing or cannot be decoded.
    """
    try:
        import trimesh
    except ImportError as error:
        raise RenderError(
            f"{path}: reading {path.suffix} needs trimesh: pip install 'gaussianverse[meshes]'"
        ) from error
    if not path.is_file():
        raise RenderError(f"{path}: no such file")
    data, kind = foreign.read_bytes(path), path.suffix.lower()
    beside = _resolver(path)
    scene = trimesh.load_scene(io.BytesIO(data), file_type=kind[1:], resolver=beside, process=False)
    if beside.errors:
        raise RenderError(f"{path}: {beside.errors[0]}")
    normals = bool(_NORMALS[kind]) and _NORMALS[kind] in data.replace(b"\r\n", b"\n")
    parts, left_out = [], set[str]()
    for node in sorted(scene.graph.nodes_geometry):
        transform, name = scene.graph[node]
        mesh = scene.geometry[name]
        if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces):
            parts.append(_part(path, mesh, transform, normals, left_out))
    return parts, left_out


def _resolver(path: Path) -> Any:
    """A resolver of trimesh that reads only files in or below the folder of `path`, and keeps its errors."""
    from trimesh.resolvers import Resolver

    class Beside(Resolver):
        def __init__(self) -> None:
            self.errors: list[str] = []

        def get(self, name: str) -> bytes:
            try:
                return _named(path, name)
            except RenderError as error:
                self.errors.append(str(error))
                raise

        def write(self, name: str, data: bytes) -> None:
            raise NotImplementedError

        def namespaced(self, namespace: str) -> Any:
            raise NotImplementedError

        def keys(self) -> list[str]:
            return []

    return Beside()


def _named(path: Path, name: str) -> bytes:
    """Bytes of a material or image that a file names; an image must be one that can be decoded."""
    relative = PurePosixPath(name.strip().replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts:
        raise RenderError(f"{name[:200]!r} is not beside the file; move it there")
    try:
        data = foreign.read_bytes(path.parent / relative)
    except OSError as error:
        raise RenderError(
            f"{name[:200]!r}, which colours it, cannot be read ({error.strerror}); put it beside"
        ) from error
    if relative.suffix.lower() != ".mtl":
        try:
            with Image.open(io.BytesIO(data), formats=_IMAGES) as image:
                image.load()
        except Exception as error:  # decoders raise errors of many types on untrusted bytes
            raise RenderError(f"{name[:200]!r} cannot be decoded; expected {', '.join(_IMAGES)}") from error
    return data


def _part(path: Path, mesh: Any, transform: NDArray[np.float64], with_normals: bool, left_out: set[str]) -> Part:
    turn = _Y_UP_TO_Z_UP if path.suffix.lower() == ".obj" else np.eye(3)
    linear = turn @ transform[:3, :3]
    points, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    normals = np.asarray(mesh.vertex_normals if with_normals else np.zeros_like(points), np.float64)
    colors = np.ones((len(points), 4), np.float32)
    base: Texture | None = None
    cutoff: float | None = 0.0
    emissive = (0.0, 0.0, 0.0)
    if mesh.visual.kind == "texture":
        colors[:], base, cutoff, emissive = _material(path, mesh.visual, left_out)
    elif mesh.visual.kind == "vertex":
        colors[:] = _linear(mesh.visual.vertex_colors)
    elif mesh.visual.kind == "face":
        colors = np.repeat(_linear(mesh.visual.face_colors), 3, axis=0)
        points, normals, faces = points[faces.ravel()], normals[faces.ravel()], np.arange(faces.size).reshape(-1, 3)
    return Part(
        points @ linear.T + turn @ transform[:3, 3],
        (normals @ linear.T).astype(np.float32),
        colors,
        faces.astype(np.uint32),
        base,
        cutoff,
        emissive,
        step=0.0 if path.suffix.lower() == ".obj" else step_of(points.astype(np.float32), faces),
    )


def _material(
    path: Path, visual: Any, left_out: set[str]
) -> tuple[NDArray[np.float32], Texture | None, float | None, tuple[float, float, float]]:
    """Colour [4], texture, cutoff and emission of an MTL material."""
    entries: dict[str, Any] = visual.material.kwargs
    left_out.update(name for name in ("map_bump", "bump", "norm", "map_ke", "map_d") if name in entries)
    alpha = 1.0
    if "d" in entries:
        alpha = float(entries["d"][-1])
    elif "tr" in entries:
        alpha = 1 - float(entries["tr"][-1])
    emissive = np.array([float(value) for value in entries.get("ke", (0, 0, 0))], np.float64).reshape(3)
    cutoff = None if alpha < 1 else 0.0
    image = visual.material.image
    if image is None:
        color = [*(float(value) for value in entries.get("kd", (1, 1, 1))), alpha]
        base = None
    elif visual.uv is None:
        raise RenderError(f"{path}: a textured mesh has no texture coordinates, so its colours are unknown")
    else:
        color = [1, 1, 1, alpha]
        base = Texture(np.array(image.convert("RGBA"), np.uint8), np.asarray(visual.uv, np.float32))
    r, g, b = (float(value) for value in emissive)
    return np.clip(np.array(color, np.float32), 0, 1), base, cutoff, (r, g, b)


def _linear(srgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Linear RGBA of sRGB colours, uint8 [N, 4]."""
    value = np.asarray(srgb, np.float64)[:, :4] / 255
    value[:, :3] = np.where(value[:, :3] <= 0.04045, value[:, :3] / 12.92, ((value[:, :3] + 0.055) / 1.055) ** 2.4)
    return value.astype(np.float32)
