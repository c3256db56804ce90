"""Preparation of an object's views for its fit: which are used, and in which coordinates."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np

from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.fitter.agreement.gate import gate
from gaussianverse.fitter.config import FitConfig
from gaussianverse.fitter.errors import BadInput, MissingViews, TooFewGaussians
from gaussianverse.fitter.frame import Frame, frame_of, published_frame
from gaussianverse.fitter.inputs import check_inputs, same_picture, without_mask
from gaussianverse.fitter.quality import quality
from gaussianverse.fitter.sources.selection import Selection
from gaussianverse.fitter.view_hash import view_hash
from gaussianverse.fitter.views import Views, load_views, resize, split_heldout, split_test

HELDOUT, TRAIN = "heldout", "train"
NO_MASK = "alpha is 255 everywhere, and other views show background there"


@dataclass(frozen=True)
class Prepared:
    """Views of one object as its fit takes them.

    Attributes:
        train: views that are trained on, in the fit's frame.
        heldout: views that are measured on, in the fit's frame.
        frame: the fit's frame, in the world of the views.
        placed: the frame in which Gaussians are published; the world itself if `frame.WORLD`.
        stats: what is known of the views: n_views, n_heldout, n_blank, n_views_used, views_skipped, pose_agreement,
            views_doubtful, n_same_picture, coverage, colour_std, complexity, normal_agreement, mask_agreement,
            view_hash, input_sha256, and `placed`.
        seconds: how long the preparation took.
    """

    train: Views
    heldout: Views
    frame: Frame
    placed: Frame
    stats: dict[str, float | int | str]
    seconds: float

    @property
    def measured(self) -> Views:
        """The views that metrics are of, in the fit's frame: those held out, or else those trained on."""
        return self.heldout if len(self.heldout) else self.train

    @property
    def metrics_on(self) -> str:
        """Which views `measured` are: "heldout" or "train"."""
        return HELDOUT if len(self.heldout) else TRAIN

    def publish(self, gaussians: Gaussians) -> Gaussians:
        """Transform Gaussians from the fit's frame to the one they are published in."""
        return gaussians if self.placed is self.frame else self.frame.world(gaussians)

    def recall(self, gaussians: Gaussians) -> Gaussians:
        """Transform published Gaussians back to the fit's frame, which undoes `publish` but for rounding."""
        return gaussians if self.placed is self.frame else self.frame.local(gaussians)


def load_to_fit(
    path: str | os.PathLike[str],
    format: str,
    config: FitConfig,
    *,
    full_size: bool = False,
    with_geometry: bool = False,
) -> Views:
    """Load the views of one object as a fit of this configuration takes them; otherwise as `load_views`.

    Args:
        path: see `load_views`.
        format: see `load_views`.
        config: configuration of the fit.
        full_size: keep the views' size, to which `prepare` does what the loader else does.
        with_geometry: read depth and normals as well.
    """
    return load_views(
        path,
        format,
        size=None if full_size else config.size,
        min_views=config.min_views,
        with_depth=with_geometry or config.init == "depth",
        with_normals=with_geometry,
        max_bad_views=config.max_bad_views,
        inputs=config.inputs,
        with_test=config.heldout == "test",
        compared_views=config.compared_views,
    )


def files_to_fit(format: str, config: FitConfig) -> Selection:
    """The files that `load_to_fit` reads without `with_geometry`."""
    return Selection(format, config.init == "depth", config.compared_views, config.heldout == "test")


def prepare(views: Views, config: FitConfig) -> Prepared:
    """Shrink the views, leave out blank, wrong and repeated ones, hold some out, and find the frames.

    Raises:
        TooFewGaussians: all views are blank.
        InconsistentViews: cameras and silhouettes contradict each other, and `config.pose_gate` is "refuse".
        MissingViews: fewer than `config.min_views` training views are left, or none of a test split to be held out.
        BadInput: alpha has no background, cameras were rounded, or float32 cannot hold the object's positions and
            `config.normalise` is "never".
    """
    started = time.perf_counter()
    views = resize(views, config.size)
    # a blank view has no information, and would make the visual hull empty
    shown = np.flatnonzero(views.images[..., 3].any(axis=(1, 2)))
    if not len(shown):
        raise TooFewGaussians("every view is fully transparent, so there is nothing to fit; check the renders")
    check_inputs(views[shown], config.inputs)
    masked, no_mask = _masked(views[shown], config)
    gated = gate(masked, config.pose_gate, config.max_bad_views)
    train, heldout = _split(gated.views, config)
    if len(train) < config.min_views:
        raise MissingViews(
            f"{len(train)} distinct training views are not blank, expected at least {config.min_views}; render more, "
            "or lower min_views"
        )
    wrong = [f"{name}: {NO_MASK}" for name in no_mask]
    wrong += [f"{name}: contradicts the other views" for name in gated.left_out]
    frame = frame_of(train)
    placed = published_frame(train, frame, config.normalise)
    stats: dict[str, float | int | str] = {
        "n_views": len(train),
        "n_heldout": len(heldout),
        "n_blank": len(views) - len(shown),
        "n_views_used": len(train) + len(heldout),
        "views_skipped": "; ".join([*views.skipped, *wrong]),
        "pose_agreement": gated.agreement,
        "views_doubtful": ", ".join(gated.doubtful),
        "n_same_picture": same_picture(train),
        **quality(train),
        "normal_agreement": views.normal_agreement,
        "mask_agreement": views.mask_agreement,
        "view_hash": view_hash(gated.views, frame.center),
        "input_sha256": views.input_sha256,
        **placed.stats,
    }
    seconds = time.perf_counter() - started
    return Prepared(frame.views(train), frame.views(heldout), frame, placed, stats, seconds)


def _split(views: Views, config: FitConfig) -> tuple[Views, Views]:
    """The views that are fitted and those that are held out."""
    if config.heldout == "every":
        return split_heldout(views, config.heldout_every)
    train, heldout = split_test(views)
    if not len(heldout):
        raise MissingViews(
            "no view of the test split, which fit.heldout = 'test' holds out, is left: they are blank, contradict "
            "the other views or repeat poses of training views; mend them, or set it to 'every'"
        )
    return train, heldout


def _masked(views: Views, config: FitConfig) -> tuple[Views, list[str]]:
    """Leave out views without a mask; returns the others and the names of those."""
    lacking = without_mask(views) if config.inputs.opaque == "refuse" else np.zeros(0, np.intp)
    names = [views.names[v] for v in lacking]
    if len(names) > config.max_bad_views * len(views) + 1e-9:
        raise BadInput(
            f"view {names[0]}: {NO_MASK}, as in {len(names)} of {len(views)} views (fit.max_bad_views is "
            f"{config.max_bad_views:g}); render with a transparent background, or set fit.inputs.opaque = 'keep'"
        )
    return views[np.setdiff1d(np.arange(len(views)), lacking)], names
