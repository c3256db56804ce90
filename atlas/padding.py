"""Assignment of Gaussians to sphere points: surplus Gaussians are dropped, empty points get invisible duplicates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.transport.solver import Assignment, assign

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Placement:
    """The Gaussian at each of the N sphere points.

    Attributes:
        source: row of the Gaussian at each sphere point, [N] int64.
        live: False where it is a duplicate with opacity 0, [N].
        transport: the assignment of the Gaussians, with its certificate.
    """

    source: Ints
    live: Bools
    transport: Assignment


def prune(gaussians: Gaussians, count: int) -> Ints:
    """Rows of the `count` Gaussians with the largest mean scale, ascending; ties keep the first (paper B.1)."""
    if len(gaussians) <= count:
        return np.arange(len(gaussians))
    order = np.argsort(-_mean_scales(gaussians), kind="stable")
    return np.sort(order[:count])


def duplicates(gaussians: Gaussians, count: int) -> Ints:
    """Rows of `count` Gaussians to duplicate, by ascending mean scale, all once before any twice."""
    return np.resize(np.argsort(_mean_scales(gaussians), kind="stable"), count)


def place(gaussians: Gaussians, sphere: Floats, pad: str) -> Placement:
    """Assign M Gaussians to the N sphere points and fill the empty points with `duplicates`.

    Args:
        gaussians: M Gaussians, 1 <= M <= N.
        sphere: [N, 3].
        pad: "transport", "nearest" or "before", see `AtlasConfig`.

    Raises:
        TransportFailed: M > N, or the solver could not certify its answer.
    """
    means = gaussians.means.astype(np.float64)
    empty = len(sphere) - len(means)
    copied = duplicates(gaussians, max(empty, 0))
    if pad == "before":
        everyone = np.concatenate([np.arange(len(means)), copied])
        transport = assign(means[everyone], sphere)
        source = np.empty(len(sphere), np.int64)
        source[transport.indices] = everyone
        live = np.zeros(len(sphere), np.bool_)
        live[transport.indices[: len(means)]] = True
        return Placement(source, live, transport)

    transport = assign(means, sphere)
    source = np.full(len(sphere), -1)
    source[transport.indices] = np.arange(len(means))
    live = source >= 0
    vacant = np.flatnonzero(~live)
    if pad == "transport" and empty:
        source[vacant[assign(means[copied], sphere[vacant]).indices]] = copied
    elif pad == "nearest" and empty:
        occupied = np.flatnonzero(live)
        _, nearest = cKDTree(sphere[occupied]).query(sphere[vacant])
        source[vacant] = source[occupied[nearest]]
    elif empty:
        raise AtlasError(f"pad is {pad!r}, expected transport, nearest or before")
    return Placement(source, live, transport)


def _mean_scales(gaussians: Gaussians) -> Floats:
    means: Floats = gaussians.scales.astype(np.float64).mean(axis=1)
    return means
