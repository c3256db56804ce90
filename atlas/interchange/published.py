"""GaussianVerse objects as the paper's first author publishes them: a point cloud and its sphere indices.

`point_cloud` has a row of 59 numbers per Gaussian, as 3DGS stores them: x y z; opacity (logit); for red, green and
blue in turn the constant spherical harmonic and 15 of higher degree; 3 scales (log); a quaternion wxyz.
`gs2sphere` orders the rows by the sorted Fibonacci sphere. The publisher's programs disagree on its direction: the
loaders use `point_cloud[gs2sphere]`, the check of the statistics uses the inverse. So pairs are written in the
sphere's order, which reads the same in both directions, and reading tries both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.dataset_format import ALBEDO, OFFSET, QUATERNION, SCALE
from gaussianverse.atlas.errors import AtlasError, RoughAtlas
from gaussianverse.atlas.gaussians import FloatArray, Gaussians
from gaussianverse.atlas.interchange.activation import checked
from gaussianverse.atlas.interchange.ply import INVISIBLE, Floats, from_raw, raw_of
from gaussianverse.atlas.packing import check_array, lay_out
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
_HARMONICS = slice(4, 52)
MIN_SMOOTHNESS = 0.90

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """Order of Gaussians on the sphere, and the convention of the sphere indices that gave it.

    Attributes:
        rows: row of the Gaussian at each sphere point, [N].
        inverted: whether the indices give the point of each Gaussian, not the Gaussian of each point.
        sorted: whether they refer to the Gaussians sorted by x, then y, then z, not as they are listed.
        smoothness: smoothness of position of the atlas in this order.
    """

    rows: Ints
    inverted: bool
    sorted: bool
    smoothness: float


def write_pair(array: npt.ArrayLike, config: AtlasConfig | None = None) -> tuple[FloatArray, npt.NDArray[np.int32]]:
    """Convert an atlas to the published form.

    Padding is kept, with opacity logit -30, so that every object has the same number of rows.

    Args:
        array: [size, size, 16].
        config: configuration of the atlas; defaults to `AtlasConfig()`.

    Returns:
        point_cloud, float32 [size^2, 59], in the sphere's order; gs2sphere, int32 [size^2], 0, 1, 2, ...

    Raises:
        AtlasError: a wrong shape, NaN or infinity, or a layout that is not the published one.
    """
    config = config or AtlasConfig()
    if config.layout != "fibonacci":
        raise AtlasError(
            f"the published form needs layout fibonacci, and this atlas has layout {config.layout}: pack its "
            "Gaussians with layout fibonacci first"
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


def read_raw_point_cloud(point_cloud: npt.ArrayLike, *, activated: str = "auto") -> dict[str, Floats]:
    """Values of a published point cloud before activation, in its order; see `ply.read_raw`.

    Raises:
        AtlasError: `point_cloud` is not [N, 59] of floats, or `activated` is wrong.
    """
    values = np.asarray(point_cloud)
    if values.ndim != 2 or values.shape[1] != COLUMNS or not np.issubdtype(values.dtype, np.floating):
        raise AtlasError(
            f"a published point cloud has shape [N, {COLUMNS}] of floats, got {values.dtype} {values.shape}"
        )
    raw = checked({name: values[:, columns].astype(np.float64) for name, columns in _OF.items()}, activated)
    harmonics = values[:, _HARMONICS].astype(np.float64).reshape(len(values), 3, -1).swapaxes(1, 2)
    return raw | {"rest": harmonics[:, 1:]}


def read_point_cloud(point_cloud: npt.ArrayLike) -> Gaussians:
    """Gaussians of a published point cloud in the colours of their constant harmonic; as `read_raw_point_cloud`."""
    return from_raw(read_raw_point_cloud(point_cloud))


def visible(gaussians: Gaussians) -> npt.NDArray[np.bool_]:
    """Mask of the Gaussians that are not padding, [M]."""
    return gaussians.opacities > INVISIBLE


def find_order(gaussians: Gaussians, gs2sphere: npt.ArrayLike, config: AtlasConfig | None = None) -> Order:
    """Try sphere indices in both directions and for both orders of the Gaussians, and return the smoothest.

    Rows that lie in the order of the cells already are recognised too.

    Args:
        gaussians: size^2 Gaussians, as published.
        gs2sphere: a permutation, [size^2].
        config: size, sphere and plane; defaults to `AtlasConfig()`.

    Raises:
        AtlasError: the number of Gaussians or indices is wrong, or the indices are not a permutation.
        RoughAtlas: all orders have a smoothness of position below 0.90, which every fit of an object exceeds.
    """
    config = config or AtlasConfig()
    given, count = np.asarray(gs2sphere), config.size**2
    if len(gaussians) != count or given.shape != (count,) or not np.issubdtype(given.dtype, np.integer):
        raise AtlasError(
            f"an atlas of size {config.size} needs {count} Gaussians and {count} integer sphere indices, got "
            f"{len(gaussians)} and {given.dtype} {given.shape}"
        )
    direct = given.astype(np.int64)
    if not np.array_equal(np.sort(direct), np.arange(count)):
        raise AtlasError(f"sphere indices are not a permutation of 0 to {count - 1}")
    x, y, z = gaussians.means.T
    by_position = np.lexsort((z, y, x))
    # rows in the order of the cells, as in shards of a fork, whatever the indices say
    by_cell = np.argsort(plane_of(config))
    found = [Order(by_cell, False, False, _smoothness(gaussians, by_cell, config))]
    for inverted in (False, True):
        rows = np.argsort(direct) if inverted else direct
        for is_sorted in (False, True):
            candidate = by_position[rows] if is_sorted else rows
            found.append(Order(candidate, inverted, is_sorted, _smoothness(gaussians, candidate, config)))
    best = max(found, key=lambda order: order.smoothness)
    if not best.smoothness >= MIN_SMOOTHNESS:
        raise RoughAtlas(
            f"the sphere indices do not belong to these Gaussians: in both directions and for both orders, "
            f"smoothness is at most {best.smoothness:.3f}, expected at least {MIN_SMOOTHNESS:.2f}"
        )
    return best


def _smoothness(gaussians: Gaussians, rows: Ints, config: AtlasConfig) -> float:
    placed = gaussians[rows[plane_of(config)]]
    live = visible(placed)
    return smoothness(placed[live], np.argwhere(live.reshape(config.size, config.size))).position


def atlas_of(gaussians: Gaussians, order: Order, config: AtlasConfig | None = None) -> FloatArray:
    """Atlas of a published pair, by the pair's own transport, which has no certificate.

    Args:
        gaussians: the Gaussians as published.
        order: their order, from `find_order`.
        config: as for `find_order`.

    Returns:
        float32 [size, size, 16].
    """
    config = config or AtlasConfig()
    placed = gaussians[order.rows[plane_of(config)]]
    return lay_out(placed, visible(placed), points_of(config))
