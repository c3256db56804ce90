"""Bytes of images, arrays, points and JSON; equal inputs give equal bytes."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gaussianverse.manifests.errors import LayoutError


def png(image: NDArray[np.uint8]) -> bytes:
    """Encode an image, uint8 [H, W], [H, W, 3] or [H, W, 4], as PNG."""
    return _encoded(image, "PNG", compress_level=6)


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """Encode an image, uint8 [H, W] or [H, W, 3], as JPEG of quality 95 without subsampling of colours."""
    return _encoded(image, "JPEG", quality=95, subsampling=0)


def webp(image: NDArray[np.uint8]) -> bytes:
    """Encode an image, uint8 [H, W, 4], as lossless WebP, hidden colours included."""
    return _encoded(image, "WEBP", lossless=True, exact=True, method=2)


def _encoded(image: NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(out, kind, **options)
    return out.getvalue()


def exr(channels: dict[str, NDArray[np.float32]]) -> bytes:
    """Encode float32 channels [H, W] as OpenEXR.

    Raises:
        LayoutError: OpenEXR is not installed.
    """
    try:
        import OpenEXR
    except ImportError as error:
        raise LayoutError("depth and normals need OpenEXR: pip install 'gaussianverse[render]'") from error
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    out = io.BytesIO()
    OpenEXR.File(header, {name: np.ascontiguousarray(one) for name, one in channels.items()}).write(out)
    return out.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    """Encode an array as .npy."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def npz(**arrays: NDArray[Any]) -> bytes:
    """Encode arrays as a compressed .npz."""
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type]  # its signature has allow_pickle among the arrays
    return out.getvalue()


def numbers(values: NDArray[np.floating]) -> str:
    """Format an array as one line of numbers that read back as they are."""
    return " ".join(repr(float(value)) for value in values.ravel())


def json_text(value: Any) -> bytes:
    """Format as indented JSON, in ASCII so that readers with any default encoding open it."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode("ascii")


def on_white(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blend RGBA with straight alpha over white, uint8 [H, W, 3]."""
    rgb, alpha = image[..., :3].astype(np.float32), image[..., 3:].astype(np.float32) / 255
    blended: NDArray[np.uint8] = np.rint(rgb * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return blended


def normals_as_colors(normal: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Encode components from -1 to 1 as colours from 0 to 255."""
    colors: NDArray[np.uint8] = np.rint((np.clip(normal, -1, 1) + 1) * 127.5).astype(np.uint8)
    return colors


def ply(points: NDArray[np.floating], faces: NDArray[np.integer] | None = None) -> bytes:
    """Encode points [N, 3], and triangles [F, 3] if there are any, as binary PLY of float32 and int32."""
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    lines += [f"property float {axis}" for axis in "xyz"]
    body = np.ascontiguousarray(points, "<f4").tobytes()
    if faces is not None:
        lines += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        rows = np.empty(len(faces), np.dtype([("n", "u1"), ("corners", "<i4", 3)]))
        rows["n"], rows["corners"] = 3, faces
        body += rows.tobytes()
    return "\n".join([*lines, "end_header", ""]).encode("ascii") + body
