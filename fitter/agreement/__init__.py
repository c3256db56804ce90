"""Do the cameras and the silhouettes of one object agree? Asked before a fit, of alpha and cameras alone."""

from gaussianverse.fitter.agreement.checks import check
from gaussianverse.fitter.agreement.verdict import Verdict

__all__ = ["Verdict", "check"]
