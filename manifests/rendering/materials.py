"""The look of a glTF primitive: base colour, transparency, emission; what is left out is noted by name."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaussianverse.manifests.errors import RenderError
from gaussianverse.manifests.rendering.gltf import Gltf
from gaussianverse.manifests.rendering.parts import Texture

# Properties that change a look which does not depend on the view, and are not drawn.
_LEFT_OUT = ("normalTexture", "occlusionTexture")
# Extensions that add highlights, or let light through; the base colour is drawn as if they were not there.
_LEFT_OUT_EXTENSIONS = (
    "KHR_materials_anisotropy",
    "KHR_materials_clearcoat",
    "KHR_materials_diffuse_transmission",
    "KHR_materials_dispersion",
    "KHR_materials_ior",
    "KHR_materials_iridescence",
    "KHR_materials_sheen",
    "KHR_materials_specular",
    "KHR_materials_transmission",
    "KHR_materials_volume",
)

_Read = Callable[[str], NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Look:
    """What colours the n vertices of a primitive; as in `parts.Part`."""

    colors: NDArray[np.float32]
    base: Texture | None
    cutoff: float | None
    emissive: tuple[float, float, float]
    emission: Texture | None
    unlit: bool

    @staticmethod
    def repeated(texture: Texture | None, count: int) -> Texture | None:
        """The texture on `count` copies of the primitive."""
        return texture and replace(texture, uv=np.tile(texture.uv, (count, 1)))


def look_of(gltf: Gltf, primitive: dict[str, Any], attribute: _Read, n: int) -> Look:
    """The look of a primitive with `n` vertices, whose attributes `attribute` reads by name."""
    material = gltf.item("materials", primitive["material"]) if "material" in primitive else {}
    extensions = material.get("extensions", {})
    gltf.left_out.update(name for name in _LEFT_OUT if name in material)
    gltf.left_out.update(name for name in _LEFT_OUT_EXTENSIONS if name in extensions)
    names = primitive["attributes"]
    factor, info = _base_color(material)
    colors = _vertex_colors(attribute("COLOR_0") if "COLOR_0" in names else None, n)
    strength = float(extensions.get("KHR_materials_emissive_strength", {}).get("emissiveStrength", 1))
    emissive = strength * np.asarray(material.get("emissiveFactor", (0, 0, 0)), np.float64).reshape(3)
    emission = material.get("emissiveTexture")
    cutoffs = {"OPAQUE": 0.0, "MASK": float(material.get("alphaCutoff", 0.5)), "BLEND": None}
    return Look(
        colors * np.asarray(factor, np.float32).reshape(4).clip(0, 1),
        None if info is None else _texture(gltf, names, attribute, info, n),
        cutoffs[material.get("alphaMode", "OPAQUE")],
        (float(emissive[0]), float(emissive[1]), float(emissive[2])),
        _texture(gltf, names, attribute, emission, n) if emission is not None and emissive.any() else None,
        "KHR_materials_unlit" in extensions,
    )


def _base_color(material: dict[str, Any]) -> tuple[Any, dict[str, Any] | None]:
    """Base colour of a material: linear RGBA factor, and the reference to its texture or None."""
    gloss = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness")
    if gloss is not None:
        return gloss.get("diffuseFactor", (1, 1, 1, 1)), gloss.get("diffuseTexture")
    pbr = material.get("pbrMetallicRoughness", {})
    return pbr.get("baseColorFactor", (1, 1, 1, 1)), pbr.get("baseColorTexture")


def _vertex_colors(given: NDArray[Any] | None, n: int) -> NDArray[np.float32]:
    """Vertex colours, linear RGBA [n, 4] in 0..1; white if the file has none."""
    colors = np.ones((n, 4), np.float32)
    if given is not None:
        if given.shape not in ((n, 3), (n, 4)) or given.dtype.kind != "f":
            raise ValueError(f"COLOR_0 is {given.dtype} {list(given.shape)}, neither float nor normalised")
        colors[:, : given.shape[1]] = np.clip(given, 0, 1)
    return colors


def _texture(gltf: Gltf, names: dict[str, int], attribute: _Read, info: dict[str, Any], n: int) -> Texture:
    """The texture that a material refers to, at the vertices' coordinates."""
    transform = info.get("extensions", {}).get("KHR_texture_transform", {})
    name = f"TEXCOORD_{transform.get('texCoord', info.get('texCoord', 0))}"
    if name not in names:
        raise RenderError(f"{gltf.path}: a textured mesh has no {name}, so its colours are unknown")
    uv = attribute(name).astype(np.float64)
    if uv.shape != (n, 2):
        raise ValueError(f"{name} has shape {list(uv.shape)}, expected {[n, 2]}")
    angle = float(transform.get("rotation", 0))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    uv = uv * transform.get("scale", (1, 1)) @ turn.T + transform.get("offset", (0, 0))
    lower_left = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1).astype(np.float32)  # glTF's origin is the upper left
    wrap, nearest = gltf.sampling(info["index"])
    return Texture(gltf.image(info["index"]), lower_left, wrap, nearest)
