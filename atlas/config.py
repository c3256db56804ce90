"""What can be chosen about an atlas."""

from __future__ import annotations

from dataclasses import dataclass

from atlas.errors import AtlasError

_CHOICES = {
    "pad": ("transport", "nearest", "before"),
    "layout": ("fibonacci",),
    "dtype": ("float32", "float16"),
}


@dataclass(frozen=True)
class AtlasConfig:
    """How Gaussians become an atlas; part of a dataset's recorded configuration.

    Attributes:
        size: side of the atlas in cells, 8 to 512; the sphere has size^2 points. Plane indices ship for 128 and
            are solved, in seconds, for other sizes.
        pad: where the invisible duplicates go that fill an atlas of fewer Gaussians than cells. "transport":
            by a second exact transport onto the empty sphere points (the paper); "nearest": each empty point
            copies the Gaussian of the nearest occupied one (the smoothest); "before": duplicates join the
            Gaussians before one square transport (the published script).
        layout: the sphere and its unrolling; "fibonacci" is the paper's.
        dtype: of a stored atlas, "float32" or "float16"; in memory it is float32.
        min_smoothness: share of the smoothness on the sphere that an atlas has to keep, see `atlas.gates`. Right
            atlases keep 0.93 and more from size 32 on; those below 24 are too coarse for the default.

    Raises:
        AtlasError: a value that is not allowed, with the field and what is.
    """

    size: int = 128
    pad: str = "transport"
    layout: str = "fibonacci"
    dtype: str = "float32"
    min_smoothness: float = 0.90

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or not 8 <= self.size <= 512:
            raise AtlasError(f"AtlasConfig.size must be a whole number from 8 to 512, got {self.size!r}")
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise AtlasError(f"AtlasConfig.{name} must be one of {', '.join(allowed)}, got {value!r}")
        if not 0.0 <= self.min_smoothness < 1.0:
            raise AtlasError(f"AtlasConfig.min_smoothness must be in [0, 1), got {self.min_smoothness!r}")
