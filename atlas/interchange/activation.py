"""Values of 3DGS before activation: which files hold activated ones, and the 3D filter of Mip-Splatting."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.errors import AtlasError

Floats = npt.NDArray[np.float64]

ACTIVATED = ("auto", "yes", "no")
"""Whether a file holds activated opacities and scales."""
# of fewer Gaussians, one of the two tells nothing
_FEW = 16


def checked(raw: dict[str, Floats], activated: str) -> dict[str, Floats]:
    """Values before activation, of values that are activated already or not.

    Args:
        raw: float64 [M, k] each, as `ply.raw_of` gives them, or activated.
        activated: one of `ACTIVATED`; "auto" takes values before activation and refuses others.

    Raises:
        AtlasError: the values are evidently of the other kind.
    """
    if activated == "yes":
        return before_activation(raw)
    if activated == "auto" and (signs := signs_of_activation(raw)):
        raise AtlasError(
            f"the file seems to hold activated values ({signs}), expected logits and logarithms; import it with "
            "--activated yes if it does, and with --activated no if it does not"
        )
    return raw


def signs_of_activation(raw: dict[str, Floats]) -> str:
    """Describe why the opacities or scales can hardly be values before activation; "" if they can.

    Opacities from near 0 to near 1 would all lie between 0.5 and 0.73 if they were logits. Scales that are all above
    0 would all exceed 1 if they were logarithms, and are told by opacities within [0, 1], or by positions that hardly
    extend farther than a single Gaussian.

    Args:
        raw: float64 [M, k] each, as `ply.raw_of` gives them.
    """
    if not len(raw["means"]):
        return ""
    opacities, scales = raw["opacities"], raw["scales"]
    low, high = float(opacities.min()), float(opacities.max())
    within, positive = low >= 0 and high <= 1, bool((scales > 0).all())
    if within and (positive or (len(opacities) >= _FEW and low < 0.25 and high > 0.75)):
        return f"its opacities lie within [{low:.3g}, {high:.3g}]{' and its scales are positive' if positive else ''}"
    extent = float(np.linalg.norm(np.ptp(raw["means"], axis=0)))
    if positive and len(scales) >= _FEW and float(np.exp(np.minimum(np.median(scales), 700.0))) > extent / 4:
        return f"its scales are positive, and read as logarithms they are as large as the object, {extent:.3g}"
    return ""


def before_activation(raw: dict[str, Floats]) -> dict[str, Floats]:
    """Logits and logarithms of opacities and scales that are activated already.

    Raises:
        AtlasError: an opacity is not within [0, 1], or a scale is not positive.
    """
    opacities, scales = raw["opacities"], raw["scales"]
    if not ((opacities >= 0) & (opacities <= 1)).all() or not (scales > 0).all():
        raise AtlasError(
            "these are no activated values: opacities have to lie within [0, 1] and scales above 0; import without "
            "--activated yes"
        )
    return {**raw, "opacities": logit(opacities), "scales": np.log(scales)}


def logit(opacities: Floats) -> Floats:
    """Inverse of the sigmoid, finite for 0 and 1 as well."""
    inside = np.clip(opacities, 1e-300, float(np.nextafter(np.float32(1), np.float32(0))))
    return np.log(inside) - np.log1p(-inside)


def with_filter(raw: dict[str, Floats], filter_3d: Floats) -> dict[str, Floats]:
    """Apply the 3D filter of Mip-Splatting (Yu et al., CVPR 2024, section 4.1), which its renderer applies.

    The variance of the filter is added to that of each axis, and the opacity is lowered so that the integral stays.

    Args:
        raw: values before activation.
        filter_3d: standard deviation of the filter of each Gaussian, [M].

    Raises:
        AtlasError: a standard deviation is negative or not finite.
    """
    if not (np.isfinite(filter_3d) & (filter_3d >= 0)).all():
        row = int((~(np.isfinite(filter_3d) & (filter_3d >= 0))).argmax())
        raise AtlasError(f"filter_3D of row {row} is {filter_3d[row]}, expected a finite number of at least 0")
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        scales = np.logaddexp(2 * raw["scales"], 2 * np.log(filter_3d)[:, None]) / 2
        opacities = 1 / (1 + np.exp(-raw["opacities"])) * np.exp((raw["scales"] - scales).sum(axis=1, keepdims=True))
    return {**raw, "scales": scales, "opacities": logit(opacities)}
