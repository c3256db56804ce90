"""Packing of Gaussians into an atlas, and unpacking (paper sections 4 and 5)."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas import gates
from gaussianverse.atlas.arrays import npy
from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.dataset_format import ALBEDO, CHANNELS, OFFSET, OPACITY_COPIES, QUATERNION, SCALE
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import FloatArray, Gaussians
from gaussianverse.atlas.padding import place, prune
from gaussianverse.atlas.plane import plane_of
from gaussianverse.atlas.smoothness import smoothness, unrolled
from gaussianverse.atlas.sphere import sphere_of

_ANY_SIGN = (0, 1, 2, 4, 5, 6, 12, 13, 14, 15)

# Smoothness needs neighbours; no real object has fewer Gaussians.
MIN_GAUSSIANS = 8


@dataclass(frozen=True)
class Atlas:
    """An atlas, the source of each cell, and statistics.

    Attributes:
        array: float32 [size, size, 16]: offset to the sphere point 3, opacity; albedo 3, opacity; scale 3,
            opacity; quaternion wxyz 4. Activated values, as in `Gaussians`.
        source: int64 [size, size], row of each cell's Gaussian among the packed Gaussians; -1 for padding.
        stats: flat values for a record: n_gaussians (in the atlas), n_padded, n_dropped, transport_cost,
            transport_gap, transport_seconds (CPU, including padding), smoothness (of position),
            smoothness_appearance, smoothness_unrolled, round_trip_error, and pad, layout, dtype, size.
    """

    array: FloatArray
    source: npt.NDArray[np.int64]
    stats: dict[str, float | int | str]

    def to_bytes(self) -> bytes:
        """Encode the array as a .npy file in the configured dtype; equal atlases give equal bytes."""
        return npy(rounded(self.array, str(self.stats["dtype"])))


def rounded(array: FloatArray, dtype: str) -> npt.NDArray[np.floating[Any]]:
    """The channels [..., 16] of an atlas as they are stored.

    In float16 the smallest opacities and scales are rounded up instead of to 0: opacity 0 would mark a Gaussian as
    padding, and scales must be above 0.
    """
    stored = array.astype(dtype)
    vanished = (stored == 0) & (array > 0)
    vanished[..., _ANY_SIGN] = False
    stored[vanished] = np.finfo(stored.dtype).smallest_subnormal
    return stored


def pack(gaussians: Gaussians, config: AtlasConfig | None = None) -> Atlas:
    """Pack the Gaussians of one object into an atlas and run all gates on it.

    Args:
        gaussians: at least 8; above size^2 those with the smallest mean scale are dropped, as in the paper. What
            `fitter.reduce` leaves of them looks far more like all.
        config: defaults to `AtlasConfig()`.

    Raises:
        AtlasError: there are too few Gaussians, a value is out of its range (the message names the row), or a
            gate fails.
        TransportFailed: the solver could not certify its answer.
        RoughAtlas: a permutation was applied inverted, see `atlas.gates`.
    """
    config = config or AtlasConfig()
    if len(gaussians) < MIN_GAUSSIANS:
        raise AtlasError(f"an atlas needs at least {MIN_GAUSSIANS} Gaussians, got {len(gaussians)}")
    gates.check_gaussians(gaussians)
    cells = config.size**2
    kept = prune(gaussians, cells)
    chosen = gaussians[kept]
    sphere, plane = sphere_of(config), plane_of(config)

    started = time.thread_time()
    placement = place(chosen, sphere, config.pad)
    seconds = time.thread_time() - started

    source, live, points = placement.source[plane], placement.live[plane], sphere[plane]
    array = lay_out(chosen[source], live, points)

    gates.check(array, placement.transport, len(chosen))
    gates.storable(array, config.dtype)
    expected = chosen[source[live]]
    unpacked = unpack(array, config)
    measured = smoothness(unpacked, np.argwhere(live.reshape(config.size, config.size)))
    # the sphere points that the array implies, means less offsets, not those that were meant to be used
    behind = chosen.means[source].reshape(config.size, config.size, 3) - array[..., OFFSET]
    stats: dict[str, float | int | str] = {
        "n_gaussians": len(chosen),
        "n_padded": cells - len(chosen),
        "n_dropped": len(gaussians) - len(chosen),
        "transport_cost": placement.transport.primal,
        "transport_gap": placement.transport.rel_gap,
        "transport_seconds": seconds,
        "smoothness": measured.position,
        "smoothness_appearance": measured.appearance,
        "smoothness_unrolled": gates.smooth(unrolled(behind), config.min_smoothness),
        "round_trip_error": gates.round_trip(unpacked, expected),
        "size": config.size,
        "pad": config.pad,
        "layout": config.layout,
        "dtype": config.dtype,
    }
    cell_source = np.where(live, kept[source], -1).reshape(config.size, config.size)
    return Atlas(array, cell_source, stats)


def lay_out(gaussians: Gaussians, live: npt.NDArray[np.bool_], points: npt.NDArray[np.float64]) -> FloatArray:
    """Write the channels of an atlas whose cell k, row by row, holds Gaussian k.

    Args:
        gaussians: size^2 Gaussians.
        live: False for padding, whose opacity becomes 0, [size^2].
        points: sphere point of each cell, [size^2, 3].

    Returns:
        float32 [size, size, 16].
    """
    size = math.isqrt(len(gaussians))
    return channels_of(gaussians, live, points).reshape(size, size, CHANNELS)


def channels_of(gaussians: Gaussians, live: npt.NDArray[np.bool_], points: npt.NDArray[np.float64]) -> FloatArray:
    """The channels of N Gaussians at N sphere points, float32 [N, 16]; arguments as for `lay_out`."""
    flat = np.empty((len(gaussians), CHANNELS), np.float32)
    flat[:, OFFSET] = gaussians.means.astype(np.float64) - points
    flat[:, ALBEDO] = gaussians.colors
    flat[:, SCALE] = gaussians.scales
    flat[:, QUATERNION] = gaussians.quats
    flat[:, OPACITY_COPIES] = np.where(live, gaussians.opacities, 0.0)[:, None]
    return flat


def unpack(array: npt.ArrayLike, config: AtlasConfig | None = None) -> Gaussians:
    """Unpack the Gaussians of an atlas, row by row; padding (opacity 0) is left out.

    Args:
        array: [size, size, 16], float32 or float16, from `pack` or a model. Opacity is the mean of its three
            copies; other values are returned unchanged.
        config: configuration of the atlas; defaults to `AtlasConfig()`.

    Raises:
        AtlasError: a wrong shape, or NaN or infinity.
    """
    config = config or AtlasConfig()
    values = check_array(array, config)
    values = values.reshape(-1, CHANNELS)
    points = sphere_of(config)[plane_of(config)]
    opacities = values[:, OPACITY_COPIES].mean(axis=1, dtype=np.float64).astype(np.float32)
    # not `> 0`, so that Gaussians refuses NaN
    live = opacities != 0
    values = values[live]
    return Gaussians(
        means=(values[:, OFFSET] + points[live]).astype(np.float32),
        scales=values[:, SCALE],
        quats=values[:, QUATERNION],
        opacities=opacities[live],
        colors=values[:, ALBEDO],
    )


def check_array(array: npt.ArrayLike, config: AtlasConfig) -> FloatArray:
    """Check an atlas and convert it to float32 [size, size, 16].

    Raises:
        AtlasError: a wrong shape, or NaN or infinity.
    """
    values = np.asarray(array, dtype=np.float32)
    if values.shape != (config.size, config.size, CHANNELS):
        raise AtlasError(
            f"an atlas of size {config.size} has shape {(config.size, config.size, CHANNELS)}, got {values.shape}"
        )
    gates.finite(values.reshape(-1, CHANNELS))
    return values
