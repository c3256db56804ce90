"""Finalize a dataset: statistics, tables, index, card and checksums from committed shards, `_SUCCESS` last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.canonical_json import to_json_file
from gaussianverse.atlas.dataset_format import ATLAS, SCHEMA_VERSION, VIEWS, sums_file
from gaussianverse.atlas.store.storage import Head, Storage, sha256_at, sha256_of
from gaussianverse.pipeline.dataset import card, layout
from gaussianverse.pipeline.dataset.in_order import in_order
from gaussianverse.pipeline.dataset.metadata import Totals, tables_of
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.shards import committed_shards, read_commit
from gaussianverse.pipeline.dataset.statistics import live_moments, merged_statistics
from gaussianverse.pipeline.dataset.versions import Version, version_of
from gaussianverse.pipeline.errors import PipelineError
from gaussianverse.pipeline.store.publish import publish_exact

Commits = Mapping[tuple[str, int], dict[str, Any]]
"""Commit records by (family, shard)."""


def is_finalized(storage: Storage, number: int = 1) -> bool:
    """Whether the dataset, or a later version of it, is complete."""
    return storage.head(dataset_format.version_key(number, dataset_format.SUCCESS)) is not None


def finalize(storage: Storage, run: Run) -> None:
    """Write the files of `dataset_format.FINAL` of a run's version in order; a finished one is left as it is.

    Raises:
        PipelineError: a shard is missing or of another configuration, or all objects are quarantined.
        ShardConflict: one of the files holds other bytes.
    """
    if is_finalized(storage, run.number):
        return
    if run.version != SCHEMA_VERSION:
        raise PipelineError(
            f"{storage.url} was begun by an older gaussianverse (schema version {run.version}); finish it with that "
            "version, or start a new output"
        )
    if sha256_at(storage, run.manifest_key, storage.size(run.manifest_key)) != run.identity["manifest_sha256"]:
        raise PipelineError(
            f"{storage.url}/{run.manifest_key}: not the manifest of {run.key}; it was damaged after the run began. "
            "Nothing was written: put the manifest of the first call back"
        )
    version = version_of(storage, run)
    commits = _commits(storage, version)
    for (family, k), commit in commits.items():
        if commit["config_digest"] != version.run_of(k).digest:
            raise PipelineError(
                f"{storage.url}/{layout.commit(family, k)}: of another configuration than {version.run_of(k).key}"
            )
    tables = tables_of(storage, version)
    if tables.totals.samples == 0:
        reasons = sorted(tables.totals.reasons.items(), key=lambda found: (-found[1], found[0]))
        listed = ", ".join(f"{n} {reason}" for reason, n in reasons)
        n = tables.totals.objects
        raise PipelineError(
            f"0 of {n} objects published, {n} quarantined: {listed} (gaussianverse top-errors --out {storage.url}). "
            f"There is no {_mend_of_nothing(storage, version)}"
        )
    written: dict[str, Head] = {}

    def put(name: str, data: bytes | Path) -> None:
        written[name] = publish_exact(storage, version.key(name), data)

    for name, data in merged_statistics(live_moments(storage, version), run).items():
        put(name, data)
    put(dataset_format.METADATA, tables.metadata)
    put(dataset_format.QUARANTINE, tables.quarantine)
    index = index_of(version, commits, tables.totals, written)
    put(dataset_format.INDEX, to_json_file(index))
    put(dataset_format.CARD, card.card_of(version, tables.totals, index, commits).encode())
    sums = sha256sums(storage, version, commits, written)
    key = version.key(dataset_format.SUMS)
    publish_exact(storage, key, sums)
    publish_exact(storage, version.key(dataset_format.SUCCESS), sums_file({key: sha256_of(sums)}))


def _mend_of_nothing(storage: Storage, version: Version) -> str:
    if version.number == 1:
        return "dataset: fix the causes and start again with a new output"
    return (
        f"version {version.number}: give it up with gaussianverse purge {storage.url} --unfinished, fix the causes "
        "and extend again"
    )


def _commits(storage: Storage, version: Version) -> Commits:
    there = committed_shards(storage)
    for family in version.families:
        missing = [k for k in version.shards if (family, k) not in there]
        if missing:
            mend = "run fit-shard for them first" if version.number == 1 else "run the same extend again"
            raise PipelineError(
                f"{storage.url}: {len(missing)} of {len(version.shards)} {family} shards are not committed "
                f"(first: {missing[0]}); {mend}"
            )
    pairs = [(family, k) for family in version.families for k in version.shards]
    return dict(zip(pairs, in_order(storage, lambda pair: read_commit(storage, *pair), pairs), strict=True))


def index_of(version: Version, commits: Commits, totals: Totals, written: Mapping[str, Head]) -> dict[str, Any]:
    """The content of index.json: the shards with their keys, sizes and hashes, and the totals.

    Args:
        version: the version.
        commits: commit records of its shards.
        totals: totals of the rows that count.
        written: the files of `dataset_format.STATISTICS` by their names.

    Raises:
        PipelineError: a commit record names no tar of a family that has them.
    """
    run = version.run
    later = {} if version.number == 1 else {"version": version.number, "parent": version.parent}

    def live(family: str, k: int) -> int:
        return int(commits[family, k]["samples"]) - version.superseded.samples_in(family, k)

    return {
        "schema_version": run.version,
        **later,
        "config_digest": run.digest,
        "manifest_sha256": run.identity["manifest_sha256"],
        "objects": totals.objects,
        "samples": totals.samples,
        "uids_sha256": totals.uids_sha256,
        "size": run.atlas.size,
        **run.identity["representation"],
        **({"superseded": {"sha256": run.identity["superseded_sha256"]}} if later else {}),
        **({"views": run.settings.views, "views_size": run.views_size} if VIEWS in run.held else {}),
        "statistics": {name: {"sha256": written[name].sha256} for name in dataset_format.STATISTICS},
        "shards": [
            {
                "shard": k,
                "objects": commits[ATLAS, k]["objects"],
                **{
                    family: {
                        "key": dataset_format.shard_tar(family, k),
                        "samples": commits[family, k]["samples"],
                        **({"live": live(family, k)} if later else {}),
                        **_tar_in(commits, family, k),
                    }
                    for family in run.held
                },
            }
            for k in version.shards
        ],
    }


def _tar_in(commits: Commits, family: str, shard: int) -> dict[str, Any]:
    """Size and hash of a shard's tar, as its commit record has them."""
    key = dataset_format.shard_tar(family, shard)
    if key not in commits[family, shard]["files"]:
        raise PipelineError(f"{layout.commit(family, shard)}: names no {key}, which {layout.RUN} says is there")
    return dict(commits[family, shard]["files"][key])


def sha256sums(storage: Storage, version: Version, commits: Commits, written: Mapping[str, Head]) -> bytes:
    """SHA256SUMS: every file that a version counts except itself and `_SUCCESS`, by their keys from the root.

    The journal is not listed, so that two runs of the same work on CPUs have the same sums.

    Args:
        storage: store of the output.
        version: the version.
        commits: commit records of its shards.
        written: its own files by their names.
    """
    sums = {version.key(name): head.sha256 for name, head in written.items()}
    for record in commits.values():
        sums |= {key: file["sha256"] for key, file in record["files"].items()}
    keys = [layout.commit(family, shard) for family, shard in commits]
    sums |= zip(keys, in_order(storage, lambda key: _sha256(storage, key), keys), strict=True)
    for key in version.sources():
        sums[key] = _sha256(storage, key)
    return sums_file(sums)


def _sha256(storage: Storage, key: str) -> str:
    head = storage.head(key)
    if head is None:
        raise PipelineError(f"{storage.url}/{key}: missing; it existed when the shards were committed")
    return head.sha256
