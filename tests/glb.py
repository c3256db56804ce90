"""GLB files written by hand, so that tests of readers do not depend on another writer."""

import io
import json
import struct
from typing import Any

import numpy as np
from PIL import Image

POINTS, LINES, TRIANGLES, STRIP, FAN = 0, 1, 4, 5, 6


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


class Glb:
    """Builder of a GLB file from primitives; `bytes()` returns the file."""

    def __init__(self) -> None:
        self.binary = b""
        self.json: dict[str, Any] = {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": []}]}

    def _add(self, kind: str, value: dict[str, Any]) -> int:
        self.json.setdefault(kind, []).append(value)
        return len(self.json[kind]) - 1

    def array(self, array: np.ndarray) -> int:
        """Add an accessor that nothing uses yet; returns its index."""
        return self._accessor(array)

    def view(self, data: bytes) -> int:
        """Add a buffer view; returns its index."""
        return self._view(data)

    def primitive(self, mesh: int = 0) -> dict[str, Any]:
        """The primitive of a mesh, to be changed."""
        primitive: dict[str, Any] = self.json["meshes"][mesh]["primitives"][0]
        return primitive

    def _view(self, data: bytes) -> int:
        offset = len(self.binary)
        self.binary += data + bytes(-len(data) % 4)
        return self._add("bufferViews", {"buffer": 0, "byteOffset": offset, "byteLength": len(data)})

    def _accessor(self, array: np.ndarray, *, normalized: bool = False) -> int:
        code = {"f": 5126, "I": 5125, "H": 5123, "B": 5121}[array.dtype.char]
        kind = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}[1 if array.ndim == 1 else array.shape[1]]
        value = {"bufferView": self._view(array.tobytes()), "componentType": code, "count": len(array)}
        value |= {"type": kind, "min": array.min(0).tolist(), "max": array.max(0).tolist()}
        if array.ndim == 1:
            value |= {"min": [int(array.min())], "max": [int(array.max())]}
        return self._add("accessors", value | ({"normalized": True} if normalized else {}))

    def add(
        self,
        vertices: Any,
        faces: Any,
        *,
        uv: Any = None,
        texture: np.ndarray | None = None,
        factor: Any = None,
        colors: np.ndarray | None = None,
        mode: int = TRIANGLES,
        matrix: np.ndarray | None = None,
        attributes: dict[str, np.ndarray] | None = None,
        texture_info: dict[str, Any] | None = None,
        gloss: bool = False,
        **material: Any,
    ) -> "Glb":
        accessors = {"POSITION": self._accessor(np.asarray(vertices, np.float32))}
        if uv is not None:
            accessors["TEXCOORD_0"] = self._accessor(np.asarray(uv, np.float32))
        if colors is not None:
            accessors["COLOR_0"] = self._accessor(colors, normalized=colors.dtype == np.uint8)
        for name, array in (attributes or {}).items():
            accessors[name] = self._accessor(array, normalized=not name.startswith("JOINTS"))
        names = ("diffuseFactor", "diffuseTexture") if gloss else ("baseColorFactor", "baseColorTexture")
        base: dict[str, Any] = {}
        if factor is not None:
            base[names[0]] = list(factor)
        if texture is not None:
            image = self._add("images", {"bufferView": self._view(png(texture)), "mimeType": "image/png"})
            base[names[1]] = {"index": self._add("textures", {"source": image}), **(texture_info or {})}
        if gloss:
            material["extensions"] = {"KHR_materials_pbrSpecularGlossiness": base}
        else:
            base["metallicFactor"] = 0
            material["pbrMetallicRoughness"] = base
        primitive: dict[str, Any] = {"attributes": accessors, "mode": mode}
        primitive["indices"] = self._accessor(np.asarray(faces, np.uint32).ravel())
        if material != {"pbrMetallicRoughness": {"metallicFactor": 0}}:
            primitive["material"] = self._add("materials", material)
        node: dict[str, Any] = {"mesh": self._add("meshes", {"primitives": [primitive]})}
        if matrix is not None:
            node["matrix"] = np.asarray(matrix, float).T.ravel().tolist()
        self.json["scenes"][0]["nodes"].append(self._add("nodes", node))
        return self

    def add_skin(self, joints: list[dict[str, Any]], inverse_bind: Any) -> "Glb":
        """Bind the last node to new root nodes."""
        indices = [self._add("nodes", joint) for joint in joints]
        matrices = np.asarray(inverse_bind, np.float32).transpose(0, 2, 1).reshape(-1, 16)
        skin = {"joints": indices, "inverseBindMatrices": self._accessor(np.ascontiguousarray(matrices))}
        self.json["nodes"][indices[0] - 1]["skin"] = self._add("skins", skin)
        self.json["scenes"][0]["nodes"] += indices
        return self

    def __bytes__(self) -> bytes:
        header = self.json | {"buffers": [{"byteLength": len(self.binary)}]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(self.binary), b"BIN\0") + self.binary
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def box(center: Any = (0, 0, 0), size: Any = (1, 1, 1)) -> tuple[np.ndarray, np.ndarray]:
    """24 vertices and 12 outward triangles: faces share no vertices, so they shade flat."""
    vertices, faces = [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            u, v = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
            n = sign * np.eye(3)[axis]
            start = len(vertices)
            vertices += [n + a * u + b * v for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            quad = [[0, 1, 2], [0, 2, 3]] if sign > 0 else [[0, 2, 1], [0, 3, 2]]
            faces += [[start + i for i in triangle] for triangle in quad]
    return np.array(vertices) * np.asarray(size) / 2 + np.asarray(center), np.array(faces)
