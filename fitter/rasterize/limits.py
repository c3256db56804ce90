"""Limits of blending that all backends share (Kerbl et al. 2023); `fitter/native/src/view.h` has the same."""

ALPHA_MIN = 1.0 / 255.0
"""A Gaussian is skipped in pixels where its alpha is less."""
TRANSMITTANCE_MIN = 1e-4
"""A pixel stops before its transmittance would fall to this."""
EXTENT_MAX = 3.33
"""sqrt(2 ln 255), beyond which even an opacity of 1 gives alpha below 1/255; rounded as in gsplat."""
