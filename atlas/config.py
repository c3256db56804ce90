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
        min_smoothness: smoothness of the sphere points behind the cells below which an atlas is refused, see
            `atlas.gates`. Right orders have 0.87 (size 8) to 0.99 (128 and more), wrong ones 0.5 and less.

    Raises:
        AtlasError: a value that is not allowed, with the field and what is.
    """

    size: int = 128
    pad: str = "transport"
    layout: str = "fibonacci"
    dtype: str = "float32"
    min_smoothness: float = 0.80

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or not 8 <= self.size <= 512:
            raise AtlasError(f"AtlasConfig.size must be a whole number from 8 to 512, got {self.size!r}")
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise AtlasError(f"AtlasConfig.{name} must be one of {', '.join(allowed)}, got {value!r}")
        if not isinstance(self.min_smoothness, int | float) or not 0.0 <= self.min_smoothness < 1.0:
            raise AtlasError(f"AtlasConfig.min_smoothness must be in [0, 1), got {self.min_smoothness!r}")
