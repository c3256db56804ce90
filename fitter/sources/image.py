"""Decoder of RGBA images, within limits."""

import io
import logging
import struct
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from gaussianverse.atlas.os_errors import is_machines
from gaussianverse.fitter.errors import BadInput, DecodeError

log = logging.getLogger(__name__)

MAX_SIDE = 8192  # pixels
_FORMATS = ("PNG", "WEBP", "JPEG")  # JPEG only so that the error can say that it has no alpha


def decode_rgba(data: bytes, where: str, orientation: str = "refuse") -> NDArray[np.uint8]:
    """Decode an image to uint8 [H, W, 4] with straight alpha; `where` names the view in errors.

    An EXIF orientation is refused, applied or ignored ("keep"), as `orientation` says.

    Raises:
        DecodeError: `data` is broken, truncated, or not an image.
        BadInput: the image has no alpha channel, is a 16-bit PNG with a transparent colour, has a side longer than
            `MAX_SIDE`, or an EXIF orientation.
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
            rgba = np.array(image if image.mode == "RGBA" else image.convert("RGBA"), np.uint8)
            turn = 1 if orientation == "keep" else _orientation(image)
            if turn != 1 and orientation == "refuse":
                raise BadInput(
                    f"{where}: the image has EXIF orientation {turn}, by which viewers turn it, and cameras do not "
                    "say whether they mean it turned; save it upright, or set fit.inputs.orientation to 'apply' or "
                    "'keep'"
                )
            return np.ascontiguousarray(_TURNED[turn](rgba))
    except Image.DecompressionBombError as error:
        raise BadInput(f"{where}: the image has too many pixels; render a smaller one") from error
    except (OSError, SyntaxError, ValueError, AssertionError, EOFError, struct.error, zlib.error) as error:
        if is_machines(error):
            raise
        # the decoder's own words differ between versions, and may name addresses in memory
        fault = _fault(data)
        log.debug("%s: %s: %s", where, fault, error)
        raise DecodeError(f"{where}: the image cannot be decoded, {fault}; render or fetch it again") from error


_TURNED: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
"""How a viewer shows an image, by its EXIF orientation."""


def _orientation(image: Image.Image) -> int:
    """EXIF orientation of an image, 1 if it has none or its EXIF cannot be read."""
    try:
        turn = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # EXIF is no part of the picture, and its decoder raises errors of many types
        return 1
    return turn if turn in _TURNED else 1


def _fault(data: bytes) -> str:
    if not data:
        return "it is empty"
    known = data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")) or (data[:4] + data[8:12] == b"RIFFWEBP")
    return "it is damaged or cut short" if known else "it is no PNG or WebP"


def _is_deep_without_alpha(data: bytes) -> bool:
    """Whether `data` is a PNG of 16-bit grey (colour type 0) or RGB (2), by its header."""
    return data.startswith(b"\x89PNG") and data[24] == 16 and data[25] in (0, 2)
