"""Stage 1 of an object that already consists of 3D Gaussians: read and check them instead of fitting."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gaussianverse import foreign
from gaussianverse.atlas.arrays import read_npy
from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.interchange.ply import Floats, from_raw_harmonics, read_raw
from gaussianverse.atlas.interchange.published import find_order, read_raw_point_cloud, visible
from gaussianverse.atlas.os_errors import describe, exists, is_machines
from gaussianverse.fitter.errors import LowPsnr
from gaussianverse.manifests.schema import SPLATS, SPLATS_BGR
from gaussianverse.manifests.splats import POINT_CLOUDS
from gaussianverse.pipeline.config import BAKE, SplatsConfig
from gaussianverse.pipeline.run import harmonics

FORMATS = (SPLATS, SPLATS_BGR)
"""Formats of manifest rows that are read here."""
SPHERE_INDICES = "gs2sphere.npy"


def read_splats(path: Path, format: str, config: SplatsConfig | None = None) -> tuple[Gaussians, dict[str, Any]]:
    """Read the Gaussians of a .ply file, or of a folder with a published pair.

    Sphere indices are checked and not used, since the atlas is built anew: if they do not match the Gaussians, one
    of the two files belongs to another object.

    Args:
        path: a .ply file, or a folder with point_cloud.ply or point_cloud.npy and perhaps gs2sphere.npy.
        format: one of `FORMATS`.
        config: how values are interpreted; defaults to `SplatsConfig()`.

    Returns:
        The Gaussians without padding, and their n_gaussians, bbox_*, sh_degree_in and sh_psnr for the tables.

    Raises:
        AtlasError: a file is missing or of another form.
        RoughAtlas: the sphere indices do not match the Gaussians.
        LowPsnr: without view-dependent colour the object looks too different, see `SplatsConfig.min_sh_psnr`.
    """
    config = config or SplatsConfig()
    raw, indices = _read(path, config)
    seen = from_raw_harmonics(raw)
    if indices is not None:
        # the publisher's sphere and plane, which may differ from this run's
        side = min(max(8, math.isqrt(len(seen))), 512)
        find_order(seen.gaussians, indices, AtlasConfig(size=side))
    seen = seen[visible(seen.gaussians)]
    if len(seen) == 0:
        raise AtlasError(f"{path}: all Gaussians are invisible")
    if format == SPLATS_BGR:
        seen = seen.swap_red_blue()
    gaussians = harmonics.bake(seen) if config.sh == BAKE else seen.gaussians
    psnr = harmonics.sh_psnr(seen, gaussians)
    if psnr < config.min_sh_psnr:
        raise LowPsnr(
            f"{path}: without its view-dependent colour (degree {seen.degree}) its renders have a PSNR of {psnr:.2f} "
            f"dB, expected at least {config.min_sh_psnr:.2f}; lower --min-sh-psnr to take it"
        )
    low, high = gaussians.means.min(axis=0), gaussians.means.max(axis=0)
    return gaussians, {
        "n_gaussians": len(gaussians),
        "sh_degree_in": seen.degree,
        "sh_psnr": psnr,
        **{f"bbox_min_{a}": float(v) for a, v in zip("xyz", low, strict=True)},
        **{f"bbox_max_{a}": float(v) for a, v in zip("xyz", high, strict=True)},
    }


def _read(path: Path, config: SplatsConfig) -> tuple[dict[str, Floats], NDArray[Any] | None]:
    """The values before activation, and the sphere indices if there are any."""
    if path.suffix == ".ply":
        return read_raw(_bytes_of(path), activated=config.activated), None
    found = [path / name for name in POINT_CLOUDS if exists(path / name)]
    if len(found) != 1:
        raise AtlasError(f"{path}: expected one of {' and '.join(POINT_CLOUDS)}, found {len(found)}")
    data = _bytes_of(found[0])
    if found[0].suffix == ".ply":
        raw = read_raw(data, activated=config.activated)
    else:
        raw = read_raw_point_cloud(_array(data, found[0]), activated=config.activated)
    indices = path / SPHERE_INDICES
    return raw, _array(_bytes_of(indices), indices) if exists(indices) else None


def _bytes_of(path: Path) -> bytes:
    try:
        return foreign.read_bytes(path)
    except OSError as error:
        if is_machines(error):
            raise
        raise AtlasError(f"{path}: cannot be read: {describe(error)}") from error


def _array(data: bytes, path: Path) -> NDArray[Any]:
    try:
        return read_npy(data)
    except AtlasError as error:
        raise AtlasError(f"{path}: {error}") from error
