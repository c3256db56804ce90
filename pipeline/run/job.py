"""The job: turns a manifest and a configuration into committed shards and a finalized dataset."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.errors import NotFound, StoreError
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.fitter.threads import available_cores
from gaussianverse.pipeline.config import RunConfig
from gaussianverse.pipeline.dataset import layout, members, run_file
from gaussianverse.pipeline.dataset.finalize import finalize, is_finalized
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.shards import Counts, committed_shards, counts_of
from gaussianverse.pipeline.errors import BreakerOpen, PipelineError
from gaussianverse.pipeline.interrupt import last_words
from gaussianverse.pipeline.node import machine
from gaussianverse.pipeline.policy import ordered_shards
from gaussianverse.pipeline.run.driver import Driver, families_of
from gaussianverse.pipeline.run.events import EventLog, RayMetrics, publish_summary
from gaussianverse.pipeline.run.executor import Job
from gaussianverse.pipeline.run.first_line import first_line
from gaussianverse.pipeline.run.manifest import Manifest, read_manifest
from gaussianverse.pipeline.run.progress import ProgressBar
from gaussianverse.pipeline.run.ray_start import ray_executor
from gaussianverse.pipeline.run.reuse import Reuse
from gaussianverse.pipeline.run.watch import Summary
from gaussianverse.pipeline.store.probes import prove_conditional_puts
from gaussianverse.terminal import note

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """Result of one call."""

    storage: Storage
    summary: Summary
    finalized: bool
    complete: list[int]
    """Requested shards that are committed in every family."""
    counts: Counts
    """Objects of these shards, published and quarantined."""
    number: int = 1
    """Version that they belong to."""

    @property
    def idle(self) -> bool:
        """True if there was nothing to do."""
        return self.summary.shards == 0


def plan(out: str, manifest: str | Manifest, config: RunConfig) -> tuple[Storage, Run, str]:
    """Check everything that can be checked before work begins, and freeze the run's identity.

    Args:
        out: path or s3 address of the output.
        manifest: path or s3 address of a manifest, or a manifest that was read or made.
        config: configuration of the run.

    Returns:
        The store, the run, and the folder or prefix that relative `views` are relative to.

    Raises:
        ManifestError: the manifest has faults.
        PipelineError: the machine cannot do the work, or the output holds another run.
        StoreError: the store cannot be used.
    """
    given = manifest
    if not isinstance(given, Manifest):
        given = read_manifest(given, config.run.shard_size, config.store)
    if not config.ray.address:
        machine.check_machine(config.fit)
    storage = open_storage(out, config.store)
    prove_conditional_puts(storage)
    identity = run_file.identity_of(given.data, config, members.representation(config.atlas))
    return storage, run_file.establish(storage, given.data, identity), given.base


def build(
    storage: Storage,
    run: Run,
    config: RunConfig,
    base: str,
    *,
    shards: str = "",
    stages: tuple[str, ...] = layout.STAGES,
    events: Path | None = None,
    reuse: Sequence[str] = (),
    code_digest: str = "",
) -> Outcome:
    """Commit shards, and finalize once all are committed. Work that is done is not repeated.

    Args:
        storage: store of the run.
        run: the run, from `plan`.
        config: configuration of this call.
        base: folder or prefix, from `plan`.
        shards: such as "0-9,12"; "" = all.
        stages: both stages, or one of them.
        events: file to append JSON lines to.
        reuse: addresses of finished outputs whose fits are taken over where they are of the same work.
        code_digest: digest of the code that must have made these; "" = any.

    Raises:
        UsageError: `shards` has another form, or names a shard that does not exist.
        PipelineError: see `Driver.run` and `finalize`.
        StoreError: the store cannot be used.
    """
    chosen = ordered_shards(shards, run.shards)
    if not is_finalized(storage, run.number):
        prove_conditional_puts(storage)
    committed = committed_shards(storage)
    summary, started = Summary(), time.time()
    families = families_of(run, stages)
    unfinished = [k for k in chosen if not all((family, k) in committed for family in families)]
    if unfinished:
        objects = sum(run.objects_in(k) for k in chosen)
        fits = Reuse(reuse, run, config.store, code_digest) if reuse else None

        def tell(slots: int) -> None:
            note(first_line(storage, run, unfinished, stages, slots=slots, of=objects))

        job = Job(storage.url, base, config.policy.fit_deadline_s, config.store, run.number)
        with ExitStack() as stack:
            lines = [] if events is None else [stack.enter_context(EventLog(events))]
            here = not config.ray.address and not config.gpus_per_fit
            if here:  # before Ray starts, which takes seconds; of others only Ray knows how many there are
                tell(config.ray.workers or available_cores())
            executor = stack.enter_context(ray_executor(config, job))
            if not here:
                tell(executor.slots())
            bar = stack.enter_context(ProgressBar(objects, executor.shares))
            watches = [bar, *lines, RayMetrics(executor.metrics)]
            driver = Driver(
                storage,
                run,
                executor,
                config.policy,
                shards=chosen,
                stages=stages,
                watches=watches,
                reuse=fits,
                base=base,
            )
            stuck = partial(_publish_stopped, storage, run, driver.summary, started, KeyboardInterrupt())
            try:
                with last_words(stuck):
                    summary = driver.run()
            except (PipelineError, StoreError, NotFound, KeyboardInterrupt) as error:
                if not isinstance(error, KeyboardInterrupt) and _is_lost(storage):
                    raise BreakerOpen(
                        f"{storage.url}: the output is lost, its {layout.RUN} is not there any more ({error}). No "
                        "object was quarantined. Mount it, or bring it back, and run the same command again"
                    ) from error
                _publish_stopped(storage, run, driver.summary, started, error)
                raise
        committed = committed_shards(storage)
    complete = [k for k in chosen if all((family, k) in committed for family in run.families)]
    counts = counts_of(storage, complete)
    if unfinished:
        publish_summary(storage, run, summary, started, counts)
    finalized = all((family, k) in committed for family in run.families for k in run.shards)
    if finalized:
        try:
            finalize(storage, run)
        except StoreError as error:
            raise BreakerOpen(
                f"{error}. All shards are there: fix the cause and run the same command again"
            ) from error
    return Outcome(storage, summary, finalized, complete, counts, run.number)


def _is_lost(storage: Storage) -> bool:
    """Whether the store answers, and has nothing of a run that it had: another folder is in its place."""
    try:
        return storage.head(layout.RUN) is None
    except StoreError:
        return False


def _publish_stopped(storage: Storage, run: Run, summary: Summary, started: float, error: BaseException) -> None:
    """Publish the summary of a call that `error` ended; if that fails, log it, since `error` is the one to raise."""
    try:
        publish_summary(storage, run, summary, started, stopped=type(error).__name__)
    except StoreError as failure:
        log.warning("the summary of this call was not published: %s", failure)
