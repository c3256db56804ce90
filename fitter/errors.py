"""Errors of fits; `reason` is what a pipeline records for a quarantined object."""


class FitError(Exception):
    """An object could not be fitted."""

    reason = "unknown"


class BadInput(FitError):
    """Views have invalid contents: poses, sizes, JSON."""

    reason = "bad_input"


class MissingViews(FitError):
    """There are no views, or fewer than the configuration requires."""

    reason = "missing_views"


class DecodeError(FitError):
    """An image, EXR or archive member cannot be decoded."""

    reason = "decode_error"


class InconsistentViews(FitError):
    """Cameras and silhouettes contradict each other."""

    reason = "inconsistent_views"


class TooFewGaussians(FitError):
    """The fit has fewer Gaussians than the configuration requires, or there is nothing to fit."""

    reason = "too_few_gaussians"


class NanLoss(FitError):
    """The loss became NaN or infinite."""

    reason = "nan_loss"


class LowPsnr(FitError):
    """The PSNR of the fit is lower than the configuration requires."""

    reason = "low_psnr"


class FitTimeout(FitError):
    """The fit exceeded its deadline."""

    reason = "timeout"


class BackendUnavailable(RuntimeError):
    """The machine lacks what the chosen backend requires; the message gives the reason and the remedy."""
