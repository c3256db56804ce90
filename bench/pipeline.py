"""The pipeline without fits: memory and throughput of the driver, and its cost per object.

    python -m bench.pipeline                 205,737 objects on an executor without Ray, 20,000 on Ray
    python -m bench.pipeline --objects 5000 --ray-objects 1000

`driver_growth_mb`, `restart_s` and `objects_per_s_driver` are measured on the whole manifest, with tasks that cost
nothing. `objects_per_s` is measured on Ray, with real fragments of a few bytes, through every stage to the commit.
`put_ms` is the time of one durable put on the disk; every object needs two. `--folder /dev/shm` makes it nothing.
`overhead_ms` is thread CPU time per object, with arrays of full size, for everything except fit, transport and the
quality render. The other part, `--only rows`, is in `bench/rows.py`: the commands of a run by the number of rows.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Hashable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from bench import rows
from bench.record import RESULTS, environment, keep
from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.arrays import npy
from gaussianverse.atlas.dataset_format import OK
from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.manifests import runform
from gaussianverse.manifests.schema import Row
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.dataset import layout, members, pack, records, run_file, shards
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.policy import PolicyConfig
from gaussianverse.pipeline.run.driver import Driver
from gaussianverse.pipeline.run.executor import ATLAS, PACK, Job, Task
from gaussianverse.pipeline.run.ray_start import ray_executor

PAPER = 205_737
SHARD = 256
RAY_OBJECTS = 20_000
HALF = 0.5
PARTS = ("objects", "rows")
"""Tasks that do nothing, by object; the commands of a run, by the number of manifest rows."""


class Stop(BaseException):
    """Exception that ends a run half-way, as a kill does."""


class Nothing:
    """Executor whose tasks end at once; of a packed shard, it writes only the commit key, which a restart needs."""

    def __init__(self, storage: LocalStorage, stop_after: int = -1) -> None:
        self._storage, self._stop, self._numbers = storage, stop_after, itertools.count()
        self._tasks: dict[Hashable, Task] = {}
        self.first: float | None = None
        self.done, self.peak_mb = 0, 0.0

    def slots(self) -> int:
        return 64

    def submit(self, task: Task) -> Hashable:
        if self.first is None:
            self.first = time.perf_counter()
        handle = next(self._numbers)
        self._tasks[handle] = task
        return handle

    def wait(self, handles: Sequence[Hashable], timeout_s: float) -> list[Hashable]:
        return list(handles)

    def result(self, handle: Hashable) -> Facts:
        task = self._tasks.pop(handle)
        if task.kind == PACK:
            self._storage.put_if_absent(layout.commit(task.stage, task.shard), b"")
            self.peak_mb = max(self.peak_mb, resident_mb())
        elif task.kind == ATLAS:
            self.done += 1
            if self.done == self._stop:
                raise Stop
        return {"status": OK, "uid": task.row.get("uid", "")}

    def cancel(self, handle: Hashable) -> None: ...


def resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this machine has no /proc")


def planned(storage: LocalStorage, objects: int) -> Run:
    made = [
        Row(f"{i:032x}", f"s3://bucket/views/{i:032x}", license="CC-BY-4.0", caption="a wooden chair with arms")
        for i in range(objects)
    ]
    manifest = runform.encode(made, shard_size=SHARD)
    config = load("cpu", ["atlas.size=8"])
    frozen = run_file.identity_of(manifest, config, members.representation(config.atlas))
    return run_file.establish(storage, manifest, frozen)


def drive(storage: LocalStorage, run: Run, executor: Any) -> None:
    Driver(storage, run, executor, PolicyConfig(), shards=range(run.n_shards)).run()


def driver_alone(root: Path, objects: int) -> dict[str, float]:
    storage = LocalStorage(root / "driver")
    run = planned(storage, objects)
    before, started = resident_mb(), time.perf_counter()
    first = Nothing(storage, int(objects * HALF))
    with suppress(Stop):
        drive(storage, run, first)
    half, again = time.perf_counter(), Nothing(storage)
    drive(storage, run, again)
    ended = time.perf_counter()
    assert again.first is not None
    return {
        "driver_growth_mb": max(first.peak_mb, again.peak_mb) - before,
        "objects_per_s_driver": objects / (ended - started),
        "restart_s": again.first - half,
        "objects": objects,
    }


NOTHING = {
    dataset_format.SPLATS: b"nothing",
    dataset_format.ATLAS: npy(np.zeros((8, 8, dataset_format.CHANNELS), np.float32)),
}


def tiny_fit(job: Job, row: Facts, attempt: int, nan_losses: int) -> Facts:
    return _tiny(job, row, attempt, dataset_format.SPLATS)


def tiny_atlas(job: Job, row: Facts, attempt: int) -> Facts:
    storage = open_storage(job.url, job.store)
    shards.read_record(storage, dataset_format.SPLATS, int(row["shard"]), str(row["uid"]))
    return _tiny(job, row, attempt, dataset_format.ATLAS)


def tiny_pack(job: Job, stage: str, shard: int) -> Facts:
    run = run_file.load_cached(job.url, job.store)
    pack.pack(open_storage(job.url, job.store), run, stage, shard)
    return {"status": OK}


def _tiny(job: Job, row: Facts, attempt: int, stage: str) -> Facts:
    run = run_file.load_cached(job.url, job.store)
    facts = records.facts_of(stage, row, run, status=OK)
    records.publish_sample(
        open_storage(job.url, job.store), stage, facts, NOTHING[stage], records.Stopwatch(attempt), {}
    )
    return {"status": OK, "uid": row["uid"]}


def put_ms(root: Path, rounds: int = 100) -> float:
    """Mean wall-clock milliseconds of a small durable put."""
    storage = LocalStorage(root / "puts")
    storage.put_if_absent("first", b"")
    started = time.perf_counter()
    for number in range(rounds):
        storage.put_if_absent(str(number), bytes(2000))
    return 1e3 * (time.perf_counter() - started) / rounds


def on_ray(root: Path, objects: int) -> dict[str, float]:
    storage = LocalStorage(root / "ray")
    run = planned(storage, objects)
    config, job = load("cpu"), Job(storage.url)
    with ray_executor(config, job) as executor:
        import ray

        remote = ray.remote(num_cpus=1, max_retries=0)
        executor._fit, executor._atlas, executor._pack = map(remote, (tiny_fit, tiny_atlas, tiny_pack))  # type: ignore[attr-defined]
        before, started = resident_mb(), time.perf_counter()
        drive(storage, run, executor)
        seconds = time.perf_counter() - started
    return {
        "objects_per_s": objects / seconds,
        "ray_objects": objects,
        "put_ms": put_ms(root),
        "ray_driver_growth_mb": resident_mb() - before,
    }


def overhead(root: Path, rounds: int = 64) -> dict[str, float]:
    """Thread CPU milliseconds per object for publishing both stages, reading between them, and packing."""
    storage = LocalStorage(root / "overhead")
    run = planned(storage, rounds)
    job = Job(storage.url, store=StoreOptions())
    rng = np.random.default_rng(0)
    splat, atlas = rng.bytes(10_435 * 14 * 4), rng.bytes(128 * 128 * 16 * 4)
    given = [{**row, "shard": shard} for shard in range(run.n_shards) for row in shard_rows(storage, run, shard)]
    start = time.thread_time()
    for row in given:
        opened = open_storage(job.url, job.store)
        facts = records.facts_of(dataset_format.SPLATS, row, run, status=OK)
        records.publish_sample(opened, dataset_format.SPLATS, facts, splat, records.Stopwatch(1), {})
        shards.read_record(opened, dataset_format.SPLATS, int(row["shard"]), str(row["uid"]))
        facts = records.facts_of(dataset_format.ATLAS, row, run, status=OK)
        records.publish_sample(opened, dataset_format.ATLAS, facts, atlas, records.Stopwatch(1), {})
    published = time.thread_time()
    for shard in range(run.n_shards):
        pack.pack(storage, run, dataset_format.SPLATS, shard, None)
        pack.pack(storage, run, dataset_format.ATLAS, shard, lambda mains: b"".join(mains)[:1])
    packed = time.thread_time()
    return {
        "overhead_ms": 1e3 * (packed - start) / rounds,
        "overhead_publish_ms": 1e3 * (published - start) / rounds,
        "overhead_pack_ms": 1e3 * (packed - published) / rounds,
    }


def by_rows(counts: Sequence[int]) -> dict[str, Any]:
    """The commands by the number of manifest rows (`bench/rows.py`), and the numbers of 10 million by names.

    Seconds are CPU seconds of the process, which has one thread that works; the table has wall seconds as well.
    """
    found: dict[str, Any] = {"rows": {str(count): rows.measure(count, None) for count in counts}}
    if (of := found["rows"].get("10000000")) is not None:
        found["plan_10m_s"], found["resume_10m_s"] = of["plan"]["cpu_s"], of["resume"]["cpu_s"]
        found["driver_10m_mb"] = max(of[name]["peak_mb"] for name in rows.COMMANDS)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--objects", type=int, default=PAPER, help="number of objects for the driver alone")
    parser.add_argument("--ray-objects", type=int, default=RAY_OBJECTS)
    parser.add_argument("--rows", type=int, nargs="+", default=rows.ROWS, help="numbers of manifest rows")
    parser.add_argument("--only", choices=PARTS, help="measure one part, and keep the numbers of the other")
    parser.add_argument("--folder", help="folder for temporary files (default: the system's)")
    args = parser.parse_args()
    kept = RESULTS / "pipeline.json"
    result: dict[str, Any] = json.loads(kept.read_text()) if args.only and kept.exists() else {}
    before = result.pop("environment", {})
    environments = result.pop("environments", {"objects": before} if before else {})
    root = Path(tempfile.mkdtemp(prefix="bench-pipeline-", dir=args.folder))
    try:
        if args.only != "rows":
            result |= overhead(root)
            result |= driver_alone(root, args.objects)
            result |= on_ray(root, args.ray_objects)
        if args.only != "objects":
            result |= by_rows(args.rows)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    parts = [args.only] if args.only else PARTS
    keep("pipeline", {**result, "environments": {**environments, **dict.fromkeys(parts, environment())}})


if __name__ == "__main__":
    main()
