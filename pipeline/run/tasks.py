"""Bodies of the tasks: each takes a row of the manifest, publishes bytes and returns a flat dict.

They are plain functions, which `ray_executor` turns into Ray tasks. They raise nothing: a failure is returned as a
dict with its reason, and the driver decides what to do.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch

from gaussianverse import atlas
from gaussianverse.atlas.dataset_format import ATLAS, OK, QUARANTINED, SPLATS, VIEWS
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.os_errors import LASTING, describe, is_machines, mend_of
from gaussianverse.atlas.reader.views import CAMERAS, ReferenceViews, images_sha256
from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.errors import NotFound, StoreError, StoreRefused
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.fitter.config import FitConfig
from gaussianverse.fitter.errors import BadInput, FitError
from gaussianverse.fitter.fit import Fit, fit_prepared
from gaussianverse.fitter.lpips import LpipsUnavailable
from gaussianverse.fitter.memory import reset_peak
from gaussianverse.fitter.prepare import files_to_fit, load_to_fit, prepare
from gaussianverse.fitter.rasterize import BackendUnavailable
from gaussianverse.fitter.reduce import reduce
from gaussianverse.fitter.reference import reference_views
from gaussianverse.fitter.views import Views
from gaussianverse.pipeline.dataset import pack, records, shards
from gaussianverse.pipeline.dataset.manifest_rows import ORIGIN
from gaussianverse.pipeline.dataset.members import atlas_array
from gaussianverse.pipeline.dataset.run_file import Run, load_cached
from gaussianverse.pipeline.dataset.schemas import FACTS, FRAME, JOURNAL, Facts, known
from gaussianverse.pipeline.errors import DamagedFragment, FragmentError, ShardConflict
from gaussianverse.pipeline.node.memory import memory_shortage
from gaussianverse.pipeline.policy import CONFLICT, DAMAGED, INFRASTRUCTURE, UNREAD, failed, seed_of
from gaussianverse.pipeline.run import ahead, inputs, splats, taking
from gaussianverse.pipeline.run.executor import TAKEN, Job
from gaussianverse.pipeline.run.fidelity import atlas_heldout_psnr, atlas_psnr
from gaussianverse.pipeline.run.following import NEXT
from gaussianverse.pipeline.run.neighbours import ALONE, BESIDE
from gaussianverse.pipeline.run.reading import Unreachable, Unread, local_views, settled
from gaussianverse.pipeline.run.reuse import reused
from gaussianverse.pipeline.run.splat_files import split_address
from gaussianverse.pipeline.store.publish import Published


def fit_object(
    job: Job, row: Facts, attempt: int, nan_losses: int, tell: Callable[[float], None] = lambda share: None
) -> Facts:
    """Stage 1: fit the views of a row of the manifest, or read its Gaussians, and publish the fragment.

    Attempts count from 1; `nan_losses`, the number of those whose loss was not finite, changes the seed. `tell` is
    called after each step with the share of the steps that are done, 0 to 1.
    """
    return _guarded(lambda: _fit(job, row, attempt, nan_losses, tell), alone=ALONE in row)


def atlas_object(job: Job, row: Facts, attempt: int) -> Facts:
    """Stage 2: build the atlas of an object's Gaussians and publish its fragment."""
    return _guarded(lambda: _atlas(job, row, attempt), alone=ALONE in row)


def pack_shard(job: Job, stage: str, shard: int) -> Facts:
    """Pack a shard, all of whose fragments exist, into its tar, tables and commit record."""

    def body() -> Facts:
        storage, run = _open(job)
        with _discarding(storage):
            record = pack.pack(storage, run, stage, shard)
        return {"status": OK, "samples": record["samples"]}

    return _guarded(body)


def _open(job: Job) -> tuple[Storage, Run]:
    torch.set_num_threads(1)
    return open_storage(job.url, job.store), load_cached(job.url, job.store, job.number)


def _fit(job: Job, row: Facts, attempt: int, nan_losses: int, tell: Callable[[float], None]) -> Facts:
    storage, run = _open(job)
    if row.get(ORIGIN, -1) >= 0:
        return taking.take_fit(job, storage, run, row)
    watch, stage, taken = records.Stopwatch(attempt), SPLATS, None
    if row["fault"]:
        raise BadInput(row["fault"])
    if row["format"] in splats.FORMATS:
        if run.settings.views:
            raise BadInput("Gaussians come without views, and run.views asks for some; set run.views=0")
        place, key = split_address(str(row["views"]))
        beside = [split_address(other)[0] for other in _beside(row)]
        with local_views(job, place, beside) as path:
            gaussians, found = splats.read_splats(
                path, str(row["format"]), run.splats, key=key, normalise=run.fit.normalise
            )
    else:
        config, started = run.fit, time.perf_counter()
        reset_peak()
        load = partial(
            load_to_fit,
            format=str(row["format"]),
            config=config,
            full_size=run.settings.views > 0,  # reference views need it
        )
        wanted = files_to_fit(str(row["format"]), config)
        with local_views(job, str(row["views"]), _beside(row), load, wanted) as path:
            views = settled(partial(load, path))
        _fetch_next(job, row, config)
        seconds_load = time.perf_counter() - started
        prepared = prepare(views, config)
        if run.settings.views:
            # before the fit, so that the fragment of the splats implies that of the views
            fitted = views if views.test is None else views[np.flatnonzero(~views.test)]
            _publish_views(storage, run, row, prepared.placed.views(fitted), records.Stopwatch(attempt))
        taken = reused(row, views.input_sha256, job.store)
        del views
        if taken is not None:
            watch.attempts = 0
            fit = Fit(taken[0], {**taken[1], "backend": config.backend}, prepared)
            # columns that its table does not have yet are measured now
            gaussians, found = taken[0], {**prepared.stats, **taken[1]}
        else:
            seed = seed_of(run.settings.seed, str(row["uid"]), nan_losses)
            fit = fit_prepared(
                prepared,
                config,
                seed=seed,
                deadline=time.monotonic() + job.fit_deadline_s,
                progress=lambda step, *_: tell(step / config.steps),
            )
            gaussians, found = fit.gaussians, {**fit.stats, "seed": seed}
        found |= {"seconds_load": seconds_load}
        found["atlas_heldout_psnr"] = atlas_heldout_psnr(fit, run.fit, run.atlas, run.reduce)
    facts = records.facts_of(stage, row, run, status=OK, **known(FACTS[stage], found))
    measured = known(JOURNAL[stage], found)
    ended = records.publish_sample(storage, stage, facts, gaussians.to_bytes(), watch, measured)
    if taken is not None:
        return {"status": OK, "uid": row["uid"], TAKEN: True}
    spent = 0.0 if ended is Published.ADOPTED else time.perf_counter() - watch.clock
    return {"status": OK, "uid": row["uid"], "fit_seconds": spent}


def _fetch_next(job: Job, row: Facts, config: FitConfig) -> None:
    """Begin to fetch the views of the object that is to be fitted on this node after this one."""
    if row.get(NEXT):
        format, _, views = str(row[NEXT]).partition("\n")
        ahead.begin(inputs.resolve(views, job.base), job.store, files_to_fit(format, config), job.scratch)


def _beside(row: Facts) -> list[str]:
    return str(row.get(BESIDE, "")).splitlines()


def _publish_views(storage: Storage, run: Run, row: Facts, views: Views, watch: records.Stopwatch) -> None:
    """Publish the fragment of an object's reference views, a function of the views and the configuration."""
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
    if row.get(ORIGIN, -1) >= 0:
        return taking.take_atlas(job, storage, run, row)
    watch, stage = records.Stopwatch(attempt), ATLAS
    with _discarding(storage):
        fit = shards.read_record(storage, SPLATS, int(row["shard"]), str(row["uid"]))
    if not fit.ok:
        records.publish_quarantine(storage, stage, row, run, fit.facts, watch)
        return {"status": QUARANTINED, "uid": row["uid"], "reason": fit.facts["reason"]}
    gaussians = Gaussians.from_bytes(fit.main(SPLATS))
    chosen = reduce(gaussians, run.atlas.size**2, run.reduce.rule)
    made = atlas.pack(chosen, run.atlas)
    data = made.to_bytes()
    stored = atlas.unpack(atlas_array(data, run.atlas), run.atlas)
    found = {
        **known(FACTS[stage], made.stats),
        "n_dropped": len(gaussians) - len(chosen),
        "atlas_psnr": atlas_psnr(gaussians, stored),
    }
    found |= {name: fit.facts[name] for name in FRAME if name in fit.facts}
    facts = records.facts_of(stage, row, run, status=OK, **found)
    measured = {**known(JOURNAL[stage], made.stats), "device": "cpu"}
    records.publish_sample(storage, stage, facts, data, watch, measured)
    psnr = fit.facts.get("atlas_heldout_psnr", -1.0)
    return {"status": OK, "uid": row["uid"], "gaussians": len(gaussians), "psnr": psnr}


@contextmanager
def _discarding(storage: Storage) -> Iterator[None]:
    """Delete a fragment that is found to be damaged; the driver has it made again."""
    try:
        yield
    except DamagedFragment as error:
        records.discard(storage, error)
        raise


def _guarded(body: Callable[[], Facts], *, alone: bool = False) -> Facts:
    """Return the result of `body`, or of its error, with the seconds that it took and the name of its node."""
    started = time.perf_counter()
    result = _result_of(body, alone)
    return {**result, "seconds": time.perf_counter() - started, "node": socket.gethostname()}


def _result_of(body: Callable[[], Facts], alone: bool) -> Facts:
    """Return the result of `body`, or a failed result with the reason of its error.

    A task that has its node for itself does not begin while the node is short of memory.

    Whatever the system says while no views are read is the machine's fault, whatever its number.
    """
    try:
        if alone and (text := memory_shortage()):
            return failed(INFRASTRUCTURE, text)
        return body()
    except (FitError, AtlasError) as error:
        return failed(error.reason, error)
    except inputs.InputTooLarge as error:
        return failed("bad_input", error)
    except inputs.NoViews as error:
        return failed("missing_views", error)
    except ShardConflict as error:
        return failed(CONFLICT, error)
    except Unread as error:
        return failed(UNREAD, error)
    except (FragmentError, NotFound) as error:
        return failed(DAMAGED, error)
    except (StoreRefused, inputs.NoRoom, BackendUnavailable, LpipsUnavailable, ImportError) as error:
        return failed(INFRASTRUCTURE, error, lasting=True)
    except (StoreError, Unreachable) as error:
        return failed(INFRASTRUCTURE, error)
    except OSError as error:
        if error.errno is None and not is_machines(error):
            return failed("unknown", error)
        text = f"{error.filename or 'this machine'}: {describe(error)}; {mend_of(error)}"
        return failed(INFRASTRUCTURE, text, lasting=error.errno in LASTING)
    except (MemoryError, torch.OutOfMemoryError) as error:
        return failed("out_of_memory", error)
    except Exception as error:  # any other error counts against this object; the driver decides how often
        text = str(error)
        if "can't allocate memory" in text:  # torch's, on CPUs
            return failed("out_of_memory", error)
        return failed("cuda_error" if "CUDA" in text else "unknown", error)
