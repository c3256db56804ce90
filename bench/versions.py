"""Measure the planning of a version of a million objects, `extend --dry-run`, and their opening (`bench/opening.py`).

The dataset and the new manifest are made for it: only the tables that planning reads, without a shard. The manifest
has every object, of which one in a thousand has another caption, one in 5,000 other views, and 1,000 are new.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench import opening
from bench.record import keep
from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import OK, sums_file
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.storage import sha256_of
from gaussianverse.manifests import runform
from gaussianverse.manifests.schema import LISTS, arrow_schema
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.dataset import layout, members, run_file
from gaussianverse.pipeline.dataset.parquet import ParquetSink
from gaussianverse.pipeline.dataset.schemas import default_of

_GROUP = 1 << 16
KINDS = {"score": "number"}


def manifest_of(count: int) -> pa.Table:
    """Rows of a manifest of made-up objects, as long as GObjaverse's, with one column of the author."""
    schema = arrow_schema(KINDS)
    uids = [f"{k * 2654435761 % (1 << 64):016x}{k:016x}" for k in range(count)]
    uids.sort()
    captions = [
        f"a made-up object, the number {k} of them, standing on a table in front of a wall" for k in range(count)
    ]
    given: dict[str, Any] = {
        "index": np.arange(count),
        "uid": uids,
        "views": [f"s3://renders/gobjaverse/{uid[:4]}/{uid}.tar" for uid in uids],
        "format": pa.repeat(pa.scalar("gobjaverse"), count),
        "category": pa.array(np.array(["Furnitures", "Animals", "Food"])[np.arange(count) % 3]),
        "license": pa.array(np.array(["CC-BY-4.0", "CC0-1.0"])[np.arange(count) % 2]),
        "caption": captions,
        "captions": pa.ListArray.from_arrays(pa.array(np.arange(count + 1), pa.int32()), pa.array(captions)),
        "caption_source": pa.repeat(pa.scalar("Cap3D"), count),
        "source_id": [f"objaverse/{uid}" for uid in uids],
        "score": np.arange(count) / 7,
    }
    given["caption_sources"] = pa.ListArray.from_arrays(
        pa.array(np.arange(count + 1), pa.int32()), given["caption_source"]
    )
    columns = [
        pa.array(given[f.name], f.type) if f.name in given else pa.repeat(pa.scalar("", f.type), count)
        for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def make_dataset(folder: Path, rows: pa.Table) -> None:
    """Write what planning reads of a finished dataset of these rows: run.json, manifest and metadata."""
    storage, config = LocalStorage(folder), load("cpu")
    data = runform.encode_table(rows)
    run = run_file.establish(storage, data, run_file.identity_of(data, config, members.representation(config.atlas)))
    schema = run.metadata_schema()
    sink = ParquetSink(schema)
    for start in range(0, len(rows), _GROUP):
        part = rows[start : start + _GROUP]
        index = np.arange(start, start + len(part))
        known: dict[str, Any] = {
            "shard": index // 256, "sample": index % 256, "status": pa.repeat(pa.scalar(OK), len(part)),
            "config_digest": pa.repeat(pa.scalar(run.digest), len(part)),
            "fit_digest": pa.repeat(pa.scalar(run.fit_digest), len(part)),
        }  # fmt: skip
        columns = []
        for field in schema:
            if field.name in known:
                columns.append(pa.array(known[field.name], field.type))
            elif field.name in part.column_names or field.name in LISTS:
                columns.append(part[field.name].combine_chunks())
            else:
                columns.append(pa.repeat(pa.scalar(default_of(field.type), field.type), len(part)))
        sink.add(pa.Table.from_arrays(columns, schema=schema))
    storage.put_if_absent(dataset_format.METADATA, sink.finish())
    sums = sums_file({layout.RUN: sha256_of(storage.get(layout.RUN))})
    storage.put_if_absent(dataset_format.SUMS, sums)
    storage.put_if_absent(dataset_format.SUCCESS, sums_file({dataset_format.SUMS: sha256_of(sums)}))


def changed(rows: pa.Table) -> pa.Table:
    """The rows of the new manifest, as an author has them."""
    captions, views = (rows[name].to_pylist() for name in ("caption", "views"))
    captions[::1000] = [f"{text}, corrected" for text in captions[::1000]]
    views[::5000] = [f"{text}.new" for text in views[::5000]]
    own = rows.select(["uid", "format", "category", "license", "caption_source", "source_id", "score"])
    own = own.replace_schema_metadata(None)
    own = own.append_column("caption", pa.array(captions)).append_column("views", pa.array(views))
    more = own[:1000].to_pylist()
    more = [{**row, "uid": f"new-{k}"} for k, row in enumerate(more)]
    return pa.concat_tables([own, pa.Table.from_pylist(more, schema=own.schema)])


def dry_run(out: Path, manifest: Path) -> dict[str, Any]:
    """CPU seconds and peak memory of `extend --dry-run`, and what it found."""
    code = (
        "import json, re, resource, sys\n"
        "from gaussianverse.pipeline import cli\n"
        "status = cli.main(sys.argv[1:])\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        # ru_maxrss would include the process that started this one
        "peak = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "print(json.dumps({'s': used.ru_utime + used.ru_stime, 'mb': peak / 1024, 'status': status}))\n"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "extend",
        "--out",
        str(out),
        "--manifest",
        str(manifest),
        "--dry-run",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *found, used = map(json.loads, done.stdout.splitlines())
    if used["status"]:
        sys.exit(done.stderr)
    return {"dry_run_s": round(used["s"], 2), "dry_run_mb": round(used["mb"]), "plan": found[0]}


def main() -> None:
    """Print and store the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=1_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = manifest_of(args.objects)
        make_dataset(folder / "out", rows)
        pq.write_table(changed(rows), folder / "new.parquet")
        del rows
        found = dry_run(folder / "out", folder / "new.parquet")
        plan = found.pop("plan")
        opening.make(folder / "opened", args.objects)
        found |= opening.measured(folder / "opened")
        found |= {name: plan[name] for name in ("added", "refitted", "corrected", "removed", "unchanged")}
        keep("versions", {"objects": args.objects, **found})


if __name__ == "__main__":
    main()
