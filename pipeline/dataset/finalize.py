"""Finalize a dataset: statistics, tables, index, card and checksums from committed shards, `_SUCCESS` last."""

from __future__ import annotations

from collections import Counter
from typing import Any

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.canonical_json import to_json_file
from gaussianverse.atlas.dataset_format import ATLAS, SCHEMA_VERSION, sums_file
from gaussianverse.atlas.store.storage import Head, Storage, sha256_of
from gaussianverse.pipeline.dataset import card, layout
from gaussianverse.pipeline.dataset.metadata import Totals, tables_of
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.shards import committed_shards, read_commit
from gaussianverse.pipeline.dataset.statistics import merged_statistics
from gaussianverse.pipeline.errors import PipelineError
from gaussianverse.pipeline.store.publish import publish_exact


def is_finalized(storage: Storage) -> bool:
    """Whether the dataset is complete."""
    return storage.head(dataset_format.SUCCESS) is not None


def finalize(storage: Storage, run: Run) -> None:
    """Write the files of `dataset_format.FINAL` in order; a finished dataset is left as it is.

    Raises:
        PipelineError: a shard is missing or of another configuration, or all objects are quarantined.
        ShardConflict: one of the files holds other bytes.
    """
    if is_finalized(storage):
        return
    if run.version != SCHEMA_VERSION:
        raise PipelineError(
            f"{storage.url} was begun by an older gaussianverse (schema version {run.version}); finish it with that "
            "version, or start a new output"
        )
    if sha256_of(storage.get(layout.MANIFEST)) != run.identity["manifest_sha256"]:
        raise PipelineError(
            f"{storage.url}/{layout.MANIFEST}: not the manifest of {layout.RUN}; it was damaged after the run began. "
            "Nothing was written: put the manifest of the first call back"
        )
    shards = _shards(storage, run)
    commits = {(family, k): read_commit(storage, family, k) for family in run.families for k in shards}
    for (family, k), commit in commits.items():
        if commit["config_digest"] != run.digest:
            raise PipelineError(
                f"{storage.url}/{layout.commit(family, k)}: of another configuration than {layout.RUN}"
            )
    samples = sum(commits[ATLAS, k]["samples"] for k in range(run.n_shards))
    if samples == 0:
        reasons = sum((Counter(c["quarantined"]) for (s, _), c in commits.items() if s == ATLAS), Counter())
        listed = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
        n = sum(commits[ATLAS, k]["objects"] for k in shards)
        raise PipelineError(
            f"0 of {n} objects published, {n} quarantined: {listed} (gaussianverse top-errors --out {storage.url}). "
            "There is no dataset: fix the causes and start again with a new output"
        )
    written: dict[str, Head] = {}

    def put(key: str, data: bytes) -> None:
        written[key] = publish_exact(storage, key, data)

    moments = (storage.get(layout.moments(k)) for k in range(run.n_shards))
    for key, data in merged_statistics(moments, run).items():
        put(key, data)
    tables = tables_of(storage, run.n_shards, run.families)
    put(dataset_format.METADATA, tables.metadata)
    put(dataset_format.QUARANTINE, tables.quarantine)
    index = index_of(run, commits, tables.totals, written)
    put(dataset_format.INDEX, to_json_file(index))
    put(dataset_format.CARD, card.card_of(run, tables.totals, index, commits).encode())
    sums = sha256sums(storage, run, commits, written)
    publish_exact(storage, dataset_format.SUMS, sums)
    publish_exact(storage, dataset_format.SUCCESS, sums_file({dataset_format.SUMS: sha256_of(sums)}))


def _shards(storage: Storage, run: Run) -> range:
    there = committed_shards(storage)
    for family in run.families:
        missing = [k for k in range(run.n_shards) if (family, k) not in there]
        if missing:
            raise PipelineError(
                f"{storage.url}: {len(missing)} of {run.n_shards} {family} shards are not committed "
                f"(first: {missing[0]}); run fit-shard for them first"
            )
    return range(run.n_shards)


def index_of(
    run: Run, commits: dict[tuple[str, int], dict[str, Any]], totals: Totals, written: dict[str, Head]
) -> dict[str, Any]:
    """The content of index.json: the shards with their keys, sizes and hashes, and the totals."""
    return {
        "schema_version": run.version,
        "config_digest": run.digest,
        "manifest_sha256": run.identity["manifest_sha256"],
        "objects": totals.objects,
        "samples": totals.samples,
        "uids_sha256": totals.uids_sha256,
        "size": run.atlas.size,
        **run.identity["representation"],
        **({"views": run.settings.views, "views_size": run.views_size} if run.settings.views else {}),
        "statistics": {key: {"sha256": written[key].sha256} for key in dataset_format.STATISTICS},
        "shards": [
            {
                "shard": k,
                "objects": commits[ATLAS, k]["objects"],
                **{
                    family: {
                        "key": dataset_format.shard_tar(family, k),
                        "samples": commits[family, k]["samples"],
                        **commits[family, k]["files"][dataset_format.shard_tar(family, k)],
                    }
                    for family in run.families
                },
            }
            for k in range(run.n_shards)
        ],
    }


def sha256sums(
    storage: Storage, run: Run, commits: dict[tuple[str, int], dict[str, Any]], written: dict[str, Head]
) -> bytes:
    """SHA256SUMS: every file of the dataset except itself and `_SUCCESS`.

    The journal is not listed, so that two runs of the same work on CPUs have the same sums.
    """
    sums = {key: head.sha256 for key, head in written.items()}
    for (family, shard), record in commits.items():
        sums |= {key: file["sha256"] for key, file in record["files"].items()}
        sums[layout.commit(family, shard)] = _sha256(storage, layout.commit(family, shard))
    for key in (layout.RUN, layout.MANIFEST):
        sums[key] = _sha256(storage, key)
    return sums_file(sums)


def _sha256(storage: Storage, key: str) -> str:
    head = storage.head(key)
    if head is None:
        raise PipelineError(f"{storage.url}/{key}: missing; it existed when the shards were committed")
    return head.sha256
