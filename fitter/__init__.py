"""Views of one object in, a bounded set of 3D Gaussians out. Knows nothing of Ray, S3 or shards."""

from gaussianverse.fitter.config import FitConfig, load_profile
from gaussianverse.fitter.fit import Fit, fit_object
from gaussianverse.fitter.views import Views, load_views

__all__ = ["Fit", "FitConfig", "Views", "fit_object", "load_profile", "load_views"]
