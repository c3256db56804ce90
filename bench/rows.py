"""The commands of a run by the number of manifest rows: plan, start, resume, status, finalize; no object is built.

    python -m bench.rows                          100,000, 1 million and 10 million rows: 25 minutes of one core
    python -m bench.rows --rows 200000            one number of rows

The manifest is Parquet in shards of 256, made for it. Of a half-done run the commit records are files; the tables and
moments of shards, which `finalize` reads, are made up by the store, 64 tables in turn. Every command runs in a
process of its own, of which CPU seconds, wall seconds and the largest resident memory are told.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Hashable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.canonical_json import to_json_file
from gaussianverse.atlas.dataset_format import ATLAS, OK, SPLATS
from gaussianverse.atlas.moments import Moments
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.storage import Head
from gaussianverse.manifests import runform
from gaussianverse.manifests.schema import arrow_schema
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.dataset import layout, members, run_file
from gaussianverse.pipeline.dataset.finalize import finalize
from gaussianverse.pipeline.dataset.pack import commit_record
from gaussianverse.pipeline.dataset.parquet import to_parquet
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import Facts, row
from gaussianverse.pipeline.ops.status import status_of
from gaussianverse.pipeline.policy import PolicyConfig
from gaussianverse.pipeline.run.driver import Driver
from gaussianverse.pipeline.run.executor import PACK, Task
from gaussianverse.pipeline.run.manifest import read_manifest
from gaussianverse.pipeline.store.probes import prove_conditional_puts

SHARD = 256
ROWS = (100_000, 1_000_000, 10_000_000)
COMMANDS = ("plan", "start", "resume", "drive", "status", "finalize")
_AT_ONCE = 1 << 16
_VARIANTS = 64
_DRIVEN = 64
"""Shards that the resumed driver works on."""


def make_manifest(path: Path, count: int) -> None:
    """Write a manifest in run form with rows as long as GObjaverse's."""
    schema = arrow_schema()
    with path.open("wb") as out:
        writer = runform.writer_to(out, schema)
        for start in range(0, count, _AT_ONCE):
            table = rows_of(schema, start, min(start + _AT_ONCE, count))
            for at in range(0, len(table), SHARD):
                writer.add(table[at : at + SHARD].combine_chunks())
        writer.finish()


def rows_of(schema: pa.Schema, start: int, stop: int) -> pa.Table:
    """Some of these rows, sorted by uid."""
    count = stop - start
    uids = [f"{k:010x}{k * 2654435761 % (1 << 88):022x}" for k in range(start, stop)]
    captions = pa.array(
        [f"a made-up object, the number {k * 7919 % 1000003} of them, on a table" for k in range(count)]
    )
    offsets = pa.array(np.arange(count + 1), pa.int32())
    source = pa.repeat(pa.scalar("Cap3D"), count)
    given: dict[str, Any] = {
        "index": np.arange(start, stop),
        "uid": uids,
        "views": [f"s3://renders/gobjaverse/{uid[6:10]}/{uid}.tar" for uid in uids],
        "format": pa.repeat(pa.scalar("gobjaverse"), count),
        "category": np.array(["Furnitures", "Animals", "Food"])[np.arange(count) % 3],
        "license": np.array(["CC-BY-4.0", "CC0-1.0"])[np.arange(count) % 2],
        "caption": captions,
        "captions": pa.ListArray.from_arrays(offsets, captions),
        "caption_source": source,
        "caption_sources": pa.ListArray.from_arrays(offsets, source),
        "source_id": [f"objaverse/{uid}" for uid in uids],
    }
    columns = [
        pa.array(given[f.name], f.type) if f.name in given else pa.repeat(pa.scalar("", f.type), count)
        for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


class MadeUp(LocalStorage):
    """A folder in which the tables and moments of shards are made up when they are asked for."""

    def __init__(self, root: Path, run: Run) -> None:
        super().__init__(root)
        self._made = {family: [_table(run, family, k) for k in range(_VARIANTS)] for family in layout.STAGES}
        moments = Moments(run.atlas.size)
        moments.add(np.ones((run.atlas.size, run.atlas.size, dataset_format.CHANNELS), np.float32))
        self._moments = bytes(moments.to_bytes())

    def get(self, key: str) -> bytes:
        if key.startswith("stats/"):
            family, _, number = key.removeprefix("stats/").removesuffix(".parquet").partition("-")
            return self._made[family][int(number) % _VARIANTS]
        return self._moments if key.startswith("moments/") else super().get(key)


def _table(run: Run, family: str, seed: int) -> bytes:
    schema, rng = run.stats_schema(family), np.random.default_rng(seed)
    rows = []
    uids = [f"{number:032x}" for number in np.random.default_rng(seed).integers(1 << 62, size=SHARD)]
    for k, uid in enumerate(uids):
        facts: Facts = {
            "uid": uid, "index": seed * SHARD + k, "sample": k, "status": OK, "license": "CC-BY-4.0",
            "caption": f"a made-up object, the number {rng.integers(1 << 20)} of them, on a table",
            "source_id": f"objaverse/{uid}", "config_digest": run.digest, "offset": k << 20, "nbytes": 1_048_704,
            "sha256": f"{rng.integers(1 << 62):016x}" * 4,
        }  # fmt: skip
        given = row(schema, facts)
        numbers = {f.name: float(rng.normal(30, 4)) for f in schema if pa.types.is_floating(f.type)}
        rows.append({**given, **numbers})
    return to_parquet(schema, rows)


def write_commits(root: Path, run: Run, shards: range) -> None:
    """Write the commit records of these shards, in both families."""
    for family in layout.STAGES:
        facts = [{"status": OK, **dict.fromkeys(_made_columns(family), "x")}] * SHARD
        for shard in shards:
            keys = [dataset_format.shard_tar(family, shard), layout.stats(family, shard)]
            keys += [layout.moments(shard)] if family == ATLAS else []
            files = {key: Head(268_000_000, f"{shard:064x}") for key in keys}
            path = root / layout.commit(family, shard)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(to_json_file(commit_record(run, family, shard, facts[: run.objects_in(shard)], files)))


def _made_columns(family: str) -> tuple[str, ...]:
    return ("code_digest", "made_with") if family == SPLATS else ("atlas_code_digest", "atlas_made_with")


class Stop(BaseException):
    """Ends a run."""


class First:
    """Executor whose tasks end at once; it packs up to `most` shards, and then ends the run."""

    def __init__(self, storage: LocalStorage, most: int) -> None:
        self._storage, self._most, self._tasks, self.first = storage, most, dict[int, Task](), 0.0

    def slots(self) -> int:
        return 64

    def submit(self, task: Task) -> Hashable:
        self.first = self.first or time.perf_counter()
        if not self._most:
            raise Stop
        number = max(self._tasks, default=0) + 1
        self._tasks[number] = task
        return number

    def wait(self, handles: list[Hashable], timeout_s: float) -> list[Hashable]:
        return list(handles)

    def result(self, handle: Hashable) -> Facts:
        task = self._tasks.pop(handle)  # type: ignore[call-overload]
        if task.kind == PACK and task.stage == ATLAS:
            self._most -= 1
        return {"status": OK, "uid": task.row.get("uid", "")}

    def cancel(self, handle: Hashable) -> None: ...


def begun(folder: Path, most: int) -> tuple[Run, First, float]:
    """Begin or resume the run as `fit-shard` does, until the first task, or until shards are packed."""
    config = load("cpu", ["atlas.size=8"])
    given = read_manifest(str(folder / "objects.parquet"), SHARD, StoreOptions())
    storage = LocalStorage(folder / "out")
    prove_conditional_puts(storage)
    identity = run_file.identity_of(given.data, config, members.representation(config.atlas))
    run = run_file.establish(storage, given.data, identity)
    executor = First(storage, most)
    with suppress(Stop):
        Driver(storage, run, executor, PolicyConfig(), shards=run.shards).run()  # type: ignore[arg-type]
    return run, executor, executor.first


def command(name: str, folder: Path) -> dict[str, Any]:
    """Run one of the commands in this process; returns what it measured beside time and memory."""
    out = folder / "out"
    if name == "plan":
        from gaussianverse.pipeline import cli

        arguments = ["plan", "--manifest", str(folder / "objects.parquet"), "--slots", "1024", "--json"]
        if cli.main(arguments):
            raise RuntimeError("plan failed")
        return {}
    if name in ("start", "resume"):
        began = time.perf_counter()
        _, executor, _ = begun(folder, 0)
        return {"first_task_s": round(executor.first - began, 2)}
    storage = LocalStorage(out)
    run = run_file.load(storage)
    if name == "drive":
        executor = First(storage, _DRIVEN)
        used = time.process_time()
        with suppress(Stop):
            Driver(storage, run, executor, PolicyConfig(), shards=run.shards).run()  # type: ignore[arg-type]
        return {"cpu_s_per_shard": round((time.process_time() - used) / _DRIVEN, 4)}
    if name == "status":
        status_of(storage, run)
        return {}
    finalize(MadeUp(out, run), run)
    return {"metadata_mb": round((out / dataset_format.METADATA).stat().st_size / 1e6)}


def measured(name: str, folder: Path) -> dict[str, Any]:
    """Run a command in a process of its own."""
    began = time.perf_counter()
    line = [sys.executable, "-m", "bench.rows", "--command", name, "--folder", str(folder)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return {**json.loads(done.stdout.splitlines()[-1]), "wall_s": round(time.perf_counter() - began, 1)}


def measure(count: int, root: str | None, only: Sequence[str] = COMMANDS) -> dict[str, Any]:
    """The commands with a manifest of `count` rows."""
    folder = Path(tempfile.mkdtemp(prefix="bench-rows-", dir=root))
    manifest, out = folder / "objects.parquet", LocalStorage(folder / "out")
    written = 0
    try:
        make_manifest(manifest, count)
        found: dict[str, Any] = {"manifest_mb": round(manifest.stat().st_size / 1e6, 1)}
        for name in only:
            if name not in ("plan", "start"):
                config = load("cpu", ["atlas.size=8"])
                identity = run_file.identity_of(manifest, config, members.representation(config.atlas))
                run = run_file.establish(out, manifest, identity)
                stop = run.n_shards if name == "finalize" else run.n_shards // 2
                write_commits(out.root, run, range(written, stop))
                written = stop
            found[name] = measured(name, folder)
            sys.stderr.write(f"{count} rows, {name}: {found[name]}\n")
        return found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=COMMANDS)
    parser.add_argument("--folder", help="folder for temporary files (default: the system's)")
    parser.add_argument("--command", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.command:
        found = command(args.command, Path(args.folder))
        used = resource.getrusage(resource.RUSAGE_SELF)
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        cpu = round(used.ru_utime + used.ru_stime, 2)
        print(json.dumps({"cpu_s": cpu, "peak_mb": round(int(peak.split()[1]) / 1024), **found}))
        return
    print(json.dumps({str(count): measure(count, args.folder, args.only) for count in args.rows}))


if __name__ == "__main__":
    main()
