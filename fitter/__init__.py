"""Fit a bounded number of 3D Gaussians to the views of one object, independently of Ray, S3 and shards."""

from typing import TYPE_CHECKING

from gaussianverse.lazy import lazy

if TYPE_CHECKING:
    from gaussianverse.fitter.config import FitConfig, load_profile
    from gaussianverse.fitter.fit import Fit, fit_object
    from gaussianverse.fitter.views import Views, load_views

__all__ = ["Fit", "FitConfig", "Views", "fit_object", "load_profile", "load_views"]
__getattr__ = lazy(
    __name__,
    {
        **dict.fromkeys(("FitConfig", "load_profile"), "fitter.config"),
        **dict.fromkeys(("Fit", "fit_object"), "fitter.fit"),
        **dict.fromkeys(("Views", "load_views"), "fitter.views"),
    },
)
