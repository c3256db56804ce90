"""3D Gaussians as the PLY that the original 3DGS writes and every viewer of splats opens.

Properties: x y z, nx ny nz (zero), f_dc_0..2, opacity (logit), scale_0..2 (log), rot_0..3 (wxyz), all float32,
binary little-endian. Other properties, f_rest of view-dependent colour among them, are ignored when reading.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from atlas.errors import AtlasError
from atlas.gaussians import Gaussians, canonical_quats

# value of the constant spherical harmonic, 1 / (2 sqrt(pi))
SH_C0 = 0.28209479177387814

_GROUPS = {
    "means": ("x", "y", "z"),
    "normals": ("nx", "ny", "nz"),
    "colors": ("f_dc_0", "f_dc_1", "f_dc_2"),
    "opacities": ("opacity",),
    "scales": ("scale_0", "scale_1", "scale_2"),
    "quats": ("rot_0", "rot_1", "rot_2", "rot_3"),
}
_COLUMNS = [name for names in _GROUPS.values() for name in names]
_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "<i2", "int16": "<i2",
    "ushort": "<u2", "uint16": "<u2", "int": "<i4", "int32": "<i4", "uint": "<u4", "uint32": "<u4",
    "float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8",
}  # fmt: skip
_MAX_HEADER = 64 << 10
# logit(1) is infinite; the largest float32 below 1 stands for it
_MAX_OPACITY = float(np.nextafter(np.float32(1), np.float32(0)))

Floats = npt.NDArray[np.float64]


def write_ply(gaussians: Gaussians) -> bytes:
    """The PLY file; the same Gaussians always give the same bytes. An opacity of 1 is written as 1 - 6e-8."""
    opacities = np.minimum(gaussians.opacities.astype(np.float64), _MAX_OPACITY)
    groups: dict[str, npt.NDArray[np.floating]] = {
        "means": gaussians.means,
        "normals": np.zeros_like(gaussians.means),
        "colors": (gaussians.colors.astype(np.float64) - 0.5) / SH_C0,
        "opacities": (np.log(opacities) - np.log1p(-opacities))[:, None],
        "scales": np.log(gaussians.scales.astype(np.float64)),
        "quats": gaussians.quats,
    }
    table = np.hstack([groups[name] for name in _GROUPS]).astype("<f4")
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(gaussians)}"]
    header += [f"property float {name}" for name in _COLUMNS]
    return "\n".join([*header, "end_header", ""]).encode() + table.tobytes()


def read_ply(data: bytes) -> Gaussians:
    """Read a PLY of splats, ours or another's.

    Colours outside [0, 1], which view-dependent fits have, are clipped; quaternions are made canonical.

    Raises:
        AtlasError: not a binary little-endian PLY, a property is missing, the file is cut short, or a value is
            not finite.
    """
    columns, count, start = _header(data)
    row, there = np.dtype(columns), dict(columns)
    needed = [name for group, names in _GROUPS.items() if group != "normals" for name in names]
    missing = [name for name in needed if name not in there]
    if missing:
        raise AtlasError(f"not a PLY of splats: its vertices have no {', '.join(missing)}")
    if len(data) - start < count * row.itemsize:
        raise AtlasError(
            f"the PLY is cut short: {count} vertices need {count * row.itemsize} bytes, {len(data) - start} are there"
        )
    table = np.frombuffer(data, row, count, start)

    def group(name: str) -> Floats:
        return np.stack([table[column].astype(np.float64) for column in _GROUPS[name]], axis=1)

    with np.errstate(over="ignore"):
        opacities, scales = 1.0 / (1.0 + np.exp(-group("opacities")[:, 0])), np.exp(group("scales"))
    return Gaussians(
        means=group("means").astype(np.float32),
        scales=scales.astype(np.float32),
        quats=canonical_quats(group("quats")),
        opacities=opacities.astype(np.float32),
        colors=np.clip(0.5 + SH_C0 * group("colors"), 0.0, 1.0).astype(np.float32),
    )


def _header(data: bytes) -> tuple[list[tuple[str, str]], int, int]:
    """Columns of a vertex, number of vertices, and where they begin."""
    end = data.find(b"end_header", 0, _MAX_HEADER)
    start = data.find(b"\n", end) + 1
    if not data.startswith((b"ply\n", b"ply\r\n")) or end < 0 or start == 0:
        raise AtlasError("not a PLY file: no header")
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
                    count = _whole(number)
            case ["property", kind, name] if element == "vertex":
                if kind not in _TYPES or name in dict(columns):
                    raise AtlasError(f"the PLY's property {line[:80]!r} is repeated or of an unknown type")
                columns.append((name, _TYPES[kind]))
            case ["property", "list", *_] if element == "vertex":
                raise AtlasError("the PLY's vertices have a list property; splats have none")
    if count < 0:
        raise AtlasError("the PLY has no vertices")
    return columns, count, start


def _whole(number: str) -> int:
    if not number.isdecimal():
        raise AtlasError(f"the PLY's number of vertices is {number[:40]!r}")
    return int(number)
