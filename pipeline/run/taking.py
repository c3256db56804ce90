"""Stages of an object that is published already, of which only facts changed: its samples go into a new shard.

Its arrays and pictures are those of the shard that they lie in; nothing is read from views, and nothing is fitted.
"""

from __future__ import annotations

from functools import lru_cache

from gaussianverse.atlas.dataset_format import ATLAS, OK, QUARANTINED, SPLATS, VIEWS
from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.dataset import records
from gaussianverse.pipeline.dataset.manifest_rows import ORIGIN
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.dataset.shards import stats_rows
from gaussianverse.pipeline.dataset.take_over import fragment_of
from gaussianverse.pipeline.errors import FragmentError
from gaussianverse.pipeline.run.executor import TAKEN, Job


def take_fit(job: Job, storage: Storage, run: Run, row: Facts) -> Facts:
    """Publish the fragments of an object's Gaussians and reference views under the facts of its row.

    Raises:
        NotFound, FragmentError, PipelineError: the published sample is missing or damaged.
    """
    if VIEWS in run.families:  # before the fit, so that the fragment of the splats implies that of the views
        _take(job, storage, run, VIEWS, row)
    return _take(job, storage, run, SPLATS, row) | {TAKEN: True}


def take_atlas(job: Job, storage: Storage, run: Run, row: Facts) -> Facts:
    """Publish the fragment of an object's atlas under the facts of its row; raises as `take_fit`."""
    fit = _published(job, SPLATS, row)
    result = _take(job, storage, run, ATLAS, row)
    known = {"gaussians": fit["n_gaussians"], "psnr": fit.get("atlas_heldout_psnr", -1.0)}
    return result | (known if result["status"] == OK else {})


def _take(job: Job, storage: Storage, run: Run, family: str, row: Facts) -> Facts:
    there, watch = _published(job, family, row), records.Stopwatch(0)
    schema = run.facts_schema(family)
    facts: Facts = {name: row[name] if name in row else there[name] for name in schema.names}
    uid = str(facts["uid"])
    if there["sample"] == -1 and family == VIEWS:  # given up with the atlas
        return {}
    rows = _rows(job.url, job.store, family, row[ORIGIN]).values()
    fragment = fragment_of(storage, family, row[ORIGIN], there, rows, facts)
    records.publish_fragment(storage, family, facts, fragment, watch)
    if there["status"] == OK:
        return {"status": OK, "uid": uid}
    return {"status": QUARANTINED, "uid": uid, "reason": there["reason"]}


def _published(job: Job, family: str, row: Facts) -> Facts:
    """The object's row of the table of its shard."""
    found = _rows(job.url, job.store, family, row[ORIGIN]).get(str(row["uid"]))
    if found is None:
        raise FragmentError(f"{job.url}: shard {row[ORIGIN]} of {family} has no row of {row['uid']}; fetch it again")
    return found


@lru_cache(maxsize=12)
def _rows(url: str, store: StoreOptions, family: str, shard: int) -> dict[str, Facts]:
    """Rows of a shard's table by uid; neighbours in a new shard come from the same few."""
    return {str(r["uid"]): r for r in stats_rows(open_storage(url, store), family, shard)}
