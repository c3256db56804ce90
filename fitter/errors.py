"""Errors of the fitter; `reason` is the word that a pipeline records for a quarantined object."""


class FitError(Exception):
    """A fit could not be made."""

    reason = "unknown"


class BadInput(FitError):
    """The views are there, and what they say is wrong: poses, sizes, JSON."""

    reason = "bad_input"


class MissingViews(FitError):
    """No views, or fewer than the configuration asks for."""

    reason = "missing_views"


class DecodeError(FitError):
    """An image, EXR or archive member cannot be decoded."""

    reason = "decode_error"


class TooFewGaussians(FitError):
    """Nothing, or almost nothing, was left to draw."""

    reason = "too_few_gaussians"


class NanLoss(FitError):
    """The loss became NaN or infinite."""

    reason = "nan_loss"


class LowPsnr(FitError):
    """The finished fit is worse than the configuration accepts."""

    reason = "low_psnr"


class FitTimeout(FitError):
    """The fit passed its own deadline."""

    reason = "timeout"
