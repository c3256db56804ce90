"""Begin a version: claim its number with version.json, then write the tables of a plan beside it.

The claim is put if absent, so of two drivers with different plans one has the number, and the other learns of it
before anything else is written. The same plan gives the same bytes, so whoever repeats it goes on.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.canonical_json import to_json_file
from gaussianverse.atlas.dataset_format import (
    ADDRESS,
    MAX_VERSION,
    ORIGINS,
    SCHEMA_VERSION,
    SUPERSEDED,
    address_column,
)
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Storage, sha256_of
from gaussianverse.manifests import runform
from gaussianverse.pipeline.config import RunConfig, digest_of
from gaussianverse.pipeline.dataset import extension, run_file
from gaussianverse.pipeline.dataset.extension import Plan
from gaussianverse.pipeline.dataset.makers import ranges
from gaussianverse.pipeline.dataset.parquet import exact, table_to_parquet
from gaussianverse.pipeline.dataset.provenance import code_digest, versions
from gaussianverse.pipeline.dataset.run_file import PROVENANCE, Run, differences
from gaussianverse.pipeline.dataset.versions import (
    CORRECTED,
    REMOVED,
    REPLACED,
    Version,
    finished_versions,
    open_version,
    superseded_schema,
)
from gaussianverse.pipeline.errors import PipelineError, RunConflict
from gaussianverse.pipeline.store.publish import Published, publish, publish_exact

_SHOWN = 8


@dataclass(frozen=True)
class Given:
    """What a call gives to make a version of.

    Attributes:
        parent: version that it extends.
        plan: the changes.
        config: configuration of this call.
        identity: identity of the configuration of new fits.
        base: folder or s3 prefix that relative `views` are relative to.
    """

    parent: Version
    plan: Plan
    config: RunConfig
    identity: dict[str, Any]
    base: str


def open_parent(storage: Storage) -> Version:
    """The newest version of a dataset that can be extended.

    Raises:
        NotFound: there is no run.
        PipelineError: no version is finished, or an older gaussianverse made it.
    """
    newest = max(finished_versions(storage), default=0)
    version = open_version(storage, newest or 1)
    if not newest:
        raise PipelineError(
            f"{storage.url}: the dataset is not finished yet; finish it with fit-shard, then extend it"
        )
    if version.run.version != SCHEMA_VERSION:
        raise PipelineError(
            f"{storage.url} was made by an older gaussianverse (schema version {version.run.version}) and stays as "
            "it is; build a new output, with --reuse for its fits"
        )
    if missing := sorted(set(version.run.families) - set(version.run.held)):
        raise PipelineError(
            f"{storage.url}: a part of a dataset, taken without its {' and '.join(missing)}, which a version needs; "
            "extend the whole dataset, or export the part with them"
        )
    if newest == MAX_VERSION:
        raise PipelineError(
            f"{storage.url}: has {MAX_VERSION} versions, the most there are; compact it into a new place"
        )
    return version


def continued(parent: Run, config: RunConfig) -> dict[str, Any]:
    """Identity of the configuration of a version's new fits: the parent's, but for other settings of fits.

    Raises:
        RunConflict: other settings differ, which are those of the whole dataset.
    """
    own = [(name, getattr(parent, name), getattr(config, name)) for name in ("atlas", "reduce")]
    own.append(("run", replace(parent.settings, seed=config.run.seed), config.run))
    found = [
        text
        for name, there, here in own
        for text in differences(dataclasses.asdict(there), dataclasses.asdict(here), name)
    ]
    if found:
        raise RunConflict(
            f"{'; '.join(found)}: atlases, shards and reference views are the same in a whole dataset. Build a new "
            "output with --reuse of this one, which takes its fits over"
        )
    identity: dict[str, Any] = json.loads(json.dumps(parent.identity["config"]))
    if config.fit != parent.fit:
        identity["fit"] = json.loads(json.dumps(dataclasses.asdict(config.fit)))
    if config.splats != parent.splats:
        identity.pop("splats", None)
        identity |= {"splats": splats} if (splats := config.splats.identity()) else {}
    if config.run.seed != parent.settings.seed:
        identity["run"]["seed"] = config.run.seed
    return identity


def begin(storage: Storage, parent: Version, plan: Plan, config: dict[str, Any], note: str = "") -> Run:
    """Write what the version after `parent` is, or confirm that it was begun by the same plan.

    Args:
        storage: store of the output.
        parent: the newest finished version.
        plan: the changes.
        config: identity of the configuration of what is made anew.
        note: text for people.

    Raises:
        RunConflict: another plan has the number; nothing was changed.
    """
    number = parent.number + 1
    tables, identity = _contents(storage, parent, plan, config)
    identity["note"] = note
    key = dataset_format.version_key(number, dataset_format.VERSION)
    if publish(storage, key, to_json_file(identity, sort_keys=True)) is Published.ADOPTED:
        _check_same(storage, number, identity)
    for name, data in tables.items():
        publish_exact(storage, dataset_format.version_key(number, name), data)
    return run_file.load(storage, number)


def new_shards(parent: Version, plan: Plan) -> range:
    """Numbers of the shards that the version after `parent` makes."""
    first, counts = parent.run.first_shard + parent.run.n_shards, plan.counts
    n_objects = counts["added"] + counts["refitted"] + counts["corrected"]
    return range(first, first - (-n_objects // parent.run.settings.shard_size))


def _check_same(storage: Storage, number: int, identity: dict[str, Any]) -> None:
    there = run_file.load(storage, number).identity
    one, other = ({n: v for n, v in i.items() if n not in (*PROVENANCE, "note")} for i in (there, identity))
    found = list(differences(one, json.loads(json.dumps(other))))
    if not found:
        return
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    text = f"{storage.url}: version {number} is another one: {'; '.join(found[:_SHOWN])}{more}. Nothing was changed"
    if number in finished_versions(storage):
        raise RunConflict(f"{text}: somebody else finished it meanwhile; run the command again to extend that")
    raise RunConflict(
        f"{text}. Finish it with the command that began it, or give it up with gaussianverse purge {storage.url} "
        "--unfinished, then run this one again"
    )


def _contents(
    storage: Storage, parent: Version, plan: Plan, config: dict[str, Any]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The tables of the version by their names, and version.json without its note."""
    last, own = parent.run, new_shards(parent, plan)
    first_index, size = last.first_index + last.n_objects, last.settings.shard_size
    rows = plan.rows(first_index)
    origins = _encoded(plan.origins(), size)
    shards, superseded = _superseded(parent, plan)
    counted = (*shards, *own)
    tables = {
        dataset_format.OBJECTS: runform.encode_table(rows, shard_size=size),
        ORIGINS: origins,
        SUPERSEDED: table_to_parquet(superseded),
    }
    runs = [run.number for run in parent.runs if set(run.shards) & set(shards)]
    digest = digest_of(config)
    identity = {
        "schema_version": SCHEMA_VERSION,
        "version": parent.number + 1,
        "parent": parent.number,
        "parent_sums_sha256": _sums_of(storage, parent),
        "first_shard": own.start,
        "first_index": first_index,
        "n_objects": len(rows),
        "n_shards": len(own),
        "shards": ranges(counted),
        "runs": [*runs, *([parent.number + 1] if own else [])],
        "manifest_sha256": sha256_of(tables[dataset_format.OBJECTS]),
        "origins_sha256": sha256_of(tables[ORIGINS]),
        "superseded_sha256": sha256_of(tables[SUPERSEDED]),
        "extras": plan.kinds,
        "config_digest": digest,
        "config": config,
        "configs": _configs(parent, plan, digest),
        "representation": parent.identity["representation"],
        "versions": versions(),
        "code_digest": code_digest(),
        "history": parent.run.history,
        "changes": {**{n: count for n, count in plan.counts.items() if n != "unchanged"}, "columns": plan.columns},
    }
    return tables, identity


def _encoded(table: pa.Table, size: int) -> bytes:
    return runform.encode_table(table.cast(exact(extension.ORIGINS)), shard_size=size)


def _sums_of(storage: Storage, parent: Version) -> str:
    key = parent.key(dataset_format.SUMS)
    try:
        return sha256_of(storage.get(key))
    except NotFound as error:
        raise PipelineError(
            f"{storage.url}/{key}: missing, though the version is finished; it was damaged"
        ) from error


def _superseded(parent: Version, plan: Plan) -> tuple[tuple[int, ...], pa.Table]:
    """The shards of the parent of which a row still counts, and the rows of these that do not count any more."""
    live, schema = plan.live, superseded_schema(parent.families)
    change = np.full(len(live), "", object)
    for places, name in zip(plan.leaving, (REMOVED, REPLACED, CORRECTED), strict=True):
        change[places] = name
    gone = change != ""
    shards = np.unique(live.shard[~gone])
    leaving = gone & np.isin(live.shard, shards)
    added = _leaving(parent, plan, leaving, change[leaving])
    parts = [added]
    if parent.superseded.table is not None:
        old = parent.superseded.table
        parts.append(old.filter(pa.array(np.isin(old["shard"].to_numpy(), shards))))
    table = pa.concat_tables([part.cast(exact(schema)) for part in parts])
    return tuple(int(k) for k in shards), table.sort_by([("shard", "ascending"), ("index", "ascending")])


def _leaving(parent: Version, plan: Plan, mask: NDArray[np.bool_], change: NDArray[Any]) -> pa.Table:
    schema = superseded_schema(parent.families)
    addresses = [address_column(family, name) for family in parent.families for name in ADDRESS]
    parts, count = [], 0
    for table in plan.live.tables(addresses) if mask.any() else ():
        parts.append(table.filter(pa.array(mask[count : count + len(table)])))
        count += len(table)
    empty = pa.schema([field for field in schema if field.name in ("uid", *addresses)]).empty_table()
    found = pa.concat_tables([part.cast(empty.schema) for part in (empty, *parts)])
    columns = {
        "shard": pa.array(plan.live.shard[mask]),
        "index": pa.array(plan.live.index[mask]),
        "since": pa.array(np.full(int(mask.sum()), parent.number + 1)),
        "change": pa.array(list(change), pa.string()),
    }
    return pa.table([columns.get(name, found[name] if name in found.column_names else None) for name in schema.names],
                    schema=schema)  # fmt: skip


def _configs(parent: Version, plan: Plan, own: str) -> dict[str, Any]:
    """The other configurations that samples of the version bear."""
    live = plan.live
    lost = np.zeros(len(live), np.bool_)
    removed, made, _ = plan.leaving
    lost[removed] = lost[made] = True
    lost[plan.place[plan.retried]] = True
    digests = live.known("config_digest").filter(pa.array(~lost))
    found = {}
    for digest in sorted(set(pc.unique(digests).to_pylist()) - {own}):
        run = parent.bearing(digest)
        if run is None:
            raise PipelineError(
                f"{parent.run.key} has no configuration of digest {digest[:12]}.., which samples bear"
            )
        found[digest] = run.identity["config"]
    return found
