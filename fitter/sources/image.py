"""Decoder of RGBA images, within limits."""

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gaussianverse.fitter.errors import BadInput, DecodeError

MAX_SIDE = 8192  # pixels
_FORMATS = ("PNG", "WEBP", "JPEG")  # JPEG only so that the error can say that it has no alpha


def decode_rgba(data: bytes, where: str) -> NDArray[np.uint8]:
    """Decode an image to uint8 [H, W, 4] with straight alpha; `where` names the view in errors.

    Raises:
        DecodeError: `data` is broken, truncated, or not an image.
        BadInput: the image has no alpha channel, is a 16-bit PNG with a transparent colour, or has a side longer
            than `MAX_SIDE`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if max(image.size) > MAX_SIDE:
                raise BadInput(
                    f"{where}: the image has {image.width} x {image.height} pixels, expected sides of at most "
                    f"{MAX_SIDE}"
                )
            if not image.has_transparency_data:
                raise BadInput(
                    f"{where}: the image has no alpha channel (mode {image.mode}) to separate the object from its "
                    "background; render RGBA, or add a mask as alpha"
                )
            if _is_deep_without_alpha(data):
                raise BadInput(
                    f"{where}: a 16-bit PNG with a transparent colour (tRNS) is not supported; save it with an "
                    "alpha channel"
                )
            image.verify()  # checksums and end mark of a PNG, which decoding does not check
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return np.array(image if image.mode == "RGBA" else image.convert("RGBA"), np.uint8)
    except Image.DecompressionBombError as error:
        raise BadInput(f"{where}: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise DecodeError(f"{where}: the image cannot be decoded ({error}); render or fetch it again") from error


def _is_deep_without_alpha(data: bytes) -> bool:
    """Whether `data` is a PNG of 16-bit grey (colour type 0) or RGB (2), by its header."""
    return data.startswith(b"\x89PNG") and data[24] == 16 and data[25] in (0, 2)
