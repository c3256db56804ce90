"""3D Gaussians as PLY files in the layout of the original 3DGS, which viewers open.

Properties: x y z, nx ny nz (zero), f_dc_0..2, f_rest (zero, optional), opacity (logit), scale_0..2 (log), rot_0..3
(wxyz), all float32, binary little-endian. Reading takes filter_3D of Mip-Splatting as well and ignores other
properties.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Sequence
from itertools import count, takewhile

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians, canonical_quats
from gaussianverse.atlas.interchange.activation import checked, with_filter
from gaussianverse.atlas.interchange.harmonics import MAX_DEGREE, SH_C0, ViewDependent

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
_END = re.compile(rb"(?<=\n)end_header[ \t]*\r?\n")
_FILTER = "filter_3D"
# logit(1) is infinite, so opacity 1 is written as the largest float32 below 1
_MAX_OPACITY = float(np.nextafter(np.float32(1), np.float32(0)))

# Opacity 0, which marks padding, is written as this logit; opacities above 0 are written as at least _MIN_OPACITY.
# So an opacity that was read is padding below INVISIBLE.
PADDING_LOGIT = -30.0
_MIN_OPACITY = 1e-12
INVISIBLE = 1e-13

Floats = npt.NDArray[np.float64]


def write_ply(
    gaussians: Gaussians, *, sh_rest: int = 0, center: npt.ArrayLike = (0.0, 0.0, 0.0), unit: float = 1.0
) -> bytes:
    """Encode Gaussians as a PLY file; equal Gaussians give equal bytes.

    Args:
        gaussians: opacities of 1 and 0 are written as 1 - 6e-8 and 9e-14, since their logits are infinite.
        sh_rest: number of f_rest columns, all zero, after f_dc; readers of view-dependent fits need 45.
        center: written positions are center + unit * means; they are doubles where float32 would round them by more
            than 1e-5 of the object's size.
        unit: > 0; see `center`.
    """
    raw = raw_of(gaussians)
    raw |= {"normals": np.zeros((len(gaussians), 3)), "rest": np.zeros((len(gaussians), sh_rest))}
    raw["means"] = np.asarray(center, np.float64) + unit * raw["means"]
    raw["scales"] += math.log(unit)
    names = {**_GROUPS, "rest": tuple(f"f_rest_{k}" for k in range(sh_rest))}
    groups = ("means", "normals", "colors", "rest", "opacities", "scales", "quats")
    kinds = dict.fromkeys(groups, "float") | {"means": "double" if _needs_doubles(raw["means"]) else "float"}
    row = np.dtype([(name, _TYPES[kinds[group]]) for group in groups for name in names[group]])
    table = np.empty(len(gaussians), row)
    for group in groups:
        for column, name in enumerate(names[group]):
            table[name] = raw[group][:, column]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(gaussians)}"]
    header += [f"property {kinds[group]} {name}" for group in groups for name in names[group]]
    return "\n".join([*header, "end_header", ""]).encode() + table.tobytes()


def _needs_doubles(means: Floats) -> bool:
    """Whether float32 rounds positions by more than 1e-5 of their extent."""
    if not len(means):
        return False
    extent = float(np.ptp(means, axis=0).max())
    return extent > 0 and float(np.spacing(np.abs(means).max().astype(np.float32))) > 1e-5 * extent


def read_ply(data: bytes) -> Gaussians:
    """Decode a PLY file of 3D Gaussians in the colours of their constant harmonic; see `read_view_dependent`."""
    return read_view_dependent(data).gaussians


def read_view_dependent(data: bytes, *, activated: str = "auto") -> ViewDependent:
    """Decode a PLY file of 3D Gaussians with their spherical harmonics.

    The 3D filter of Mip-Splatting is applied; quaternions are made canonical.

    Args:
        data: the file.
        activated: whether its opacities and scales are activated already, see `activation.ACTIVATED`.

    Raises:
        AtlasError: `data` is not a binary little-endian PLY or is cut short, a property is missing, a value is not
            finite, or `activated` is wrong.
    """
    return from_raw_harmonics(read_raw(data, activated=activated))


def read_raw(data: bytes, *, activated: str = "auto") -> dict[str, Floats]:
    """Decode the values before activation, as `raw_of` gives them, and "rest", [M, K - 1, 3].

    Positions keep the precision of the file. Arguments and errors are those of `read_view_dependent`.
    """
    columns, n_rows, start = _header(data)
    row, there = np.dtype(columns), dict(columns)
    needed = [name for group, names in _GROUPS.items() if group != "normals" for name in names]
    missing = [name for name in needed if name not in there]
    if missing:
        raise AtlasError(f"not a PLY of 3D Gaussians: its vertices lack {', '.join(missing)}")
    if len(data) - start < n_rows * row.itemsize:
        raise AtlasError(
            f"the PLY is cut short: {n_rows} vertices need {n_rows * row.itemsize} bytes, it has {len(data) - start}"
        )
    table = np.frombuffer(data, row, n_rows, start)

    def stacked(names: Sequence[str]) -> Floats:
        return np.stack([table[name].astype(np.float64) for name in names], axis=1)

    raw = checked({group: stacked(names) for group, names in _GROUPS.items() if group != "normals"}, activated)
    if _FILTER in there:
        raw = with_filter(raw, table[_FILTER].astype(np.float64))
    rest = _rest_columns(there)
    # all of red first, then green, then blue
    return raw | {"rest": stacked(rest).reshape(n_rows, 3, -1).swapaxes(1, 2) if rest else np.zeros((n_rows, 0, 3))}


def _rest_columns(there: Container[str]) -> list[str]:
    """Names of the columns of view-dependent colour."""
    rest = list(takewhile(there.__contains__, (f"f_rest_{k}" for k in count(0))))
    allowed = [3 * ((degree + 1) ** 2 - 1) for degree in range(MAX_DEGREE + 1)]
    if len(rest) not in allowed:
        raise AtlasError(
            f"the PLY has {len(rest)} columns f_rest, expected {', '.join(map(str, allowed))} (spherical harmonics "
            f"up to degree {MAX_DEGREE}); export it with such a degree"
        )
    return rest


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
    # what overflows is infinite, and refused with its row
    with np.errstate(over="ignore", invalid="ignore"):
        opacities, scales = 1.0 / (1.0 + np.exp(-raw["opacities"][:, 0])), np.exp(raw["scales"])
        return Gaussians(
            means=raw["means"].astype(np.float32),
            scales=scales.astype(np.float32),
            quats=canonical_quats(raw["quats"]),
            opacities=opacities.astype(np.float32),
            colors=np.clip(0.5 + SH_C0 * raw["colors"], 0.0, 1.0).astype(np.float32),
        )


def from_raw_harmonics(raw: dict[str, Floats]) -> ViewDependent:
    """Gaussians with the view-dependent colour of "colors" and "rest"; see `read_raw`.

    Raises:
        AtlasError: a value is not finite.
    """
    return ViewDependent(from_raw(raw), np.concatenate([raw["colors"][:, None], raw["rest"]], axis=1))


def _header(data: bytes) -> tuple[list[tuple[str, str]], int, int]:
    """Columns of a vertex, number of vertices, and offset of the first in bytes."""
    if not data.startswith((b"ply\n", b"ply\r\n")):
        raise AtlasError("not a PLY file: it has no header")
    # a line of its own, since a comment may hold the word
    ended = _END.search(data, 0, _MAX_HEADER)
    if ended is None:
        raise AtlasError(f"not a PLY file: it has no header, or one of more than {_MAX_HEADER} bytes")
    end, start = ended.span()
    columns: list[tuple[str, str]] = []
    n_rows, element = -1, ""
    for line in data[:end].decode("ascii", errors="replace").splitlines()[1:]:
        match line.split():
            case ["format", kind, *_] if kind != "binary_little_endian":
                raise AtlasError(f"the PLY's format is {kind}; only binary_little_endian is read")
            case ["element", name, number]:
                if name == "chunk" and not element:
                    raise AtlasError(
                        "this is a compressed PLY of SuperSplat; convert it to a plain PLY first, for instance with "
                        "PlayCanvas' splat-transform"
                    )
                if name == "vertex" and element:
                    raise AtlasError(f"the PLY's first element is {element}, expected vertex")
                element = name
                if name == "vertex":
                    n_rows = _vertex_count(number)
            case ["property", kind, name] if element == "vertex":
                if kind not in _TYPES or name in dict(columns):
                    raise AtlasError(f"the PLY's property {line[:80]!r} is repeated or has an unknown type")
                columns.append((name, _TYPES[kind]))
            case ["property", "list", *_] if element == "vertex":
                raise AtlasError("the PLY's vertices have a list property; 3D Gaussians have none")
    if n_rows < 0:
        raise AtlasError("the PLY has no vertices")
    return columns, n_rows, start


def _vertex_count(number: str) -> int:
    if not number.isdecimal() or len(number) > 18:
        raise AtlasError(f"the PLY's number of vertices is {number[:40]!r}, expected an integer")
    return int(number)
