"""Configuration of atlases."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gaussianverse.atlas.configuration import ConfigError, check_choice, check_whole
from gaussianverse.atlas.dataset_format import DTYPES

_CHOICES = {"pad": ("transport", "nearest", "before"), "layout": ("fibonacci", "ring"), "dtype": DTYPES}
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class AtlasConfig:
    """Configuration of `pack`; part of a dataset's recorded configuration.

    Raises:
        ConfigError: a value is not allowed; the message names the field and the allowed values.
    """

    size: int = 128
    """Side of the atlas in cells, 8 to 512; the sphere has size^2 points. Plane indices ship for 128 and 192 and are
    solved, in seconds, for other sizes."""
    pad: str = "transport"
    """Placement of the invisible duplicates that fill an atlas with fewer Gaussians than cells. "transport": by a
    second exact transport onto the empty sphere points (the paper); "nearest": each empty point copies the Gaussian
    of the nearest occupied one (the smoothest); "before": duplicates join the Gaussians before a single square
    transport (the published script)."""
    layout: str = "fibonacci"
    """The sphere and its unrolling. "fibonacci": the paper's; "ring": bands of equal area, divided into equal
    longitudes, so that each point is in its cell without a transport."""
    dtype: str = "float32"
    """Dtype of a stored atlas, "float32" or "float16"; in memory it is float32."""
    min_smoothness: float = 0.80
    """Least smoothness of the sphere points of the cells, see `atlas.gates`; at least 0 and below 1. Right orders
    have 0.87 (size 8) to 0.99 (128 and more), wrong ones 0.5 and less."""
    plane_indices: str = ""
    """Path of a .npy file of plane indices to use instead of the default ones, such as the published
    sphere2plane.npy; "" = default."""
    plane_sha256: str = ""
    """The expected SHA-256 of that file; "" accepts any. `atlas.plane.pinned` fills it in, so that a recorded
    configuration identifies the indices."""

    def __post_init__(self) -> None:
        check_whole("atlas.size", self.size, 8, 512)
        for name, allowed in _CHOICES.items():
            check_choice(f"atlas.{name}", getattr(self, name), allowed)
        if not isinstance(self.min_smoothness, int | float) or not 0.0 <= self.min_smoothness < 1.0:
            raise ConfigError(f"atlas.min_smoothness is {self.min_smoothness!r}, expected a number in [0, 1)")
        if not isinstance(self.plane_indices, str) or (self.plane_indices and self.layout != "fibonacci"):
            raise ConfigError(
                f"atlas.plane_indices is {self.plane_indices!r} and atlas.layout {self.layout!r}, expected a path, "
                "which needs layout fibonacci"
            )
        pinned = isinstance(self.plane_sha256, str) and _SHA256.fullmatch(self.plane_sha256)
        if self.plane_sha256 != "" and not (pinned and self.plane_indices):
            raise ConfigError(
                f"atlas.plane_sha256 is {self.plane_sha256!r}, expected 64 hexadecimal digits and atlas.plane_indices"
            )
