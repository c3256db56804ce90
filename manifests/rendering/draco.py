"""Draco-compressed primitives of glTF (KHR_draco_mesh_compression), read by DracoPy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaussianverse.manifests.errors import RenderError
from gaussianverse.manifests.rendering.gltf import Gltf, normalised

EXTENSION = "KHR_draco_mesh_compression"


def decoded(gltf: Gltf, primitive: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Arrays of a compressed primitive by the names of their attributes, and its `indices`; {} if there are none.

    A primitive that has its arrays uncompressed too is not decoded.

    Raises:
        RenderError: DracoPy is missing, or cannot decode the data.
    """
    entry = primitive.get("extensions", {}).get(EXTENSION)
    accessors = [gltf.item("accessors", index) for index in primitive["attributes"].values()]
    if entry is None or all("bufferView" in accessor for accessor in accessors):
        return {}
    try:
        import DracoPy
    except ImportError as error:
        raise RenderError(
            f"{gltf.path}: compressed by {EXTENSION}, which needs DracoPy: pip install 'gaussianverse[meshes]'"
        ) from error
    try:
        mesh = DracoPy.decode(gltf.view_bytes(entry["bufferView"]))
        found = {
            name: mesh.get_attribute_by_unique_id(number)["data"] for name, number in entry["attributes"].items()
        }
        arrays = {"indices": np.asarray(mesh.faces, np.uint32).reshape(-1)}
    except Exception as error:  # DracoPy raises errors of many types on untrusted bytes
        raise RenderError(f"{gltf.path}: its Draco data cannot be decoded: {error!r}; fetch it again") from error
    for name, data in found.items():
        accessor = gltf.item("accessors", primitive["attributes"][name])
        arrays[name] = normalised(np.asarray(data), accessor)
    return arrays
