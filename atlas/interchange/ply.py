"""3D Gaussians as PLY files in the layout of the original 3DGS, which viewers open.

Properties: x y z, nx ny nz (zero), f_dc_0..2, f_rest (zero, optional), opacity (logit), scale_0..2 (log), rot_0..3
(wxyz), all float32, binary little-endian. Reading ignores other properties, including f_rest of view-dependent
colour.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians, canonical_quats

# the constant spherical harmonic, 1 / (2 sqrt(pi))
SH_C0 = 0.28209479177387814

_GROUPS = {
    "means": ("x", "y", "z"),
    "normals": ("nx", "ny", "nz"),
    "colors": ("f_dc_0", "f_dc_1", "f_dc_2"),
    "opacities": ("opacity",),
    "scales": ("scale_0", "scale_1", "scale_2"),
    "quats": ("rot_0", "rot_1", "rot_2", "rot_3"),
}
_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "<i2", "int16": "<i2",
    "ushort": "<u2", "uint16": "<u2", "int": "<i4", "int32": "<i4", "uint": "<u4", "uint32": "<u4",
    "float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8",
}  # fmt: skip
_MAX_HEADER = 64 << 10
# logit(1) is infinite, so opacity 1 is written as the largest float32 below 1
_MAX_OPACITY = float(np.nextafter(np.float32(1), np.float32(0)))

# Opacity 0, which marks padding, is written as this logit; opacities above 0 are written as at least _MIN_OPACITY.
# So an opacity that was read is padding below INVISIBLE.
PADDING_LOGIT = -30.0
_MIN_OPACITY = 1e-12
INVISIBLE = 1e-13

Floats = npt.NDArray[np.float64]


def write_ply(gaussians: Gaussians, *, sh_rest: int = 0) -> bytes:
    """Encode Gaussians as a PLY file; equal Gaussians give equal bytes.

    Args:
        gaussians: opacities of 1 and 0 are written as 1 - 6e-8 and 9e-14, since their logits are infinite.
        sh_rest: number of f_rest columns, all zero, after f_dc; readers of view-dependent fits need 45.
    """
    raw = raw_of(gaussians)
    raw |= {"normals": np.zeros((len(gaussians), 3)), "rest": np.zeros((len(gaussians), sh_rest))}
    names = {**_GROUPS, "rest": tuple(f"f_rest_{k}" for k in range(sh_rest))}
    groups = ("means", "normals", "colors", "rest", "opacities", "scales", "quats")
    table = np.hstack([raw[group] for group in groups]).astype("<f4")
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(gaussians)}"]
    header += [f"property float {name}" for group in groups for name in names[group]]
    return "\n".join([*header, "end_header", ""]).encode() + table.tobytes()


def read_ply(data: bytes) -> Gaussians:
    """Decode a PLY file of 3D Gaussians.

    Colours are clipped to [0, 1], which view-dependent fits exceed; quaternions are made canonical.

    Raises:
        AtlasError: `data` is not a binary little-endian PLY or is cut short, a property is missing, or a value
            is not finite.
    """
    columns, count, start = _header(data)
    row, there = np.dtype(columns), dict(columns)
    needed = [name for group, names in _GROUPS.items() if group != "normals" for name in names]
    missing = [name for name in needed if name not in there]
    if missing:
        raise AtlasError(f"not a PLY of 3D Gaussians: its vertices lack {', '.join(missing)}")
    if len(data) - start < count * row.itemsize:
        raise AtlasError(
            f"the PLY is cut short: {count} vertices need {count * row.itemsize} bytes, it has {len(data) - start}"
        )
    table = np.frombuffer(data, row, count, start)
    return from_raw(
        {
            group: np.stack([table[column].astype(np.float64) for column in names], axis=1)
            for group, names in _GROUPS.items()
            if group != "normals"
        }
    )


def raw_of(gaussians: Gaussians) -> dict[str, Floats]:
    """Values before activation, as 3DGS stores them.

    Returns:
        float64 [M, k] each: means, colors (the constant spherical harmonic), opacities (logit), scales (log), quats.
    """
    opacities = gaussians.opacities.astype(np.float64)
    inside = np.clip(opacities, _MIN_OPACITY, _MAX_OPACITY)
    logits = np.where(opacities > 0, np.log(inside) - np.log1p(-inside), PADDING_LOGIT)
    return {
        "means": gaussians.means.astype(np.float64),
        "colors": (gaussians.colors.astype(np.float64) - 0.5) / SH_C0,
        "opacities": logits[:, None],
        "scales": np.log(gaussians.scales.astype(np.float64)),
        "quats": gaussians.quats.astype(np.float64),
    }


def from_raw(raw: dict[str, Floats]) -> Gaussians:
    """Inverse of `raw_of` for any values: colours are clipped, quaternions made canonical.

    Raises:
        AtlasError: a value is not finite.
    """
    with np.errstate(over="ignore"):
        opacities, scales = 1.0 / (1.0 + np.exp(-raw["opacities"][:, 0])), np.exp(raw["scales"])
    return Gaussians(
        means=raw["means"].astype(np.float32),
        scales=scales.astype(np.float32),
        quats=canonical_quats(raw["quats"]),
        opacities=opacities.astype(np.float32),
        colors=np.clip(0.5 + SH_C0 * raw["colors"], 0.0, 1.0).astype(np.float32),
    )


def _header(data: bytes) -> tuple[list[tuple[str, str]], int, int]:
    """Columns of a vertex, number of vertices, and offset of the first in bytes."""
    end = data.find(b"end_header", 0, _MAX_HEADER)
    start = data.find(b"\n", end) + 1
    if not data.startswith((b"ply\n", b"ply\r\n")) or end < 0 or start == 0:
        raise AtlasError("not a PLY file: it has no header")
    columns: list[tuple[str, str]] = []
    count, element = -1, ""
    for line in data[:end].decode("ascii", errors="replace").splitlines()[1:]:
        match line.split():
            case ["format", kind, *_] if kind != "binary_little_endian":
                raise AtlasError(f"the PLY's format is {kind}; only binary_little_endian is read")
            case ["element", name, number]:
                if name == "vertex" and element:
                    raise AtlasError(f"the PLY's first element is {element}, expected vertex")
                element = name
                if name == "vertex":
                    count = _vertex_count(number)
            case ["property", kind, name] if element == "vertex":
                if kind not in _TYPES or name in dict(columns):
                    raise AtlasError(f"the PLY's property {line[:80]!r} is repeated or has an unknown type")
                columns.append((name, _TYPES[kind]))
            case ["property", "list", *_] if element == "vertex":
                raise AtlasError("the PLY's vertices have a list property; 3D Gaussians have none")
    if count < 0:
        raise AtlasError("the PLY has no vertices")
    return columns, count, start


def _vertex_count(number: str) -> int:
    if not number.isdecimal():
        raise AtlasError(f"the PLY's number of vertices is {number[:40]!r}, expected an integer")
    return int(number)
