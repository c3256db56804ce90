"""`Measurer`: quality of an object's fit and of its unpacked atlas, on the same views of that object."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.fitter.config import FitConfig, InputsConfig
from gaussianverse.fitter.errors import FitError
from gaussianverse.fitter.geometry import THRESHOLDS, compare_geometry
from gaussianverse.fitter.lpips import load_lpips
from gaussianverse.fitter.metrics import BACKGROUND, measure
from gaussianverse.fitter.prepare import Prepared, load_to_fit, prepare
from gaussianverse.fitter.rasterize import device_and_backend
from gaussianverse.fitter.scene import make_scene
from gaussianverse.fitter.views import Views
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.run import inputs
from gaussianverse.pipeline.run.reading import without_place

GEOMETRY = ("depth_l1", "normal_degrees", "covered", "chamfer", *(f"f_{t:.2f}" for t in THRESHOLDS), "iou")
"""Columns of the comparison with depth and normals."""
Numbers = dict[str, float | int | str]


class ViewsChanged(FitError):
    """The views at the address are others than those that were fitted."""


@dataclass(frozen=True)
class Lpips:
    """Backbone and weights of LPIPS."""

    net: str
    weights: str


def fit_config_of(run: Run) -> FitConfig:
    """The configuration of a run's fits, by which its views are prepared as they were for the fits.

    Checks and mends that came after the run do not change which views are measured.
    """
    given = run.identity["config"]["fit"]
    config = run.fit
    if "pose_gate" not in given:
        config = replace(config, pose_gate="off")
    if "inputs" not in given:
        config = replace(config, inputs=InputsConfig("keep", "keep", "keep", "keep", "keep"))
    return config


class Measurer:
    """Measures objects of one run."""

    def __init__(
        self, run: Run, base: str, store: StoreOptions, *, most_views: int = 0, lpips: Lpips | None = None
    ) -> None:
        """Prepare to measure.

        Args:
            run: the run.
            base: folder or prefix that relative addresses of views are relative to.
            store: options of the store that views are in.
            most_views: views measured per object, evenly among those that the fit was measured on; 0 = all.
            lpips: backbone of LPIPS; None = LPIPS is not measured.

        Raises:
            LpipsUnavailable: the file of weights is missing, or not that of the backbone.
        """
        self.config = fit_config_of(run)
        self.device, self.backend = device_and_backend("auto")
        self._base, self._store, self._most = base, store, most_views
        self._lpips: Callable[[Tensor, Tensor], Tensor] | None = None
        self.lpips_sha256 = ""
        if lpips is not None:
            self._lpips, self.lpips_sha256 = load_lpips(lpips.net, lpips.weights, self.device)

    def of(self, run: Run) -> Measurer:
        """The same for objects that another run has fitted."""
        other = copy(self)
        other.config = fit_config_of(run)
        return other

    def prepared(self, manifest_row: Facts, input_sha256: str = "", *, with_geometry: bool = False) -> Prepared:
        """Load and prepare an object's views as its fit did.

        Args:
            manifest_row: the object's row of the manifest.
            input_sha256: hash of the files that were fitted; "" = unknown, or not compared.
            with_geometry: read depth and normals as well, whose files change the hash.

        Raises:
            FitError: the views are missing or cannot be used; a subclass says which.
            ViewsChanged: their files have another hash.
            NoViews, InputTooLarge, NoRoom, StoreError, NotFound, OSError: they cannot be read.
        """
        config, given = self.config, str(manifest_row["views"])
        address = inputs.resolve(given, self._base)
        with inputs.local(address, self._store) as path:
            try:
                views = load_to_fit(path, str(manifest_row["format"]), config, with_geometry=with_geometry)
                if input_sha256 and views.input_sha256 != input_sha256:
                    raise ViewsChanged("the files have another sha256 than those that were fitted")
                return prepare(views, config)
            except FitError as error:
                raise type(error)(without_place(str(error), str(path), given)) from error

    def photometric(self, prepared: Prepared, fit: Gaussians, unpacked: Gaussians) -> Numbers:
        """Mean PSNR, SSIM and LPIPS of the fit and of the unpacked atlas on the same views, over white.

        Returns:
            metrics_on, background, width, height, n_measured, views_sha256 (of the images), and psnr, ssim and
            lpips of each with the prefixes `fit_` and `unpacked_`; lpips is -1 without a backbone.
        """
        views = chosen(prepared.measured, self._most)
        scene = make_scene(views, self.device)
        found: Numbers = {
            "metrics_on": prepared.metrics_on,
            "background": BACKGROUND,
            "width": views.width,
            "height": views.height,
            "n_measured": len(views),
            "views_sha256": _sha256_of(views),
        }
        for name, gaussians in (("fit", fit), ("unpacked", unpacked)):
            metrics = measure(
                prepared.recall(gaussians), scene, self.backend, self._lpips, max_alpha=self.config.max_alpha
            )
            found[f"{name}_psnr"] = float(np.mean(metrics.psnr))
            found[f"{name}_ssim"] = float(np.mean(metrics.ssim))
            found[f"{name}_lpips"] = float(np.mean(metrics.lpips)) if self._lpips else -1.0
        return found

    def geometric(self, manifest_row: Facts, unpacked: Gaussians) -> Numbers:
        """Compare the unpacked atlas with the depth and normals of the views that `photometric` measures.

        Returns:
            The columns `GEOMETRY`, with lengths in units of the published Gaussians; none if the views have no depth.
        """
        prepared = self.prepared(manifest_row, with_geometry=True)
        found = compare_geometry(
            prepared.recall(unpacked),
            chosen(prepared.measured, self._most),
            backend=self.backend,
            max_alpha=self.config.max_alpha,
            unit=1.0 if prepared.placed is prepared.frame else prepared.frame.unit,
        )
        if found is None:
            return {}
        numbers = (found.depth_l1, found.normal_degrees, found.covered, found.chamfer, *found.f_scores, found.iou)
        return dict(zip(GEOMETRY, numbers, strict=True))


def chosen(views: Views, most: int) -> Views:
    """At most `most` views, evenly among `views`; all if it is 0."""
    count = min(most, len(views)) if most else len(views)
    return views[np.unique(np.linspace(0, len(views) - 1, count).round().astype(np.intp))]


def one_thread() -> None:
    """Make torch use one thread, by whose number its sums would differ."""
    torch.set_num_threads(1)


def _sha256_of(views: Views) -> str:
    """Hash of the images: poses depend on the frame of the fit, which other training views give another."""
    shape = ",".join(map(str, views.images.shape))
    return hashlib.sha256(shape.encode() + np.ascontiguousarray(views.images).tobytes()).hexdigest()
