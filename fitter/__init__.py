"""Views of one object in, a bounded set of 3D Gaussians out. Knows nothing of Ray, S3 or shards."""

from fitter.config import FitConfig, load_profile
from fitter.fit import Fit, fit_object
from fitter.views import Views, load_views

__all__ = ["Fit", "FitConfig", "Views", "fit_object", "load_profile", "load_views"]
