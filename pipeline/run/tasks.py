"""The bodies of the tasks: a row of the manifest in, bytes into the store and a flat dict out.

Plain functions, of which `executor` makes Ray tasks. They raise nothing: a fault comes back as a dict with
its reason, and the driver decides what follows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gaussianverse import atlas
from gaussianverse.atlas.dataset_format import ATLAS, OK, QUARANTINED, SPLATS, VIEWS
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.reader.views import CAMERAS, ReferenceViews, images_sha256
from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.errors import NotFound, StoreError
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.fitter import fit_object as fit_views
from gaussianverse.fitter import load_views
from gaussianverse.fitter.errors import BadInput, FitError
from gaussianverse.fitter.lpips import LpipsUnavailable
from gaussianverse.fitter.rasterize import BackendUnavailable
from gaussianverse.fitter.reference import reference_views
from gaussianverse.fitter.views import Views
from gaussianverse.pipeline.dataset import pack, records, shards
from gaussianverse.pipeline.dataset.contents import atlas_array
from gaussianverse.pipeline.dataset.run_file import Run, load_cached
from gaussianverse.pipeline.dataset.schemas import FACTS, JOURNAL, Facts, known
from gaussianverse.pipeline.errors import FragmentError, ShardConflict
from gaussianverse.pipeline.policy import CONFLICT, DAMAGED, INFRASTRUCTURE, failed, seed_of
from gaussianverse.pipeline.run import inputs, splats
from gaussianverse.pipeline.run.executor import Job
from gaussianverse.pipeline.run.fidelity import atlas_psnr
from gaussianverse.pipeline.store.publish import Published


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
        record = pack.pack(storage, run, stage, shard)
        return {"status": OK, "samples": record["samples"]}

    return _guarded(body)


def _open(job: Job) -> tuple[Storage, Run]:
    torch.set_num_threads(1)
    return open_storage(job.url, job.store), load_cached(job.url, job.store)


def _fit(job: Job, row: Facts, attempt: int, nan_losses: int) -> Facts:
    storage, run = _open(job)
    watch, stage = records.Stopwatch(attempt), SPLATS
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
        VIEWS,
        row,
        run,
        status=OK,
        n_reference_views=len(made),
        reference_size=run.views_size,
        images_sha256=images_sha256(members),
    )
    records.publish_sample(storage, VIEWS, facts, cameras, watch, {}, images=members)


def _atlas(job: Job, row: Facts, attempt: int) -> Facts:
    storage, run = _open(job)
    watch, stage = records.Stopwatch(attempt), ATLAS
    fit = shards.read_record(storage, SPLATS, int(row["shard"]), str(row["uid"]))
    if not fit.ok:
        records.publish_quarantine(storage, stage, row, run, fit.facts, watch)
        return {"status": QUARANTINED, "uid": row["uid"]}
    gaussians = Gaussians.from_bytes(fit.main(SPLATS))
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
    except (StoreError, BackendUnavailable, LpipsUnavailable) as fault:
        return failed(INFRASTRUCTURE, fault)
    except (MemoryError, torch.OutOfMemoryError) as fault:
        return failed("out_of_memory", fault)
    except Exception as fault:  # whatever it is, it is this object's until the driver has judged it
        return failed("cuda_error" if "CUDA" in str(fault) else "unknown", fault)
