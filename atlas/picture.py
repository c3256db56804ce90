"""Pictures of the channels of an atlas, as in the paper's Fig. 6."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.dataset_format import ALBEDO, OFFSET, OPACITY_COPIES, QUATERNION, SCALE
from gaussianverse.atlas.packing import check_array
from gaussianverse.atlas.plane import points_of

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

# viridis in nine equal steps: dark is invisible, bright is opaque
_COLOR_CODE = np.array(
    [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
     [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]],
    dtype=np.float64,
)  # fmt: skip
_SIDE = 256
_GAP = 8
_TITLE = 22


def panels(
    array: npt.ArrayLike, config: AtlasConfig | None = None, points: npt.ArrayLike | None = None
) -> dict[str, Pixels]:
    """Draw the five pictures of an atlas [size, size, 16], each uint8 [size, size, 3].

    position: x, y, z scaled to the object's bounding box. albedo: unchanged. opacity: colour-coded from 0
    (dark) to 1 (bright). scale: its logarithm, scaled between the 1st and 99th percentile. rotation: the last
    three components of the quaternion, from -1 to 1. Padding shows the Gaussian that it duplicates, except in
    opacity.

    `points` are the sphere points, [size, size, 3]; None = those of `config`.

    Raises:
        AtlasError: `array` is not an atlas of the configured size, or not finite.
    """
    config = config or AtlasConfig()
    values = check_array(array, config).astype(np.float64)
    sphere = np.asarray(points_of(config) if points is None else points)
    positions = values[..., OFFSET] + sphere.reshape(config.size, config.size, 3)
    opacities = values[..., OPACITY_COPIES].mean(axis=-1)
    scales = np.log(np.maximum(values[..., SCALE], 1e-8))
    low, high = np.percentile(scales, (1, 99))
    return {
        "position": _pixels(_stretched(positions, positions.min(axis=(0, 1)), positions.max(axis=(0, 1)))),
        "albedo": _pixels(values[..., ALBEDO]),
        "opacity": _pixels(color_coded(opacities)),
        "scale": _pixels(_stretched(scales, low, high)),
        "rotation": _pixels(values[..., QUATERNION][..., 1:] / 2 + 0.5),
    }


def sheet(array: npt.ArrayLike, config: AtlasConfig | None = None, points: npt.ArrayLike | None = None) -> bytes:
    """Draw `panels` side by side with their names, as a PNG file."""
    pictures = panels(array, config, points)
    width = len(pictures) * (_SIDE + _GAP) + _GAP
    canvas = Image.new("RGB", (width, _SIDE + _TITLE + _GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for k, (name, pixels) in enumerate(pictures.items()):
        left = _GAP + k * (_SIDE + _GAP)
        canvas.paste(Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.NEAREST), (left, _TITLE))
        draw.text((left + _SIDE / 2, _TITLE / 2), name, fill="black", font=font, anchor="mm")
    sink = BytesIO()
    canvas.save(sink, "PNG", optimize=True)
    return sink.getvalue()


def _stretched(values: Floats, low: Floats | float, high: Floats | float) -> Floats:
    extent = np.asarray(high) - np.asarray(low)
    return np.asarray((values - low) / np.where(extent > 0, extent, 1.0))


def color_coded(values: Floats) -> Floats:
    """Colours in [0, 1], [..., 3], of values from 0 (dark) to 1 (bright)."""
    steps = np.linspace(0.0, 1.0, len(_COLOR_CODE))
    return np.stack([np.interp(values, steps, channel) for channel in _COLOR_CODE.T], axis=-1) / 255.0


def _pixels(values: Floats) -> Pixels:
    return np.rint(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)
