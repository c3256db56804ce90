"""The compact form `.splat` that viewers in browsers read: 32 bytes per Gaussian, those seen first in front.

Per Gaussian, little-endian: position (3 float32), scale (3 float32, linear), colour and opacity (4 uint8), quaternion
(4 uint8, wxyz, -1 to 1 as 0 to 255 about 128). Written first by https://github.com/antimatter15/splat.
"""

from __future__ import annotations

import numpy as np

from gaussianverse.atlas.gaussians import Gaussians

_RECORD = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("quats", "u1", 4)])


def to_splat(gaussians: Gaussians) -> bytes:
    """Encode Gaussians, the largest and most opaque first; colours and rotations are rounded to 8 bits."""
    weight = gaussians.opacities * gaussians.scales.prod(axis=1)
    g = gaussians[np.argsort(-weight, kind="stable")]
    records = np.empty(len(g), _RECORD)
    records["means"], records["scales"] = g.means, g.scales
    rgba = np.concatenate([g.colors, g.opacities[:, None]], axis=1)
    records["rgba"] = np.rint(np.clip(rgba, 0, 1) * 255)
    records["quats"] = np.clip(np.rint(g.quats * 128 + 128), 0, 255)
    return records.tobytes()
