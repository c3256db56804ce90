"""A made-up dataset of a million objects with two versions, and what it costs to open: CPU seconds and memory.

Its tables are as large as those of a real one, where hashes and numbers do not repeat; shards and other files are not
there, since opening reads none. One in a hundred objects is corrected in version 2.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gaussianverse.atlas.dataset_format import (
    ATLAS,
    INDEX,
    METADATA,
    OK,
    SCHEMA_VERSION,
    SPLATS,
    SUCCESS,
    SUMS,
    SUPERSEDED,
    address_column,
    shard_tar,
    sums_file,
    version_key,
)
from gaussianverse.pipeline.dataset.parquet import ParquetSink
from gaussianverse.pipeline.dataset.schemas import METADATA as SCHEMA
from gaussianverse.pipeline.dataset.versions import superseded_schema

_SHARD, _ATLAS = 256, 1 << 20
_PITCH = _ATLAS + 4096
_EVERY = 100
_CODE = (
    "import json, re, resource, sys\n"
    "from pathlib import Path\n"
    "def highest():\n"  # ru_maxrss would include the process that started this one
    "    return int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024\n"
    "from gaussianverse import AtlasDataset\n"
    "megabytes = highest()\n"
    "before = resource.getrusage(resource.RUSAGE_SELF)\n"
    "dataset = AtlasDataset(sys.argv[1], **json.loads(sys.argv[2]))\n"
    "after = resource.getrusage(resource.RUSAGE_SELF)\n"
    "seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime\n"
    "if sys.argv[3]:\n"
    "    dataset.catalogue.row(0)\n"
    "whole = resource.getrusage(resource.RUSAGE_SELF)\n"
    "rows = whole.ru_utime + whole.ru_stime - after.ru_utime - after.ru_stime\n"
    "print(json.dumps([seconds, highest() - megabytes, rows, len(dataset)]))\n"
)


def table_of(count: int) -> pa.Table:
    """Rows of metadata.parquet whose texts are as long as GObjaverse's, hashes and numbers random."""
    rng, index = np.random.default_rng(0), np.arange(count)
    words = np.array([f"a made-up object, the number {k} of them, standing on a table" for k in range(50_000)])
    captions = pa.array(words[rng.integers(0, len(words), count)].tolist())
    known: dict[str, Any] = {
        "index": index, "uid": [f"{k:032x}" for k in range(count)], "shard": index // _SHARD,
        "status": pa.repeat(pa.scalar(OK), count), "caption": captions,
    }  # fmt: skip
    for family in (SPLATS, ATLAS):
        place = {"sample": index % _SHARD, "offset": index % _SHARD * _PITCH + 512, "nbytes": np.full(count, _ATLAS)}
        known |= {address_column(family, name): values for name, values in place.items()}
    columns = []
    for field in SCHEMA:
        if field.name in known:
            column = pa.array(known[field.name], field.type)
        elif field.name.endswith("sha256"):
            column = pa.array(np.frombuffer(rng.bytes(32 * count).hex().encode(), "S64").astype("U64"))
        elif pa.types.is_list(field.type):
            column = pa.ListArray.from_arrays(pa.array(np.arange(count + 1), pa.int32()), captions)
        elif pa.types.is_string(field.type):
            column = pa.repeat(pa.scalar("CC-BY-4.0"), count)
        elif pa.types.is_int64(field.type):
            column = pa.array(rng.integers(0, 16_384, count))
        else:
            column = pa.array(rng.random(count))
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def make(root: Path, count: int) -> None:
    """Write the files that opening reads, of both versions."""
    table = table_of(count)
    _write(root, 1, table, table.slice(0, 0), count)
    corrected = np.arange(count) % _EVERY == 0
    live, lost = table.filter(pa.array(~corrected)), table.filter(pa.array(corrected))
    index = np.arange(len(lost))
    moved = {"index": index + count, "shard": index // _SHARD + -(-count // _SHARD)}
    for family in (SPLATS, ATLAS):
        moved |= {address_column(family, "sample"): index % _SHARD}
        moved |= {address_column(family, "offset"): index % _SHARD * _PITCH + 512}
    new = pa.Table.from_arrays(
        [pa.array(moved[f.name]) if f.name in moved else lost[f.name] for f in SCHEMA], schema=SCHEMA
    )
    _write(root, 2, pa.concat_tables([live, new]), lost, count)


def _write(root: Path, version: int, rows: pa.Table, lost: pa.Table, count: int) -> None:
    sink = ParquetSink(SCHEMA)
    for start in range(0, len(rows), ParquetSink.ROW_GROUP):
        sink.add(rows[start : start + ParquetSink.ROW_GROUP])
    files = {METADATA: sink.finish()}
    lives = dict(zip(*(v.tolist() for v in np.unique(rows["shard"].to_numpy(), return_counts=True)), strict=True))
    shards = []
    for shard, live in sorted(lives.items()):
        samples = live + int((lost["shard"].to_numpy() == shard).sum()) if len(lost) else live
        entry = {"samples": samples, "nbytes": samples * _PITCH + 1024, "sha256": "0" * 64}
        entry |= {"live": live} if version > 1 else {}
        shards.append({"shard": shard, **{f: {"key": shard_tar(f, shard), **entry} for f in (SPLATS, ATLAS)}})
    index = {"schema_version": SCHEMA_VERSION, "size": 128, "samples": len(rows), "shards": shards}
    files[INDEX] = json.dumps(index).encode()
    if version > 1:
        schema = superseded_schema((SPLATS, ATLAS))
        given = {
            "since": pa.repeat(pa.scalar(version), len(lost)),
            "change": pa.repeat(pa.scalar("corrected"), len(lost)),
        }
        sink = ParquetSink(schema)
        columns = [given[name] if name in given else lost[name] for name in schema.names]
        sink.add(pa.Table.from_arrays(columns, schema=schema))
        files[SUPERSEDED] = sink.finish()
    sums = sums_file({version_key(version, name): hashlib.sha256(data).hexdigest() for name, data in files.items()})
    key = version_key(version, SUMS)
    files |= {SUMS: sums, SUCCESS: sums_file({key: hashlib.sha256(sums).hexdigest()})}
    for name, data in files.items():
        path = root / version_key(version, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def measured(root: Path) -> dict[str, float]:
    """CPU seconds and megabytes of opening each version, and of reading all columns for the first sample."""
    found = {}
    for name, options, rows in (
        ("open_s", {"version": 2}, ""),
        ("open_first_version_s", {"version": 1}, ""),
        ("first_sample_s", {"version": 2}, "rows"),
    ):
        command = [sys.executable, "-c", _CODE, str(root), json.dumps(options), rows]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, megabytes, more, _ = json.loads(done.stdout)
        found[name] = round(more if rows else seconds, 2)
        found[name.removesuffix("_s") + "_mb"] = round(megabytes)
    return found
