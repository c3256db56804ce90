"""Stage 1 of an object that already consists of 3D Gaussians: read and check them instead of fitting."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.interchange.harmonics import ViewDependent, constant
from gaussianverse.atlas.interchange.ply import Floats, from_raw_harmonics
from gaussianverse.atlas.interchange.published import find_order, visible
from gaussianverse.fitter.errors import LowPsnr
from gaussianverse.fitter.frame import HALF, SMALLEST, WORLD, Frame
from gaussianverse.manifests.schema import SPLATS, SPLATS_BGR
from gaussianverse.pipeline.config import BAKE, SplatsConfig
from gaussianverse.pipeline.run import harmonics
from gaussianverse.pipeline.run.splat_files import Values, read_source

FORMATS = (SPLATS, SPLATS_BGR)
"""Formats of manifest rows that are read here."""
# the share of positions at either end that do not count for the place and the size of an object
_STRAYS = 0.005
_ROUNDED = 1e-3
"""Largest step of float32 at an object's place, as a fraction of its size, that a file's positions may have."""


def read_splats(
    path: Path, format: str, config: SplatsConfig | None = None, *, key: str | None = None, normalise: str = "auto"
) -> tuple[Gaussians, dict[str, Any]]:
    """Read the Gaussians of one object.

    Sphere indices are checked and not used, since the atlas is built anew: if they do not match the Gaussians, one
    of the two files belongs to another object.

    Args:
        path: a .ply, .splat.npz or GaussianCube .npy file; a folder with point_cloud.ply, point_cloud.npy or
            splat.npz and perhaps gs2sphere.npy; or a tar of such.
        format: one of `FORMATS`.
        config: how values are interpreted; defaults to `SplatsConfig()`.
        key: of the object in the tar.
        normalise: which objects are centred and scaled, see `FitConfig.normalise`.

    Returns:
        The Gaussians without padding, and their n_gaussians, bbox_*, thinness, center_*, unit, sh_degree_in, sh_psnr
        and input_sha256 for the tables.

    Raises:
        AtlasError: a file is missing or of another form.
        RoughAtlas: the sphere indices do not match the Gaussians.
        LowPsnr: without view-dependent colour the object looks too different, see `SplatsConfig.min_sh_psnr`.
        FitError: an archive cannot be read.
    """
    config = config or SplatsConfig()
    source = read_source(path, config, key)
    where = str(path) if key is None else f"{path}#{key}"
    try:
        frame = _frame_of(source.values, normalise)
        seen = _placed(source.values, frame)
        if source.indices is not None:
            # the publisher's sphere and plane, which may differ from this run's
            side = min(max(8, math.isqrt(len(seen))), 512)
            find_order(seen.gaussians, source.indices, AtlasConfig(size=side))
    except AtlasError as error:
        raise type(error)(f"{where}: {error}") from error
    seen = seen[visible(seen.gaussians)]
    if len(seen) == 0:
        raise AtlasError(f"{where}: all Gaussians are invisible")
    if format == SPLATS_BGR:
        seen = seen.swap_red_blue()
    gaussians = harmonics.bake(seen) if config.sh == BAKE else seen.gaussians
    psnr = harmonics.sh_psnr(seen, gaussians)
    if psnr < config.min_sh_psnr:
        raise LowPsnr(
            f"{where}: without its view-dependent colour (degree {seen.degree}) its renders have a PSNR of "
            f"{psnr:.2f} dB, expected at least {config.min_sh_psnr:.2f}; lower --min-sh-psnr to take it"
        )
    return gaussians, {
        "n_gaussians": len(gaussians),
        "sh_degree_in": seen.degree,
        "sh_psnr": psnr,
        "input_sha256": source.sha256,
        **_within(source.frame, frame).stats,
        **gaussians.bounds(),
    }


def _frame_of(values: Values, normalise: str) -> Frame:
    """The frame that Gaussians are published in: their world, or centred and of GObjaverse's size.

    Raises:
        AtlasError: positions were rounded far from the origin, or cannot be kept there ("never").
    """
    means = np.asarray(values.means if isinstance(values, Gaussians) else values["means"], np.float64)
    if not len(means) or not np.isfinite(means).all():
        return WORLD  # refused where it is checked
    low, high = np.quantile(means, [_STRAYS, 1 - _STRAYS], axis=0)
    size, farthest = float((high - low).max()), float(np.abs([low, high]).max())
    step = float(np.spacing(np.float32(farthest)))
    rounded = bool((means == means.astype(np.float32)).all())
    if (rounded or normalise == "never") and size > 0 and not step <= _ROUNDED * size:
        raise AtlasError(
            f"the object is {size:.3g} wide and lies {farthest:.3g} from the origin, where numbers in float32 are "
            f"{step:.2g} apart; move it to the origin before it is stored, or store x, y, z as double"
        )
    reach = float(np.quantile(np.linalg.norm(means, axis=1), 1 - _STRAYS))
    if normalise == "never" or (normalise == "auto" and SMALLEST <= reach <= 1) or size == 0:
        return WORLD
    return Frame((low + high) / 2, size / (2 * HALF))


def _within(outer: Frame, inner: Frame) -> Frame:
    """The frame `inner` of the world that `outer` is a frame of."""
    return Frame(outer.center + outer.unit * inner.center, outer.unit * inner.unit)


def _placed(values: Values, frame: Frame) -> ViewDependent:
    """The Gaussians in a frame."""
    if isinstance(values, Gaussians):
        if frame is not WORLD:
            means = (values.means.astype(np.float64) - frame.center) / frame.unit
            scales = values.scales.astype(np.float64) / frame.unit
            values = replace(values, means=means.astype(np.float32), scales=scales.astype(np.float32))
        return constant(values)
    if frame is not WORLD:
        moved: dict[str, Floats] = {
            "means": (values["means"] - frame.center) / frame.unit,
            "scales": values["scales"] - math.log(frame.unit),
        }
        values = values | moved
    return from_raw_harmonics(values)
