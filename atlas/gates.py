"""Gates that an atlas must pass; each returns the number that it measured, or raises.

An atlas whose permutation was applied inverted unpacks without an error. Two gates detect this, one for each
permutation: `transported` compares the cost of the offsets with the cost of the proven transport, and `smooth`
tests whether the sphere points of neighbouring cells are neighbours (`atlas.smoothness.unrolled`). Neither
depends on the object; docs/atlas-gates.md says why the smoothness of the object itself is not enough.
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
# Offsets are float32, so the sum of their squares equals the cost of the transport to about 1e-7 of it.
MAX_COST_ERROR = 1e-6


def check(array: FloatArray, transport: Assignment, n_gaussians: int) -> None:
    """Run every gate on an atlas [size, size, 16] that holds n_gaussians; the first failure raises."""
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
    """Refuse Gaussians with values outside the ranges of an atlas, or with opacity 0, which marks padding."""
    opacity_range(gaussians.opacities)
    _refuse_rows("opacity is 0, which marks padding", gaussians.opacities <= 0, gaussians.opacities)
    albedo_range(gaussians.colors)
    positive_scales(gaussians.scales)
    unit_quaternions(gaussians.quats)


def _refuse_rows(problem: str, bad: npt.NDArray[np.bool_], values: FloatArray) -> None:
    rows = np.asarray(bad.reshape(len(bad), -1).any(axis=1))
    if rows.any():
        row = int(rows.argmax())
        raise AtlasError(f"{problem}: row {row} of {len(rows)} has {values[row]} ({int(rows.sum())} such rows)")


def finite(values: FloatArray) -> int:
    """Require values without NaN and infinity; returns their number."""
    _refuse_rows("not finite", ~np.isfinite(values), values)
    return int(values.size)


def equal_opacities(cells: FloatArray) -> float:
    """Require three equal copies of opacity; returns their largest difference, 0."""
    copies = cells[:, (3, 7, 11)]
    spread = np.ptp(copies, axis=1)
    _refuse_rows("opacity copies differ", spread > 0, copies)
    return float(spread.max())


def opacity_range(opacities: FloatArray) -> float:
    """Require opacity in [0, 1]; returns the largest."""
    _refuse_rows("opacity is outside [0, 1]", (opacities < 0) | (opacities > 1), opacities)
    return float(opacities.max())


def albedo_range(colors: FloatArray) -> float:
    """Require albedo in [0, 1]; returns the largest value."""
    _refuse_rows("albedo is outside [0, 1]", (colors < 0) | (colors > 1), colors)
    return float(colors.max())


def positive_scales(scales: FloatArray) -> float:
    """Require scales above 0; returns the smallest."""
    _refuse_rows("scale is not above 0", scales <= 0, scales)
    return float(scales.min())


def unit_quaternions(quats: FloatArray) -> float:
    """Require quaternions with a norm of 1 within 1e-5 and w >= 0; returns the largest error of the norm."""
    error = np.abs(np.linalg.norm(quats.astype(np.float64), axis=1) - 1.0)
    _refuse_rows("quaternion is not of norm 1 (use atlas.gaussians.canonical_quats)", error > MAX_NORM_ERROR, quats)
    _refuse_rows("quaternion has w < 0 (use atlas.gaussians.canonical_quats)", quats[:, 0] < 0, quats)
    return float(error.max())


def padding_count(opacities: FloatArray, expected: int) -> int:
    """Require as many invisible cells as were padded; returns their number."""
    found = int((opacities == 0).sum())
    if found != expected:
        raise AtlasError(f"{found} cells are invisible, {expected} were padded")
    return found


def certified(transport: Assignment) -> float:
    """Require a proof that the transport is optimal; returns its relative duality gap."""
    if not transport.rel_gap <= MAX_REL_GAP:
        raise TransportFailed(f"relative duality gap {transport.rel_gap:.3g} is above {MAX_REL_GAP:g}")
    return transport.rel_gap


def transported(cells: FloatArray, transport: Assignment) -> float:
    """Require offsets that cost what the transport costs; returns the relative error of the cost."""
    moved = cells if len(transport.indices) == len(cells) else cells[cells[:, 3] > 0]
    cost = float((moved[:, :3].astype(np.float64) ** 2).sum())
    error = abs(cost - transport.primal) / transport.primal if cost != transport.primal else 0.0
    if not error <= MAX_COST_ERROR:
        raise RoughAtlas(
            f"the offsets cost {cost:.6g} and their transport {transport.primal:.6g}: Gaussians are not at their "
            "sphere points, for instance because the transport's indices were applied inverted"
        )
    return error


def storable(array: FloatArray, dtype: str) -> float:
    """Require values within the range of the stored dtype; returns the largest magnitude."""
    cells = array.reshape(-1, array.shape[-1])
    _refuse_rows(f"a value is too large for {dtype}", np.abs(cells) > np.finfo(dtype).max, cells)
    return float(np.abs(cells).max())


def round_trip(unpacked: Gaussians, expected: Gaussians) -> float:
    """Require that Gaussians change by at most 1e-6, relative for values above 1; returns the largest change."""
    if len(unpacked) != len(expected):
        raise AtlasError(f"{len(expected)} Gaussians were packed, {len(unpacked)} unpacked")
    worst = 0.0
    for field in fields(expected):
        before = getattr(expected, field.name).astype(np.float64)
        error = np.abs(getattr(unpacked, field.name) - before) / np.maximum(1.0, np.abs(before))
        _refuse_rows(f"{field.name} changed by more than 1e-6 in the round trip", error > MAX_ROUND_TRIP_ERROR, error)
        worst = max(worst, float(error.max(initial=0.0)))
    return worst


def smooth(unrolled: float, least: float) -> float:
    """Require that the cells unroll the sphere; returns the smoothness of its points."""
    if not unrolled >= least:
        raise RoughAtlas(
            f"the sphere points of the cells have smoothness {unrolled:.3f}, expected at least {least:.2f}: "
            "neighbouring cells are far apart on the sphere, for instance because the sphere is not sorted or the "
            "plane indices are inverted"
        )
    return unrolled
