"""Check the arrays of samples: splats, atlases and reference views; and describe atlases for run.json."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gaussianverse import atlas
from gaussianverse.atlas.arrays import read_npy
from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.dataset_format import ATLAS, CHANNEL_NAMES, CHANNELS, SPLATS, view_suffixes
from gaussianverse.atlas.errors import AtlasError, DatasetError
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.plane import plane_of
from gaussianverse.atlas.reader.views import CAMERAS, ReferenceViews, read_cameras
from gaussianverse.atlas.sphere import sphere_of
from gaussianverse.pipeline.dataset.run_file import Run


def atlas_array(data: bytes, config: AtlasConfig) -> npt.NDArray[Any]:
    """Read an atlas from its .npy file: [size, size, 16] in the configured dtype, finite.

    Raises:
        AtlasError: the file holds something else.
    """
    array = read_npy(data)
    expected = (config.size, config.size, CHANNELS)
    if array.shape != expected or array.dtype != np.dtype(config.dtype):
        raise AtlasError(f"{array.dtype} {array.shape}, expected {config.dtype} {expected}")
    if not np.isfinite(array).all():
        raise AtlasError(f"{int((~np.isfinite(array)).sum())} values are not finite")
    return array


def check_main(family: str, data: bytes, run: Run) -> None:
    """Raise AtlasError unless this is the main member of a sample of a family; an atlas must unpack."""
    if family == SPLATS:
        Gaussians.from_bytes(data)
    elif family == ATLAS:
        atlas.unpack(atlas_array(data, run.atlas), run.atlas)
    else:
        read_cameras(data)


def check_views(members: Mapping[str, bytes], run: Run) -> None:
    """Raise DatasetError unless an object's members, by suffix, are reference views of the run's number and size."""
    count, size = run.settings.views, run.views_size
    views = ReferenceViews.from_members(members[CAMERAS], [members[name] for name in view_suffixes(count)])
    if views.images.shape[:2] != (count, size):
        raise DatasetError(f"{len(views)} views of {views.images.shape[1]} pixels, expected {count} of {size}")


def representation(config: AtlasConfig) -> dict[str, Any]:
    """Facts about the arrays that readers need: channels, dtype, hashes of sphere and plane; for run.json."""
    sphere, plane = sphere_of(config), plane_of(config)
    return {
        "channels": list(CHANNEL_NAMES),
        "dtype": config.dtype,
        "sphere_sha256": hashlib.sha256(np.ascontiguousarray(sphere, "<f8").tobytes()).hexdigest(),
        "plane_sha256": hashlib.sha256(np.ascontiguousarray(plane, "<i8").tobytes()).hexdigest(),
    }
