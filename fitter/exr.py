"""GObjaverse's `_nd.exr`: world normals and z-depth of one view."""

import io

import numpy as np
import OpenEXR
from numpy.typing import NDArray

from fitter.errors import BadInput, DecodeError

MAX_SIDE = 8192  # pixels


def read_normal_depth(data: bytes, where: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Normals and depth from the bytes of an `_nd.exr`; `where` names the view in errors.

    The file holds (R, G, B) with normal = (-R, -B, G) in the z-up world of the cameras, and A = depth
    along the optical axis. Pixels that are not finite, or not in front of the camera, are empty.

    Returns:
        normals: float32 [H, W, 3], unit length, NaN where empty.
        depth: float32 [H, W], > 0, NaN where empty.

    Raises:
        DecodeError: broken, truncated, or not an EXR file.
        BadInput: a channel of R, G, B, A is missing, or a side is longer than `MAX_SIDE`.
    """
    try:
        lo, hi = OpenEXR.File(io.BytesIO(data), header_only=True).header()["dataWindow"]
        if max(int(hi[0] - lo[0]), int(hi[1] - lo[1])) >= MAX_SIDE:
            raise BadInput(
                f"{where}: EXR window {tuple(lo)}..{tuple(hi)}; the longest side may be {MAX_SIDE}"
            )
        channels = OpenEXR.File(io.BytesIO(data), separate_channels=True).channels()
        missing = sorted(set("RGBA") - set(channels))
        if missing:
            raise BadInput(f"{where}: the EXR lacks channel {', '.join(missing)}; it needs R, G, B, A")
        red, green, blue, depth = (np.asarray(channels[c].pixels, np.float32) for c in "RGBA")
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DecodeError(
            f"{where}: the EXR cannot be decoded ({error}); render or fetch it again"
        ) from error
    normals = np.stack([-red, -blue, green], axis=-1)
    length = np.linalg.norm(normals, axis=-1)
    empty = ~(np.isfinite(depth) & (depth > 0) & np.isfinite(length) & (length > 0))
    depth = np.where(empty, np.float32(np.nan), depth)
    normals = np.where(empty[..., None], np.float32(np.nan), normals / np.where(empty, 1, length)[..., None])
    return normals, depth
