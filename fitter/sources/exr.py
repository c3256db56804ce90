"""Reader of GObjaverse's `_nd.exr`, which holds world normals and z-depth of one view."""

import io
import logging

import numpy as np
from numpy.typing import NDArray

from gaussianverse.atlas.os_errors import is_machines
from gaussianverse.fitter.errors import BadInput, DecodeError
from gaussianverse.fitter.sources.image import MAX_SIDE

log = logging.getLogger(__name__)


def read_depth(data: bytes, where: str) -> NDArray[np.float32]:
    """Decode depth from the bytes of an `_nd.exr`, float32 [H, W], NaN where empty; raises as `read_geometry`."""
    return read_geometry(data, where)[..., 3].copy()


def read_geometry(data: bytes, where: str) -> NDArray[np.float32]:
    """Decode normals and depth from the bytes of an `_nd.exr`; `where` names the view in errors.

    The file holds (R, G, B) with normal = (-R, -B, G) in the z-up world of the cameras, and A = depth
    along the optical axis. Pixels are empty if their depth is not finite or not positive, or their normal is
    zero or not finite.

    Returns:
        float32 [H, W, 4]: the normal in the world, as it is stored (of length 1 but for rounding), and depth > 0;
        NaN where empty.

    Raises:
        DecodeError: the file is broken, truncated, or not EXR.
        BadInput: a channel of R, G, B, A is missing, or a side is longer than `MAX_SIDE`.
        ImportError: OpenEXR is not installed.
    """
    try:
        import OpenEXR
    except ImportError as error:
        raise ImportError("depth needs OpenEXR: pip install 'gaussianverse[build]'") from error
    try:
        lo, hi = OpenEXR.File(io.BytesIO(data), header_only=True).header()["dataWindow"]
        if max(int(hi[0] - lo[0]), int(hi[1] - lo[1])) >= MAX_SIDE:
            raise BadInput(
                f"{where}: EXR window {tuple(lo)}..{tuple(hi)}, expected sides of at most {MAX_SIDE} pixels"
            )
        channels = OpenEXR.File(io.BytesIO(data), separate_channels=True).channels()
        missing = sorted(set("RGBA") - set(channels))
        if missing:
            raise BadInput(f"{where}: the EXR lacks channel {', '.join(missing)}; it needs R, G, B, A")
        red, green, blue, depth = (np.asarray(channels[c].pixels, np.float32) for c in "RGBA")
        surface = np.isfinite(red + green + blue) & ((red != 0) | (green != 0) | (blue != 0))
        surface &= np.isfinite(depth) & (depth > 0)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        if is_machines(error):
            raise
        log.debug("%s: %s", where, error)  # the decoder's own words, which may differ between versions
        raise DecodeError(
            f"{where}: the EXR cannot be decoded, it is damaged or cut short; render or fetch it again"
        ) from error
    found = np.stack([-red, -blue, green, depth], axis=-1)
    found[~surface] = np.nan
    return found
