"""The bodies of the tasks: a row of the manifest in, bytes into the store and a flat dict out.

With `fidelity`, `splats` and `export` the only files of this room that know fitter and atlas. Plain functions, of
which `pipeline.executor` makes Ray tasks. They raise nothing: a fault comes back as a dict with its reason, and
the driver decides what follows.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch

import atlas
from atlas.config import AtlasConfig
from atlas.errors import AtlasError, DatasetError
from atlas.gaussians import Gaussians, canonical_quats
from atlas.moments import Moments
from atlas.plane import plane_of, points_of
from atlas.sphere import sphere_of
from atlas.views import CAMERAS, ReferenceViews, images_sha256, suffixes
from fitter import fit_object as fit_views
from fitter import load_views
from fitter.config import FitConfig
from fitter.errors import BadInput, FitError
from fitter.lpips import LpipsUnavailable, load_lpips
from fitter.photometric import l1_ssim
from fitter.rasterize import BackendUnavailable, rasterization
from fitter.reference import reference_views
from fitter.views import Views
from pipeline import inputs, layout, pack, records, shards, splats
from pipeline.config import RunConfig
from pipeline.errors import FragmentError, NotFound, PipelineError, ShardConflict, StorageError
from pipeline.executor import Job
from pipeline.fidelity import atlas_psnr
from pipeline.identity import Run, load_cached
from pipeline.policy import CONFLICT, DAMAGED, INFRASTRUCTURE, failed, seed_of
from pipeline.publish import Published
from pipeline.schemas import FACTS, JOURNAL, OK, QUARANTINED, Facts, known, message
from pipeline.storage import Storage, open_storage

CHANNELS = (
    "offset_x", "offset_y", "offset_z", "opacity", "red", "green", "blue", "opacity",
    "scale_x", "scale_y", "scale_z", "opacity", "quat_w", "quat_x", "quat_y", "quat_z",
)  # fmt: skip
STD_FLOOR = 1e-6
QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
"""To 1/64 of their value, see `Moments`."""


def fit_object(job: Job, row: Facts, attempt: int, nan_losses: int) -> Facts:
    """Stage 1: the object's views, or the Gaussians that it is already, to the fragment of its Gaussians.

    Args:
        job: of the run.
        row: of the manifest, with its shard.
        attempt: which attempt this is, from 1.
        nan_losses: how many earlier attempts ended with a loss that was not finite; changes the seed.
    """
    return _guarded(lambda: _fit(job, row, attempt, nan_losses))


def atlas_object(job: Job, row: Facts, attempt: int) -> Facts:
    """Stage 2: the object's fragment of Gaussians to the fragment of its atlas."""
    return _guarded(lambda: _atlas(job, row, attempt))


def pack_shard(job: Job, stage: str, shard: int) -> Facts:
    """A shard whose fragments are all there to its tar, tables and commit record."""

    def body() -> Facts:
        storage, run = _open(job)
        summarise = (lambda mains: moments_of(mains, run)) if stage == layout.ATLAS else None
        record = pack.pack(storage, run, stage, shard, summarise)
        return {"status": OK, "samples": record["samples"]}

    return _guarded(body)


def _open(job: Job) -> tuple[Storage, Run]:
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    return open_storage(job.url, job.store), load_cached(job.url, job.store)


def _fit(job: Job, row: Facts, attempt: int, nan_losses: int) -> Facts:
    storage, run = _open(job)
    watch, stage = records.Stopwatch(attempt), layout.SPLATS
    with _located(job, row) as path:
        if row["format"] in splats.FORMATS:
            if run.settings.views:
                raise BadInput("Gaussians come without views, and run.views asks for some; set run.views=0")
            gaussians, found = splats.read_splats(path, str(row["format"]))
        else:
            views, seconds_load = _loaded(run, row, path)
            if run.settings.views:
                # before the fit: whoever finds the splats' fragment need not ask for the views'
                _publish_views(storage, run, row, views, records.Stopwatch(attempt))
            gaussians, found = _fitted(job, run, row, views, nan_losses)
            found["seconds_load"] = seconds_load
    facts = records.facts_of(stage, row, run, status=OK, **known(FACTS[stage], found))
    measured = known(JOURNAL[stage], found)
    ended = records.publish_sample(storage, stage, facts, gaussians.to_bytes(), watch, measured)
    spent = 0.0 if ended is Published.ADOPTED else time.perf_counter() - watch.clock
    return {"status": OK, "uid": row["uid"], "fit_seconds": spent}


@contextmanager
def _located(job: Job, row: Facts) -> Iterator[Path]:
    """The object's `views` as a local path; faults name them as the manifest does, wherever that path is."""
    with inputs.local(inputs.resolve(str(row["views"]), job.base), job.store) as path:
        try:
            yield path
        except (FitError, AtlasError) as fault:
            raise type(fault)(str(fault).replace(str(path), str(row["views"]))) from fault


def _loaded(run: Run, row: Facts, path: Path) -> tuple[Views, float]:
    """The views that lie at `path`, and how long that took; whole where reference views are made of them, which
    the fit does not notice, since it shrinks them in the same way."""
    config, started = run.fit, time.perf_counter()
    views = load_views(
        path,
        str(row["format"]),
        size=None if run.settings.views else config.size,
        min_views=config.min_views,
        with_depth=config.init == "depth",
    )
    return views, time.perf_counter() - started


def _fitted(
    job: Job, run: Run, row: Facts, views: Views, nan_losses: int
) -> tuple[Gaussians, dict[str, Any]]:
    """The fit, and what it measured."""
    seed = seed_of(run.settings.seed, str(row["uid"]), nan_losses)
    fit = fit_views(views, run.fit, seed=seed, deadline=time.monotonic() + job.fit_deadline_s)
    return fit.gaussians, {**fit.stats, "seed": seed}


def _publish_views(storage: Storage, run: Run, row: Facts, views: Views, watch: records.Stopwatch) -> None:
    """The fragment of an object's reference views; they are a function of the views and the configuration."""
    chosen = reference_views(views, run.settings.views, run.views_size)
    made = ReferenceViews(chosen.images, chosen.viewmats.astype(np.float32), chosen.Ks.astype(np.float32))
    members = made.to_members()
    cameras = members.pop(CAMERAS)
    facts = records.facts_of(
        layout.VIEWS,
        row,
        run,
        status=OK,
        n_reference_views=len(made),
        reference_size=run.views_size,
        images_sha256=images_sha256(members),
    )
    records.publish_sample(storage, layout.VIEWS, facts, cameras, watch, {}, images=members)


def _atlas(job: Job, row: Facts, attempt: int) -> Facts:
    storage, run = _open(job)
    watch, stage = records.Stopwatch(attempt), layout.ATLAS
    fit = shards.read_record(storage, layout.SPLATS, int(row["shard"]), str(row["uid"]))
    if not fit.ok:
        records.publish_quarantine(storage, stage, row, run, fit.facts, watch)
        return {"status": QUARANTINED, "uid": row["uid"]}
    gaussians = Gaussians.from_bytes(fit.main(layout.SPLATS))
    made = atlas.pack(gaussians, run.atlas)
    data = made.to_bytes()
    stored = atlas.unpack(atlas_array(data, run.atlas), run.atlas)
    found = {**known(FACTS[stage], made.stats), "atlas_psnr": atlas_psnr(gaussians, stored)}
    facts = records.facts_of(stage, row, run, status=OK, **found)
    measured = {**known(JOURNAL[stage], made.stats), "device": "cpu"}
    records.publish_sample(storage, stage, facts, data, watch, measured)
    return {"status": OK, "uid": row["uid"]}


def _guarded(body: Callable[[], Facts]) -> Facts:
    """The result of `body`, or the fault that kept it from one."""
    try:
        return body()
    except (FitError, AtlasError) as fault:
        return failed(fault.reason, fault)
    except inputs.InputTooLarge as fault:
        return failed("bad_input", fault)
    except inputs.NoViews as fault:
        return failed("missing_views", fault)
    except ShardConflict as fault:
        return failed(CONFLICT, fault)
    except (FragmentError, NotFound) as fault:
        return failed(DAMAGED, fault)
    except (StorageError, BackendUnavailable, LpipsUnavailable) as fault:
        return failed(INFRASTRUCTURE, fault)
    except (MemoryError, torch.OutOfMemoryError) as fault:
        return failed("out_of_memory", fault)
    except Exception as fault:  # whatever it is, it is this object's until the driver has judged it
        return failed("cuda_error" if "CUDA" in str(fault) else "unknown", fault)


def npy(array: Any) -> bytes:
    """The .npy file of an array."""
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=False)
    return sink.getvalue()


def atlas_array(data: bytes, config: AtlasConfig) -> npt.NDArray[Any]:
    """An atlas from its .npy file: [size, size, 16] in the configured dtype, finite.

    Raises:
        AtlasError: it is not.
    """
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as fault:
        raise AtlasError(f"not a .npy file: {fault}") from fault
    expected = (config.size, config.size, len(CHANNELS))
    if array.shape != expected or array.dtype != np.dtype(config.dtype):
        raise AtlasError(f"{array.dtype} {array.shape}, expected {config.dtype} {expected}")
    if not np.isfinite(array).all():
        raise AtlasError(f"{int((~np.isfinite(array)).sum())} values are not finite")
    return np.asarray(array)


def check_splats(data: bytes) -> int:
    """Number of Gaussians in a .splat.npz. Raises AtlasError where it is none."""
    return len(Gaussians.from_bytes(data))


def check_atlas(data: bytes, config: AtlasConfig) -> int:
    """Number of live Gaussians in an .atlas.npy. Raises AtlasError where it is none, or does not unpack."""
    return len(atlas.unpack(atlas_array(data, config), config))


def check_views(members: Mapping[str, bytes], run: Run) -> int:
    """Number of reference views among an object's members, by suffix. Raises DatasetError where they are not
    as many, or not as large, as the run says."""
    count, size = run.settings.views, run.views_size
    views = ReferenceViews.from_members(members[CAMERAS], [members[name] for name in suffixes(count)])
    if views.images.shape[:2] != (count, size):
        raise DatasetError(
            f"{len(views)} views of {views.images.shape[1]} pixels, expected {count} of {size}"
        )
    return len(views)


def moments_of(mains: Iterable[bytes], run: Run) -> bytes:
    """Count, mean and M2 of a shard's atlases."""
    config = run.atlas
    moments = Moments(config.size)
    for data in mains:
        moments.add(atlas_array(data, config))
    return bytes(moments.to_bytes())


def merged_statistics(moments: Iterable[bytes], run: Run) -> dict[str, bytes]:
    """The files of `layout.STATISTICS`, of the moments of all shards in their order.

    Mean and standard deviation per pixel and channel, float32 [size, size, 16]; range and quantiles per channel;
    the sphere point behind each pixel, float64 [size, size, 3], which added to the offsets gives positions.
    """
    config = run.atlas
    total = Moments(config.size)
    for data in moments:
        total.merge(Moments.from_bytes(data))
    return {
        layout.MEAN: npy(np.asarray(total.mean(), np.float32)),
        layout.STD: npy(np.asarray(total.std(STD_FLOOR), np.float32)),
        layout.CHANNELS: (json.dumps(channel_statistics(total), indent=1) + "\n").encode(),
        layout.POINTS: npy(points_of(config).reshape(config.size, config.size, 3)),
    }


def channel_statistics(moments: Moments) -> dict[str, Any]:
    """The content of channels.json: range and quantiles of each channel over all cells, padding included."""
    quantiles = moments.quantiles(QUANTILES)
    return {
        "atlases": moments.count,
        "fractions": list(QUANTILES),
        "channels": [
            {
                "name": name,
                "min": float(moments.lowest[k]),
                "max": float(moments.highest[k]),
                "quantiles": [float(value) for value in quantiles[k]],
            }
            for k, name in enumerate(CHANNELS)
        ],
    }


def representation(config: AtlasConfig) -> dict[str, Any]:
    """What a reader must know of the arrays, for run.json."""
    sphere, plane = sphere_of(config), plane_of(config)
    return {
        "channels": list(CHANNELS),
        "dtype": config.dtype,
        "sphere_sha256": hashlib.sha256(np.ascontiguousarray(sphere, "<f8").tobytes()).hexdigest(),
        "plane_sha256": hashlib.sha256(np.ascontiguousarray(plane, "<i8").tobytes()).hexdigest(),
    }


def check_machine(config: FitConfig) -> None:
    """Whether this machine can fit as the configuration says; asked before anything runs.

    Raises:
        PipelineError: no GPU for the gsplat backend, or the LPIPS weights are not there.
    """
    if config.backend == "gsplat" and not torch.cuda.is_available():
        raise PipelineError(
            "fit.backend is gsplat and torch sees no CUDA device here; use --profile cpu, join a cluster that "
            "has GPUs with --ray-address, or install the CUDA build of torch"
        )
    if config.loss.lpips_net != "none":
        try:
            load_lpips(config.loss.lpips_net, config.loss.lpips_weights, torch.device("cpu"))
        except LpipsUnavailable as fault:
            raise PipelineError(message(fault)) from fault


def examine_node(config: RunConfig) -> str:
    """Why the machine that this runs on cannot do the work; "" if it can, and its kernels are compiled."""
    try:
        check_machine(config.fit)
        warm_up(config.fit, config.atlas)
    except PipelineError as fault:
        return message(fault)
    return ""


def warm_up(config: FitConfig, atlas_config: AtlasConfig) -> None:
    """Compile the kernels that a fit and an atlas need, so that workers find them in the cache.

    Raises:
        PipelineError: they do not compile, or cannot run here.
    """
    check_machine(replace(config, loss=replace(config.loss, lpips_net="none")))
    rng = np.random.default_rng(0)
    count = 64
    device = torch.device("cuda" if config.backend == "gsplat" else "cpu")

    def values(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(0.1, 0.4, shape).astype(np.float32)).to(device).requires_grad_()

    viewmats, Ks = torch.eye(4, device=device)[None], torch.eye(3, device=device)[None] * 16
    Ks[:, 2, 2] = 1
    means, quats, scales, colors = values(count, 3), values(count, 4), values(count, 3), values(count, 3)
    opacities = values(count)
    backend = None if config.backend == "auto" else config.backend
    try:
        image, _, _ = rasterization(
            means, quats, scales, opacities, colors, viewmats, Ks, 16, 16, backend=backend
        )
        l1, ssim = l1_ssim(image, torch.zeros_like(image))
        (l1 + ssim).backward()  # type: ignore[no-untyped-call]
        fields = [t.detach().cpu().numpy() for t in (means, scales, quats, opacities, colors)]
        fields[2] = canonical_quats(fields[2])
        gaussians = Gaussians(*fields)
        atlas.pack(gaussians, replace(atlas_config, size=8, min_smoothness=0.0))
    except (BackendUnavailable, AtlasError) as fault:
        raise PipelineError(message(fault)) from fault
