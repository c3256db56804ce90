"""Decoder of RGBA images, within limits."""

import io
import logging
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gaussianverse.atlas.os_errors import is_machines
from gaussianverse.fitter.errors import BadInput, DecodeError

log = logging.getLogger(__name__)

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
        raise BadInput(f"{where}: the image has too many pixels; render a smaller one") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        if is_machines(error):
            raise
        # the decoder's own words differ between versions, and may name addresses in memory
        fault = _fault(data)
        log.debug("%s: %s: %s", where, fault, error)
        raise DecodeError(f"{where}: the image cannot be decoded, {fault}; render or fetch it again") from error


def _fault(data: bytes) -> str:
    if not data:
        return "it is empty"
    known = data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")) or (data[:4] + data[8:12] == b"RIFFWEBP")
    return "it is damaged or cut short" if known else "it is no PNG or WebP"


def _is_deep_without_alpha(data: bytes) -> bool:
    """Whether `data` is a PNG of 16-bit grey (colour type 0) or RGB (2), by its header."""
    return data.startswith(b"\x89PNG") and data[24] == 16 and data[25] in (0, 2)
