"""The form in which the paper's first author publishes GaussianVerse: a point cloud, and its sphere indices.

`point_cloud` has a row of 59 numbers per Gaussian, as 3DGS stores them: x y z; opacity (logit); for red, green and
blue in turn the constant spherical harmonic and 15 of higher degree; 3 scales (log); a quaternion wxyz.
`gs2sphere` orders the rows by the sorted Fibonacci sphere. Which way it is to be read the publisher's own programs
do not agree on: the loaders take `point_cloud[gs2sphere]`, the check of the statistics takes the inverse. So what
is written here is in the sphere's order already and reads the same both ways, and what is read is tried.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.errors import AtlasError, RoughAtlas
from gaussianverse.atlas.gaussians import FloatArray, Gaussians
from gaussianverse.atlas.interchange.ply import INVISIBLE, from_raw, raw_of
from gaussianverse.atlas.packing import ALBEDO, OFFSET, QUATERNION, SCALE, check_array, lay_out
from gaussianverse.atlas.plane import plane_of, points_of
from gaussianverse.atlas.smoothness import smoothness

COLUMNS = 59
_OF = {
    "means": [0, 1, 2],
    "opacities": [3],
    # 16 harmonics of each colour, the constant one first
    "colors": [4, 20, 36],
    "scales": [52, 53, 54],
    "quats": [55, 56, 57, 58],
}
MIN_SMOOTHNESS = 0.90

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """Which Gaussian stands at which sphere point, and how that was read from the sphere indices.

    Attributes:
        rows: row of the Gaussians at each sphere point, [N].
        inverted: whether the indices give the point of each Gaussian, not the Gaussian of each point.
        sorted: whether they refer to the Gaussians sorted by x, then y, then z, not as they are listed.
        smoothness: of position, of the atlas in this order.
    """

    rows: Ints
    inverted: bool
    sorted: bool
    smoothness: float


def write_pair(
    array: npt.ArrayLike, config: AtlasConfig | None = None
) -> tuple[FloatArray, npt.NDArray[np.int32]]:
    """The published form of an atlas.

    Padding stays as it is, with opacity logit -30: every object has the same number of rows.

    Args:
        array: [size, size, 16].
        config: of the atlas; defaults to `AtlasConfig()`.

    Returns:
        point_cloud, float32 [size^2, 59], in the sphere's order; gs2sphere, int32 [size^2], 0, 1, 2, ...

    Raises:
        AtlasError: a wrong shape, NaN or infinity, or a layout that is not the published one.
    """
    config = config or AtlasConfig()
    if config.layout != "fibonacci":
        raise AtlasError(
            f"the published order is that of the Fibonacci sphere, and this atlas has layout {config.layout}: "
            "pack its Gaussians with layout fibonacci first"
        )
    cells = check_array(array, config).reshape(config.size**2, -1)
    raw = raw_of(
        Gaussians(
            means=(cells[:, OFFSET] + points_of(config)).astype(np.float32),
            scales=cells[:, SCALE],
            quats=cells[:, QUATERNION],
            opacities=cells[:, 3],
            colors=cells[:, ALBEDO],
        )
    )
    point_cloud = np.zeros((len(cells), COLUMNS), np.float32)
    plane = plane_of(config)
    for name, columns in _OF.items():
        point_cloud[plane[:, None], columns] = raw[name]
    return point_cloud, np.arange(len(cells), dtype=np.int32)


def read_point_cloud(point_cloud: npt.ArrayLike) -> Gaussians:
    """The Gaussians of a published point cloud, as they are listed; what depends on the view is left out.

    Raises:
        AtlasError: not [N, 59], or a value is not finite.
    """
    values = np.asarray(point_cloud)
    if values.ndim != 2 or values.shape[1] != COLUMNS or not np.issubdtype(values.dtype, np.floating):
        raise AtlasError(
            f"a published point cloud is [N, {COLUMNS}] of floats, got {values.dtype} {values.shape}"
        )
    return from_raw({name: values[:, columns].astype(np.float64) for name, columns in _OF.items()})


def swap_red_blue(gaussians: Gaussians) -> Gaussians:
    """The Gaussians with red and blue exchanged, as the published fits need it."""
    return replace(gaussians, colors=gaussians.colors[:, ::-1])


def visible(gaussians: Gaussians) -> npt.NDArray[np.bool_]:
    """Which Gaussians are no padding, [M]."""
    return gaussians.opacities > INVISIBLE


def find_order(gaussians: Gaussians, gs2sphere: npt.ArrayLike, config: AtlasConfig | None = None) -> Order:
    """Read sphere indices in both directions and for both orders of the Gaussians, and take the smoothest.

    Args:
        gaussians: size^2 of them, as published.
        gs2sphere: a permutation, [size^2].
        config: size, sphere and plane; defaults to `AtlasConfig()`.

    Raises:
        AtlasError: another number of either, or no permutation.
        RoughAtlas: none has a smoothness of position of 0.90, which every fit of an object has.
    """
    config = config or AtlasConfig()
    given, count = np.asarray(gs2sphere), config.size**2
    if len(gaussians) != count or given.shape != (count,) or not np.issubdtype(given.dtype, np.integer):
        raise AtlasError(
            f"an atlas of size {config.size} needs {count} Gaussians and as many sphere indices, got "
            f"{len(gaussians)} and {given.dtype} {given.shape}"
        )
    direct = given.astype(np.int64)
    if not np.array_equal(np.sort(direct), np.arange(count)):
        raise AtlasError(f"sphere indices are not a permutation of 0 to {count - 1}")
    x, y, z = gaussians.means.T
    by_position = np.lexsort((z, y, x))
    found = []
    for inverted in (False, True):
        rows = np.argsort(direct) if inverted else direct
        for is_sorted in (False, True):
            candidate = by_position[rows] if is_sorted else rows
            found.append(Order(candidate, inverted, is_sorted, _smoothness(gaussians, candidate, config)))
    # of equals the first: `max` keeps it
    best = max(found, key=lambda order: order.smoothness)
    if not best.smoothness >= MIN_SMOOTHNESS:
        raise RoughAtlas(
            f"the sphere indices are not those of these Gaussians: read in both directions and for both orders they "
            f"give a smoothness of {best.smoothness:.3f} at most, at least {MIN_SMOOTHNESS:.2f} is needed"
        )
    return best


def _smoothness(gaussians: Gaussians, rows: Ints, config: AtlasConfig) -> float:
    placed = gaussians[rows[plane_of(config)]]
    live = visible(placed)
    return smoothness(placed[live], np.argwhere(live.reshape(config.size, config.size))).position


def atlas_of(gaussians: Gaussians, order: Order, config: AtlasConfig | None = None) -> FloatArray:
    """The atlas that a published pair stands for, by its own transport, which carries no proof.

    Args:
        gaussians: as published.
        order: from `find_order`.
        config: the same as for `find_order`.

    Returns:
        float32 [size, size, 16].
    """
    config = config or AtlasConfig()
    placed = gaussians[order.rows[plane_of(config)]]
    return lay_out(placed, visible(placed), points_of(config))
