"""Later versions of small datasets, made by hand from rows and arrays, without a plan, views or fits."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from reader_datasets import array_of

from gaussianverse.atlas import tar
from gaussianverse.atlas.arrays import npy
from gaussianverse.atlas.canonical_json import to_json_file
from gaussianverse.atlas.dataset_format import (
    ADDRESS,
    ATLAS,
    METADATA,
    OBJECTS,
    OK,
    ORIGINS,
    SUMS,
    SUPERSEDED,
    VERSION,
    VIEWS,
    address_column,
    version_key,
)
from gaussianverse.atlas.packing import unpack
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.storage import sha256_of
from gaussianverse.manifests import runform
from gaussianverse.manifests.schema import Row
from gaussianverse.pipeline.dataset import pack, records, run_file
from gaussianverse.pipeline.dataset.finalize import finalize
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.parquet import to_parquet
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.shards import read_main
from gaussianverse.pipeline.dataset.take_over import facts_in
from gaussianverse.pipeline.dataset.versions import open_version, superseded_schema
from gaussianverse.pipeline.policy import seed_of

Fields = Mapping[str, Any]


def metadata_of(root: Path, version: int) -> list[dict[str, Any]]:
    """The rows of a version's metadata.parquet."""
    rows: list[dict[str, Any]] = (
        pq.ParquetFile(root / version_key(version, METADATA)).read(use_threads=False).to_pylist()
    )
    return rows


def next_version(
    root: Path, corrected: Mapping[str, Fields] | None = None, removed: Sequence[str] = (),
    added: Mapping[str, Fields] | None = None,
) -> int:  # fmt: skip
    """Make the next version of a finished dataset of `publish_dataset`.

    Args:
        root: the dataset.
        corrected: other facts of objects, whose arrays are taken over; may be none.
        removed: objects that are taken out.
        added: facts of new objects; object i has the atlas `array_of(i)`.

    Returns:
        Its number.
    """
    storage = LocalStorage(root)
    before = open_version(storage)
    rows = {row["uid"]: row for row in metadata_of(root, before.number)}
    corrected, added = corrected or {}, added or {}
    number = before.number + 1
    numbered = max(run.shards.stop for run in before.runs), max(row["index"] for row in rows.values()) + 1
    manifest = _manifest(rows, {**corrected, **added}, numbered[1], before.run.settings.shard_size)
    gone = [
        {**rows[uid], "since": number, "change": "corrected" if uid in corrected else "removed"}
        for uid in (*corrected, *removed)
    ]
    if before.superseded.table is not None:
        gone += before.superseded.table.to_pylist()
    counted = {k for run in before.runs for k in run.shards} & set(before.shards)
    live = {row["shard"] for uid, row in rows.items() if uid not in {*corrected, *removed}}
    schema = superseded_schema(before.families)
    gone = [{n: row[n] for n in schema.names} for row in gone if row["shard"] in live]
    superseded = to_parquet(schema, sorted(gone, key=lambda row: (row["shard"], row["index"])))
    taken = {uid: rows[uid]["shard"] for uid in corrected} | dict.fromkeys(added, -1)
    changes = ["corrected" if uid in corrected else "added" for uid in taken]
    origins = _parquet(pa.table({"uid": list(taken), "change": changes, "shard": list(taken.values())}))
    n_shards = pq.ParquetFile(io.BytesIO(manifest)).num_row_groups
    made = range(numbered[0], numbered[0] + n_shards)
    shards = sorted({*(counted & live), *made})
    identity = {
        **before.identity, "version": number, "parent": before.number, "first_shard": numbered[0],
        "parent_sums_sha256": sha256_of(storage.get(before.key(SUMS))), "configs": {},
        "manifest_sha256": sha256_of(manifest), "n_objects": len(corrected) + len(added), "n_shards": n_shards,
        "superseded_sha256": sha256_of(superseded), "origins_sha256": sha256_of(origins),
        "runs": sorted({*(before.run_of(k).number for k in shards if k not in made), *([number] if made else [])}),
        "shards": ",".join(map(str, shards)), "note": "", "first_index": numbered[1], "history": before.run.history,
        "changes": {"added": len(added), "refitted": 0, "corrected": len(corrected), "removed": len(removed),
                    "columns": {}},
    }  # fmt: skip
    files = {OBJECTS: manifest, ORIGINS: origins, SUPERSEDED: superseded}
    for name, data in {VERSION: to_json_file(identity, sort_keys=True), **files}.items():
        assert storage.put_if_absent(version_key(number, name), data)
    run = run_file.load(storage, number)
    for shard in run.shards:
        for row in (dict(r, shard=shard) for r in shard_rows(storage, run, shard)):
            for family in run.families:
                _publish(storage, run, row, rows.get(row["uid"]), family)
        for family in run.families:
            pack.pack(storage, run, family, shard)
    finalize(storage, run)
    return number


def _parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def _manifest(rows: Mapping[str, Fields], changed: Mapping[str, Fields], first: int, shard_size: int) -> bytes:
    """The rows of new shards; none is a table without row groups."""
    given = [
        Row(
            **{
                "uid": uid,
                "views": f"views/{uid}",
                "license": "CC0-1.0",
                "caption": rows.get(uid, {}).get("caption", uid),
                **fields,
            }
        )
        for uid, fields in changed.items()
    ]
    whole = pq.ParquetFile(io.BytesIO(runform.encode(given or [Row("none", "none")], shard_size=shard_size)))
    out = io.BytesIO()
    with pq.ParquetWriter(out, whole.schema_arrow) as writer:
        for k in range(whole.num_row_groups if given else 0):
            group = whole.read_row_group(k)
            index = pa.array([i + first for i in group["index"].to_pylist()], pa.int64())
            writer.write_table(group.set_column(0, group.schema.field(0), index))
    return out.getvalue()


def _publish(storage: LocalStorage, run: Run, row: dict[str, Any], before: Fields | None, family: str) -> None:
    watch, schema = records.Stopwatch(1), run.facts_schema(family)
    if before is not None:
        there = {name: before[address_column(family, name)] for name in ADDRESS}
        images = {}
        if family == VIEWS:
            images = _images(storage, before)
        facts = facts_in(family, {**before, **{n: v for n, v in row.items() if n in schema.names}}, schema)
        main = read_main(storage, family, before["shard"], {**before, **there})
        records.publish_sample(storage, family, facts, main, watch, {}, images=images)
        return
    array = array_of(int(row["index"]), run.atlas.size)
    splat = unpack(array, run.atlas)
    count = {"n_gaussians": len(splat)}
    if family == ATLAS:
        count |= {"n_padded": run.atlas.size**2 - len(splat), "n_dropped": 0, "size": run.atlas.size}
    fit = {"psnr": 20.0, "steps": run.fit.steps, "seed": seed_of(run.settings.seed, str(row["uid"]), 0)}
    about = {**count, "dtype": "float32"} if family == ATLAS else {**count, **fit, **splat.bounds()}
    facts = records.facts_of(family, row, run, status=OK, **about)
    records.publish_sample(storage, family, facts, npy(array) if family == ATLAS else splat.to_bytes(), watch, {})


def _images(storage: LocalStorage, row: Fields) -> dict[str, bytes]:
    """The PNGs of an object's published views."""
    data, uid = storage.get(f"views/views-{row['shard']:06d}.tar"), row["uid"]
    members = {m.name: data[m.offset : m.offset + m.nbytes] for m in tar.index(data)}
    return {n.removeprefix(f"{uid}."): d for n, d in members.items() if n.startswith(f"{uid}.view")}
