"""Reader of glTF 2.0 files (.glb, .gltf): the container, its arrays and images, and the nodes' transforms.

It is strict: whatever it does not support and would change the picture is an error.
"""

import base64
import io
import json
import struct
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gaussianverse import foreign
from gaussianverse.manifests.errors import RenderError
from gaussianverse.manifests.rendering.parts import CLAMP, MIRROR, REPEAT

# Extensions that move triangles or change their texels, and that are read.
_READ = {
    "EXT_mesh_gpu_instancing",
    "EXT_texture_webp",
    "KHR_draco_mesh_compression",
    "KHR_materials_pbrSpecularGlossiness",
    "KHR_mesh_quantization",
    "KHR_node_visibility",
    "KHR_texture_transform",
}
# Extensions that may be required and change nothing here, like all KHR_materials_: light, animation, other data.
_NO_EFFECT = {"KHR_animation_pointer", "KHR_lights_punctual", "KHR_xmp_json_ld"}
_COMPRESSED = {"EXT_meshopt_compression", "KHR_meshopt_compression"}
_MAX_BYTES = 1 << 31  # of an array that takes no room in the file
_UNPACK = "save it again without compression, e.g. by Blender's glTF export with 'Compression' off"

_TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_IMAGES = ("PNG", "JPEG", "WEBP")
_NEAREST = 9728
_INSTANCE = {"TRANSLATION": "translation", "ROTATION": "rotation", "SCALE": "scale"}


class Gltf:
    """A glTF file: `path`, its JSON in `json`, and in `left_out` the names of what readers found and do not draw.

    Methods raise RenderError for unsupported features, and KeyError, TypeError, ValueError or IndexError
    for malformed JSON.

    Raises:
        RenderError: the file does not exist, is not glTF 2.0, or requires an extension that is not read.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise RenderError(f"{path}: no such file")
        self.path = path
        text, self._chunk = _unpacked(foreign.read_bytes(path))
        self.json: dict[str, Any] = json.loads(text)
        version = str(self.json["asset"].get("minVersion", self.json["asset"]["version"]))
        if version.split(".")[0] != "2" or ("minVersion" in self.json["asset"] and version != "2.0"):
            raise RenderError(f"{path}: glTF {version}; only glTF 2.0 is read: convert it")
        self._buffers: dict[int, bytes] = {}
        self.left_out: set[str] = set()
        self._images: dict[int, NDArray[np.uint8]] = {}
        for name in self.json.get("extensionsRequired", []):
            self._check_extension(str(name))

    def _check_extension(self, name: str) -> None:
        if name in _COMPRESSED:
            raise RenderError(f"{self.path}: compressed by {name}, which is not read; {_UNPACK}")
        if name not in _READ | _NO_EFFECT and not name.startswith("KHR_materials_"):
            raise RenderError(
                f"{self.path}: requires the extension {name}, which is not read; "
                "save it again as plain glTF 2.0, e.g. by Blender"
            )

    def item(self, kind: str, index: int) -> dict[str, Any]:
        """Entry `index` of the top-level list `kind`, e.g. "materials"."""
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise ValueError(f"{index!r} is not an index of {kind}")
        entries = self.json.get(kind, [])
        if index >= len(entries):
            raise RenderError(f"{self.path}: names {kind} {index}, and has {len(entries)}; fetch or export it again")
        entry = entries[index]
        if not isinstance(entry, dict):
            raise TypeError(f"{kind} {index} is {entry!r}, expected an object")
        return entry

    def array(self, index: int) -> NDArray[Any]:
        """Accessor `index`: [count] or [count, width]; normalised integers become float32 in [-1, 1]."""
        accessor = self.item("accessors", index)
        dtype = np.dtype(_TYPES[accessor["componentType"]])
        count, width = int(accessor["count"]), _WIDTHS[accessor["type"]]
        if count < 1:
            raise ValueError(f"accessor {index}: count {count}")
        if "bufferView" in accessor:
            array = self._strided(accessor["bufferView"], int(accessor.get("byteOffset", 0)), count, width, dtype)
        elif count * width * dtype.itemsize > _MAX_BYTES:
            raise ValueError(f"accessor {index}: {count} items without data")
        else:
            array = np.zeros((count, width), dtype)
        if "sparse" in accessor:
            array[self._sparse_indices(accessor["sparse"], count)] = self._sparse_values(accessor, width, dtype)
        array = normalised(array, accessor)
        return array[:, 0] if width == 1 else array

    def _strided(self, number: int, start: int, count: int, width: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """A copy [count, width] of the items in a buffer view."""
        view, data = self.item("bufferViews", number), self.view_bytes(number)
        stride = int(view.get("byteStride", width * dtype.itemsize))
        if start < 0 or stride < width * dtype.itemsize:
            raise ValueError(f"buffer view {number}: offset {start}, stride {stride}")
        if start + (count - 1) * stride + width * dtype.itemsize > len(data):
            raise ValueError(f"buffer view {number}: {count} items exceed its buffer view")
        array: NDArray[Any] = np.ndarray((count, width), dtype, data, start, (stride, dtype.itemsize)).copy()
        return array

    def _sparse_indices(self, sparse: dict[str, Any], count: int) -> NDArray[Any]:
        entry, n = sparse["indices"], int(sparse["count"])
        dtype = np.dtype(_TYPES[entry["componentType"]])
        if dtype.kind != "u" or n < 1:
            raise ValueError(f"sparse accessor: {n} indices of type {dtype}")
        indices = self._strided(entry["bufferView"], int(entry.get("byteOffset", 0)), n, 1, dtype)[:, 0]
        if indices.max() >= count:
            raise ValueError(f"sparse accessor: an index is not in [0, {count})")
        return indices

    def _sparse_values(self, accessor: dict[str, Any], width: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        entry, n = accessor["sparse"]["values"], int(accessor["sparse"]["count"])
        return self._strided(entry["bufferView"], int(entry.get("byteOffset", 0)), n, width, dtype)

    def image(self, texture: int) -> NDArray[np.uint8]:
        """Image of a texture, uint8 [h, w, 4], sRGB with straight alpha.

        Raises:
            RenderError: the image is broken, or not PNG, JPEG or WebP of 8 bits or 16-bit colour.
        """
        entry = self.item("textures", texture)
        webp = entry.get("extensions", {}).get("EXT_texture_webp", {})
        index = webp.get("source", entry.get("source"))
        if index is None:
            other = ", ".join(entry.get("extensions", {})) or "none"
            raise RenderError(
                f"{self.path}: texture {texture} has no PNG, JPEG or WebP (extensions: {other}); "
                "save it again with such textures"
            )
        if index not in self._images:
            self._images[index] = self._decode(index)
        return self._images[index]

    def sampling(self, texture: int) -> tuple[tuple[int, int], bool]:
        """Wrap modes of a texture in u and v, `REPEAT`, `MIRROR` or `CLAMP`, and whether its texels are sharp."""
        entry = self.item("textures", texture)
        sampler = self.item("samplers", entry["sampler"]) if "sampler" in entry else {}
        wrap = (sampler.get("wrapS", REPEAT), sampler.get("wrapT", REPEAT))
        if not {REPEAT, MIRROR, CLAMP}.issuperset(wrap):
            raise ValueError(f"texture {texture} has unknown wrap modes {wrap}")
        return wrap, sampler.get("magFilter") == _NEAREST

    def _decode(self, index: int) -> NDArray[np.uint8]:
        source = self.item("images", index)
        data = self.view_bytes(source["bufferView"]) if "bufferView" in source else self._fetch(source["uri"])
        try:
            with Image.open(io.BytesIO(data), formats=_IMAGES) as image:
                if image.mode[0] in "IF":
                    raise ValueError(f"mode {image.mode}, expected 8 bits")
                return np.array(image.convert("RGBA"), np.uint8)
        except Exception as error:  # decoders raise errors of many types on untrusted bytes
            raise RenderError(
                f"{self.path}: image {index} cannot be decoded: it is damaged, or no {', '.join(_IMAGES)} of 8 bits"
            ) from error

    def placements(self) -> Iterator[tuple[dict[str, Any], NDArray[np.float64]]]:
        """Yield the scene's visible nodes that have a mesh, each with its local-to-world matrices [I, 4, 4].

        There is one matrix, or one for each of the node's instances (EXT_mesh_gpu_instancing).
        """
        for index, matrix in sorted(self.world.items(), key=lambda entry: entry[0]):
            node = self.item("nodes", index)
            if "mesh" in node and index not in self._hidden:
                instances = node.get("extensions", {}).get("EXT_mesh_gpu_instancing")
                yield node, matrix[None] if instances is None else matrix @ self._instances(instances["attributes"])

    def _instances(self, attributes: dict[str, int]) -> NDArray[np.float64]:
        """Matrices [I, 4, 4] of a node's instances."""
        arrays = {name: self.array(attributes[name]) for name in _INSTANCE if name in attributes}
        if len({len(array) for array in arrays.values()}) != 1:
            raise ValueError(f"instances have arrays of {sorted(len(a) for a in arrays.values())} items")
        keys = [_INSTANCE[name] for name in arrays]
        return np.stack([_local(dict(zip(keys, row, strict=True))) for row in zip(*arrays.values(), strict=True)])

    @cached_property
    def world(self) -> dict[int, NDArray[np.float64]]:
        """Local-to-world matrices [4, 4] of the default scene's nodes.

        Raises:
            ValueError: a node has two parents, or contains itself.
        """
        found: dict[int, NDArray[np.float64]] = {}
        self._hidden: set[int] = set()
        scene = self.item("scenes", self.json.get("scene", 0)) if "scenes" in self.json else {}
        waiting = [(index, np.eye(4)) for index in scene.get("nodes", [])]
        while waiting:
            index, parent = waiting.pop()
            if index in found:
                raise ValueError(f"node {index} has two parents")
            node = self.item("nodes", index)
            found[index] = parent @ _local(node)
            if not node.get("extensions", {}).get("KHR_node_visibility", {}).get("visible", True):
                self._hidden.add(index)
            children = node.get("children", [])
            waiting += [(child, found[index]) for child in children]
            if index in self._hidden:
                self._hidden.update(children)
        return found

    def view_bytes(self, view: int) -> bytes:
        """Bytes of a buffer view."""
        entry = self.item("bufferViews", view)
        for name in entry.get("extensions", {}):
            self._check_extension(name)
        number = entry["buffer"]
        if number not in self._buffers:
            buffer = self.item("buffers", number)
            inside = number == 0 and "uri" not in buffer  # the binary chunk of a .glb is buffer 0
            self._buffers[number] = self._chunk if inside else self._fetch(buffer["uri"])
            declared = int(buffer.get("byteLength", 0))
            if len(self._buffers[number]) < declared:
                uri = "" if inside else buffer["uri"]
                named = "the file itself" if uri.startswith("data:") or not uri else repr(uri[:200])
                raise RenderError(
                    f"{self.path}: buffer {number} has {len(self._buffers[number])} of {declared} bytes in {named}; "
                    "fetch it again"
                )
        start, length = int(entry.get("byteOffset", 0)), int(entry["byteLength"])
        if start < 0 or length < 0 or start + length > len(self._buffers[number]):
            raise ValueError(f"buffer view {view} exceeds its buffer")
        return self._buffers[number][start : start + length]

    def _fetch(self, uri: str) -> bytes:
        """Bytes of a URI: inline data, or a file in or below this file's folder."""
        if uri.startswith("data:"):
            return base64.b64decode(uri.partition(";base64,")[2], validate=True)
        # exporters on Windows separate folders by backslashes
        name = PurePosixPath(unquote(uri).replace("\\", "/"))
        if "://" in uri or name.is_absolute() or ".." in name.parts:
            raise RenderError(f"{self.path}: {uri[:200]!r} is not beside the file; move it there")
        try:
            return foreign.read_bytes(self.path.parent / name)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise RenderError(
                f"{self.path}: {uri[:200]!r}, which holds a part of it, is missing; put it beside the file, or save "
                "all in one .glb"
            ) from error


def normalised(array: NDArray[Any], accessor: dict[str, Any]) -> NDArray[Any]:
    """Values of an accessor: integers that it calls normalised become float32 in [-1, 1]."""
    if accessor.get("normalized", False) and array.dtype.kind in "iu":
        return np.maximum(array.astype(np.float32) / np.iinfo(array.dtype).max, -1)
    return array


def _unpacked(data: bytes) -> tuple[bytes, bytes]:
    """JSON text and binary chunk of a .glb; a .gltf is all text."""
    if data[:4] != b"glTF":
        return data, b""
    chunks: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= len(data):
        length, kind = struct.unpack_from("<I4s", data, at)
        if at + 8 + length > len(data):
            raise ValueError("truncated")
        chunks.setdefault(kind, data[at + 8 : at + 8 + length])
        at += 8 + length
    return chunks[b"JSON"], chunks.get(b"BIN\0", b"")


def _local(node: dict[str, Any]) -> NDArray[np.float64]:
    """Matrix [4, 4] of a node: as given, or translation x rotation x scale."""
    if "matrix" in node:
        return np.asarray(node["matrix"], np.float64).reshape(4, 4).T
    x, y, z, w = np.asarray(node.get("rotation", (0, 0, 0, 1)), np.float64)
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.asarray(node.get("scale", (1, 1, 1)), np.float64).reshape(3)
    matrix[:3, 3] = np.asarray(node.get("translation", (0, 0, 0)), np.float64).reshape(3)
    return matrix
