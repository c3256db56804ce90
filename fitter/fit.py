"""Fit of one object: at most tau Gaussians from its views (paper section 3 and A.1)."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gaussianverse.atlas.gaussians import Gaussians, canonical_quats
from gaussianverse.fitter.anchors import Anchors, Decoded, make_anchors
from gaussianverse.fitter.config import FitConfig
from gaussianverse.fitter.errors import LowPsnr, NanLoss, TooFewGaussians
from gaussianverse.fitter.growth import Statistics, grow, observe, survivors
from gaussianverse.fitter.initial import INITIAL, camera_extent, neighbour_distance
from gaussianverse.fitter.memory import peak_mb, reset_peak
from gaussianverse.fitter.metrics import BACKGROUND, ViewMetrics, measure
from gaussianverse.fitter.optimizer import RowAdam
from gaussianverse.fitter.plain import bake, plain_at
from gaussianverse.fitter.plain_fit import fit_plain
from gaussianverse.fitter.prepare import Prepared, prepare
from gaussianverse.fitter.rasterize import device_and_backend
from gaussianverse.fitter.rasterize.limits import ALPHA_MIN
from gaussianverse.fitter.scene import make_scene
from gaussianverse.fitter.training import Progress, Training
from gaussianverse.fitter.views import Views, resize

_HULL_SIZE = 256
"""Longer side in pixels of the views from which plain Gaussians get their first positions; larger cost seconds."""


@dataclass(frozen=True)
class Fit:
    """A finished fit.

    Attributes:
        gaussians: in coordinates about the unit sphere; `prepared.placed.world` takes them to the world of the views.
        stats: a flat dict without None and NaN.
        prepared: the views as they were fitted, and where the Gaussians are in their world.
    """

    gaussians: Gaussians
    stats: dict[str, float | int | str]
    prepared: Prepared


def _fit_anchors(training: Training, anchors: Anchors, extent: float, last: int) -> Anchors:
    config, growth, rates = training.config, training.config.growth, training.config.rates
    scaled = {name: getattr(rates, name) for name in ("features", "scalings")}
    scaled["offsets"] = (rates.offsets[0] * extent, rates.offsets[1] * extent)
    for name in anchors.heads:
        scaled[name] = getattr(rates, f"{name.rsplit('_', 1)[0]}_head")
    adam = RowAdam(anchors.parameters(), scaled)
    anchors = _with_leaves(anchors, adam)
    statistics = Statistics.empty(anchors)
    anchors = training.bounded(anchors, statistics)
    statistics_from = int(growth.statistics_from * config.steps)
    adjust_from, adjust_until = (int(growth.adjust_from * config.steps), int(growth.adjust_until * config.steps))
    # the final ranking needs statistics of every view, like those after an adjust step
    observe_again = last - max(growth.adjust_every, len(training.full))
    for step, view in training.steps(0, last):
        decoded = anchors.decode()
        meta = training.backward(step, view, decoded)
        if statistics_from <= step < adjust_until or step >= observe_again:
            scene, index = training.scene(step), torch.tensor([view])
            with torch.no_grad():
                opacities = anchors.opacities()
            observe(
                statistics, anchors, decoded, opacities, meta,
                scene.viewmats[index], scene.Ks[index], scene.width, scene.height,
            )  # fmt: skip
        del meta, decoded
        adam.step(step / config.steps)
        due = (step + 1) % growth.adjust_every == 0 and step + 1 < last
        if adjust_from <= step < adjust_until and due:
            anchors = _adjust(anchors, statistics, adam, training)
            statistics = Statistics.empty(anchors)
    return training.bounded(anchors, statistics)


def _with_leaves(anchors: Anchors, adam: RowAdam) -> Anchors:
    """Replace the tensors of anchors by the optimiser's."""
    per_anchor = {name: adam.tensors[name] for name in Anchors.PER_ANCHOR}
    return replace(anchors, **per_anchor, heads={name: adam.tensors[name] for name in anchors.heads})


def _adjust(anchors: Anchors, statistics: Statistics, adam: RowAdam, training: Training) -> Anchors:
    """Grow and prune anchors and enforce the bound: one adjust step."""
    growth = training.config.growth
    fresh = grow(anchors, statistics, growth, growth.adjust_every, training.generator)
    keep = survivors(anchors, statistics, growth, growth.adjust_every)
    for name in Anchors.PER_ANCHOR:
        adam.rows(name, keep, fresh[name])
    anchors = replace(
        anchors,
        positions=torch.cat([anchors.positions[keep], fresh["positions"]]),
        alive=torch.cat([anchors.alive[keep], fresh["alive"]]),
    )
    anchors = _with_leaves(anchors, adam)
    old, kept = Statistics.empty(anchors), int(keep.sum())
    for name in ("seen", "visibility", "gradient", "drawn"):
        getattr(old, name)[:kept] = getattr(statistics, name)[keep]
    anchors = training.bounded(anchors, old)
    whole = anchors.alive.any(1)
    if not whole.all():
        for name in Anchors.PER_ANCHOR:
            adam.rows(name, whole)
        anchors = replace(anchors, positions=anchors.positions[whole], alive=anchors.alive[whole])
        anchors = _with_leaves(anchors, adam)
    return anchors


def _finished(decoded: Decoded, tau: int) -> Gaussians:
    """Detach Gaussians, make quaternions canonical, drop invisible ones and keep the tau most opaque."""
    opacities = decoded.opacities.detach()
    scales = decoded.scales.detach()
    for name in ("means", "scales", "quats", "opacities", "colors"):
        finite = torch.isfinite(getattr(decoded, name)).reshape(len(opacities), -1).all(1)
        if not finite.all():
            raise NanLoss(
                f"{name} of {int((~finite).sum())} of {len(finite)} Gaussians are not finite after the last step"
            )
    shown = (opacities >= ALPHA_MIN) & (scales > 0).all(1)
    rows = shown.nonzero()[:, 0]
    if len(rows) > tau:
        order = torch.argsort(opacities[rows], descending=True, stable=True)[:tau]
        rows = rows[order.sort().values]
    index = rows.cpu().numpy()
    fields = [
        t.detach().cpu().numpy()[index] for t in (decoded.means, scales, decoded.quats, opacities, decoded.colors)
    ]
    fields[2] = canonical_quats(fields[2])
    return Gaussians(*fields)


def _doubled(gaussians: Gaussians, count: int) -> Gaussians:
    """Exactly `count` Gaussians: the most opaque are doubled, two in one place, as opaque there as one was."""
    while missing := count - len(gaussians):
        opaque = np.argsort(-gaussians.opacities, kind="stable")[:missing]
        opacities = gaussians.opacities.copy()
        opacities[opaque] = 1 - np.sqrt(1 - opacities[opaque])
        gaussians = replace(gaussians, opacities=opacities)
        gaussians = gaussians[np.concatenate([np.arange(len(gaussians)), opaque])]
    return gaussians


def fit_object(
    views: Views, config: FitConfig, *, seed: int = 0, deadline: float | None = None, progress: Progress | None = None
) -> Fit:
    """Fit one object.

    On the CPU, equal views, configuration and seed give equal bytes for any number of threads.

    Args:
        views: at least `config.min_views` that are not blank, in any unit of length and at any place; shrunk to
            `config.size`.
        config: see `FitConfig`.
        seed: seed of all random numbers.
        deadline: `time.monotonic()` after which `FitTimeout` is raised, checked at every step.
        progress: called after every step with (steps done, number of Gaussians, loss).

    Returns:
        The Gaussians, where they are in the world, and a flat dict: what `Prepared.stats` has, n_anchors,
        n_gaussians, n_pruned (by the ranking, over all adjust steps), steps, loss, psnr, psnr_min, ssim, ssim_min,
        lpips and lpips_max (-1 without a backbone), metrics_on ("heldout" or "train"), background, bbox_min/max_x/y/z
        and thinness (published), backend, device, lpips_sha256, seconds_init/fit/metrics, peak_mb.

    Raises:
        FitError: a subclass from `fitter.errors`, with its `reason`.
        BackendUnavailable, LpipsUnavailable: the machine lacks something that the configuration requires.
        ConfigError: the configuration is not possible with this backend or at this size.
    """
    reset_peak()
    return fit_prepared(prepare(views, config), config, seed=seed, deadline=deadline, progress=progress)


def fit_prepared(
    prepared: Prepared,
    config: FitConfig,
    *,
    seed: int = 0,
    deadline: float | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Fit one object whose views are `prepare`d with this configuration; otherwise as `fit_object`.

    `peak_mb` counts from the last `memory.reset_peak`, which is the caller's.
    """
    # torch's sums depend on its number of threads; for tensors of this size, threads also cost more than they save
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _fit_prepared(prepared, config, seed, deadline, progress)
    finally:
        torch.set_num_threads(threads)


def measure_published(gaussians: Gaussians, prepared: Prepared, backend: str, max_alpha: float) -> ViewMetrics:
    """Metrics of Gaussians in the frame of publication, on the views that the fit is measured on; no LPIPS.

    Rendered in the fit's frame, whose lengths the near plane suits, as the fit itself is.
    """
    device, backend = device_and_backend(backend)
    return measure(prepared.recall(gaussians), make_scene(prepared.measured, device), backend, None, max_alpha)


def _fit_prepared(
    prepared: Prepared, config: FitConfig, seed: int, deadline: float | None, progress: Progress | None
) -> Fit:
    started = time.perf_counter() - prepared.seconds
    train, heldout = prepared.train, prepared.heldout
    training = Training(train, config, seed, deadline, progress)
    if config.model == "plain":
        n_anchors, initialised, decoded = _fit_from_plain(training, train, seed)
    else:
        n_anchors, initialised, decoded = _fit_from_anchors(training, train, seed)
    gaussians = _finished(decoded, config.tau)
    if len(gaussians) < config.min_gaussians:
        raise TooFewGaussians(
            f"{len(gaussians)} Gaussians are left after {config.steps} steps, expected at least "
            f"{config.min_gaussians} (min_gaussians)"
        )
    if config.counts.exact:
        gaussians = _doubled(gaussians, config.tau)
    fitted = time.perf_counter()
    scene = make_scene(heldout, training.device) if len(heldout) else training.full
    metrics = measure(gaussians, scene, training.backend, training.lpips, config.max_alpha)
    mean_psnr = float(np.mean(metrics.psnr))
    if mean_psnr < config.min_psnr:
        raise LowPsnr(f"mean PSNR on white is {mean_psnr:.2f} dB, expected at least {config.min_psnr:.2f} (min_psnr)")
    gaussians = prepared.publish(gaussians)
    has_lpips = training.lpips is not None
    stats: dict[str, float | int | str] = {
        **prepared.stats,
        "n_anchors": n_anchors,
        "n_gaussians": len(gaussians),
        "n_pruned": training.pruned,
        "steps": config.steps,
        "loss": training.loss,
        "psnr": mean_psnr,
        "psnr_min": float(np.min(metrics.psnr)),
        "ssim": float(np.mean(metrics.ssim)),
        "ssim_min": float(np.min(metrics.ssim)),
        "lpips": float(np.mean(metrics.lpips)) if has_lpips else -1.0,
        "lpips_max": float(np.max(metrics.lpips)) if has_lpips else -1.0,
        "metrics_on": prepared.metrics_on,
        "background": BACKGROUND,
        **gaussians.bounds(),
        "backend": training.backend,
        "device": torch.cuda.get_device_name() if training.device.type == "cuda" else "cpu",
        "lpips_sha256": training.lpips_sha256,
        "seconds_init": initialised - started,
        "seconds_fit": fitted - initialised,
        "seconds_metrics": time.perf_counter() - fitted,
        "peak_mb": peak_mb(),
    }
    return Fit(gaussians, stats, prepared)


def _fit_from_anchors(training: Training, views: Views, seed: int) -> tuple[int, float, Decoded]:
    """Fit anchors, and from `bake_at` on the plain Gaussians that they are baked into.

    Returns:
        The number of anchors, `time.perf_counter()` at the first step, and all Gaussians.
    """
    config, extent = training.config, camera_extent(views)
    count = min(config.initial_anchors, -(-config.tau // config.k))
    positions, spacing = _initial_points(training, views, count, seed)
    anchors = make_anchors(positions, spacing, config.k, config.feature_dim, training.generator)
    initialised = time.perf_counter()
    baked_at = round(config.bake_at * config.steps)
    anchors = _fit_anchors(training, anchors, extent, baked_at)
    with torch.no_grad():
        decoded = anchors.decode()
    if baked_at < config.steps:
        plain = bake(decoded)
        if not len(plain):
            raise TooFewGaussians(f"no Gaussian has positive opacity after {baked_at} steps")
        decoded = fit_plain(training, plain, extent, baked_at)
    return len(anchors), initialised, decoded


def _fit_from_plain(training: Training, views: Views, seed: int) -> tuple[int, float, Decoded]:
    """Fit plain Gaussians from the first step; returns what `_fit_from_anchors` does, with 0 anchors."""
    config, small = training.config, resize(views, _HULL_SIZE)
    positions, spacing = _initial_points(training, small, min(config.initial_anchors, config.tau), seed)
    initialised = time.perf_counter()
    return 0, initialised, fit_plain(training, plain_at(positions, spacing), camera_extent(views), 0)


def _initial_points(training: Training, views: Views, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Positions [count, 3] to start from, and the distance of each to its neighbours [count]."""
    points = INITIAL[training.config.init](views, count, np.random.default_rng(seed))
    arrays = (points, neighbour_distance(points))
    positions, spacing = (torch.from_numpy(a).float().to(training.device) for a in arrays)
    return positions, spacing
