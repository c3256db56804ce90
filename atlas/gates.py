"""What an atlas must pass before it is kept; each gate returns its number or raises with it.

An atlas whose permutation was applied the wrong way round unpacks without a fault. Two gates find that out, one
for each permutation: `transported` compares what the offsets cost with what the proven transport costs, and
`smooth` asks whether the sphere points behind neighbouring cells are neighbours (`atlas.smoothness.unrolled`).
Neither depends on the object; why the smoothness of the object itself does not do: docs/atlas-gates.md.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.errors import AtlasError, RoughAtlas, TransportFailed
from gaussianverse.atlas.gaussians import FloatArray, Gaussians
from gaussianverse.atlas.transport.solver import MAX_REL_GAP, Assignment

MAX_ROUND_TRIP_ERROR = 1e-6
MAX_NORM_ERROR = 1e-5
# Offsets are float32, so their squares sum to the cost of the transport to about 1e-7 of it.
MAX_COST_ERROR = 1e-6


def check(array: FloatArray, transport: Assignment, n_gaussians: int) -> None:
    """Run every gate on the array of an atlas [size, size, 16] that holds n_gaussians; the first failure raises."""
    cells = array.reshape(-1, array.shape[-1])
    finite(cells)
    equal_opacities(cells)
    opacity_range(cells[:, 3])
    albedo_range(cells[:, 4:7])
    positive_scales(cells[:, 8:11])
    unit_quaternions(cells[:, 12:16])
    padding_count(cells[:, 3], len(cells) - n_gaussians)
    certified(transport)
    transported(cells, transport)


def check_gaussians(gaussians: Gaussians) -> None:
    """Refuse Gaussians that no atlas could hold: the same ranges, and no opacity 0, which would mean padding."""
    opacity_range(gaussians.opacities)
    _no_row("opacity is not above 0, which means padding", gaussians.opacities <= 0, gaussians.opacities)
    albedo_range(gaussians.colors)
    positive_scales(gaussians.scales)
    unit_quaternions(gaussians.quats)


def _no_row(fault: str, bad: npt.NDArray[np.bool_], values: FloatArray) -> None:
    rows = np.asarray(bad.reshape(len(bad), -1).any(axis=1))
    if rows.any():
        row = int(rows.argmax())
        raise AtlasError(f"{fault}: row {row} of {len(rows)} has {values[row]} ({int(rows.sum())} such rows)")


def finite(values: FloatArray) -> int:
    """No NaN and no infinity; the number of values that were looked at."""
    _no_row("not finite", ~np.isfinite(values), values)
    return int(values.size)


def equal_opacities(cells: FloatArray) -> float:
    """The three copies of opacity are one value; their largest difference, 0."""
    copies = cells[:, (3, 7, 11)]
    spread = np.ptp(copies, axis=1)
    _no_row("opacity copies differ", spread > 0, copies)
    return float(spread.max())


def opacity_range(opacities: FloatArray) -> float:
    """Opacity in [0, 1]; the largest."""
    _no_row("opacity is outside [0, 1]", (opacities < 0) | (opacities > 1), opacities)
    return float(opacities.max())


def albedo_range(colors: FloatArray) -> float:
    """Albedo in [0, 1]; the largest."""
    _no_row("albedo is outside [0, 1]", (colors < 0) | (colors > 1), colors)
    return float(colors.max())


def positive_scales(scales: FloatArray) -> float:
    """Scale above 0; the least."""
    _no_row("scale is not above 0", scales <= 0, scales)
    return float(scales.min())


def unit_quaternions(quats: FloatArray) -> float:
    """Quaternions of norm 1 within 1e-5 and w >= 0; the largest error of a norm."""
    error = np.abs(np.linalg.norm(quats.astype(np.float64), axis=1) - 1.0)
    _no_row(
        "quaternion is not of norm 1 (atlas.gaussians.canonical_quats mends it)",
        error > MAX_NORM_ERROR,
        quats,
    )
    _no_row("quaternion has w < 0 (atlas.gaussians.canonical_quats mends it)", quats[:, 0] < 0, quats)
    return float(error.max())


def padding_count(opacities: FloatArray, expected: int) -> int:
    """As many invisible cells as were padded; that number."""
    found = int((opacities == 0).sum())
    if found != expected:
        raise AtlasError(f"{found} cells are invisible, {expected} were padded")
    return found


def certified(transport: Assignment) -> float:
    """The transport is proven optimal; its relative duality gap."""
    if not transport.rel_gap <= MAX_REL_GAP:
        raise TransportFailed(f"relative duality gap {transport.rel_gap:.3g} is above {MAX_REL_GAP:g}")
    return transport.rel_gap


def transported(cells: FloatArray, transport: Assignment) -> float:
    """Every Gaussian stands at the sphere point of its transport: the offsets cost as much; relative error."""
    moved = cells if len(transport.indices) == len(cells) else cells[cells[:, 3] > 0]
    cost = float((moved[:, :3].astype(np.float64) ** 2).sum())
    error = abs(cost - transport.primal) / transport.primal if cost != transport.primal else 0.0
    if not error <= MAX_COST_ERROR:
        raise RoughAtlas(
            f"the offsets cost {cost:.6g} and their transport {transport.primal:.6g}: Gaussians are not at their "
            "sphere points, as when the transport's indices are applied the wrong way round"
        )
    return error


def storable(array: FloatArray, dtype: str) -> float:
    """No value is beyond the range of the dtype in which it will be stored; the largest magnitude."""
    cells = array.reshape(-1, array.shape[-1])
    _no_row(f"a value is too large for {dtype}", np.abs(cells) > np.finfo(dtype).max, cells)
    return float(np.abs(cells).max())


def round_trip(unpacked: Gaussians, expected: Gaussians) -> float:
    """Unpacking gives the Gaussians back within 1e-6, relative to values above 1; the largest error."""
    if len(unpacked) != len(expected):
        raise AtlasError(f"{len(expected)} Gaussians went in and {len(unpacked)} come out")
    worst = 0.0
    for field in fields(expected):
        before = getattr(expected, field.name).astype(np.float64)
        error = np.abs(getattr(unpacked, field.name) - before) / np.maximum(1.0, np.abs(before))
        _no_row(f"{field.name} came back by more than 1e-6 changed", error > MAX_ROUND_TRIP_ERROR, error)
        worst = max(worst, float(error.max(initial=0.0)))
    return worst


def smooth(unrolled: float, least: float) -> float:
    """The sphere lies unrolled behind the cells; the smoothness of its points."""
    if not unrolled >= least:
        raise RoughAtlas(
            f"the sphere points behind the cells have smoothness {unrolled:.3f}, at least {least:.2f} is needed: "
            "neighbours are torn apart, as when the sphere is not sorted or the plane indices are inverted"
        )
    return unrolled
