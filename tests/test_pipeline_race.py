"""Several drivers on one output at once, with fits that differ each time, as on GPUs."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pipeline_runs import atlas_of, data_of, planned, publish_one

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.dataset import layout, pack, shards
from gaussianverse.pipeline.dataset.finalize import finalize
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.ops.clean_work import clean_work
from gaussianverse.pipeline.ops.verify import verify
from gaussianverse.pipeline.policy import PolicyConfig
from gaussianverse.pipeline.run.driver import Driver
from gaussianverse.pipeline.run.executor import ATLAS, PACK, Task

UIDS = [f"o{i}" for i in range(7)]
LOST = "o3"


class Hasty(LocalStorage):
    """A store whose calls take random times, so that the drivers meet differently each time."""

    def __init__(self, root: Path, seed: int) -> None:
        super().__init__(root)
        self._random = random.Random(seed)

    def put_if_absent(self, key: str, data: bytes | bytearray) -> bool:
        time.sleep(self._random.random() * 2e-3)
        return super().put_if_absent(key, data)

    def get(self, key: str) -> bytes:
        time.sleep(self._random.random() * 1e-3)
        return super().get(key)


class Worker:
    """An executor whose fits contain its name: the bytes show whose came first."""

    def __init__(self, storage: LocalStorage, run: Run, name: str) -> None:
        self._storage, self._run, self._name, self._tasks = storage, run, name, list[Task]()
        self.fits = 0

    def slots(self) -> int:
        return 1

    def submit(self, task: Task) -> int:
        self._tasks.append(task)
        return len(self._tasks) - 1

    def wait(self, handles: Sequence[Hashable], timeout_s: float) -> list[Hashable]:
        return list(handles)[:1]

    def cancel(self, handle: Hashable) -> None: ...

    def result(self, handle: Any) -> Facts:
        task, storage, run = self._tasks[handle], self._storage, self._run
        if task.kind == PACK:
            pack.pack(storage, run, task.stage, task.shard)
            return {"status": "ok"}
        uid = str(task.row["uid"])
        data: bytes | None = data_of(dataset_format.SPLATS, f"{uid} by {self._name}, fit {self.fits}")
        if task.kind == ATLAS:
            fit = shards.read_record(storage, dataset_format.SPLATS, task.shard, uid)
            data = atlas_of(fit.main(dataset_format.SPLATS)) if fit.ok else None
        else:
            self.fits += 1
            # one driver quarantines the object, the other fits it: the first of them counts
            if uid == LOST and self._name == "first":
                data = None
        publish_one(storage, run, task.stage, dict(task.row), data=data)
        return {"status": "ok", "uid": uid}


@pytest.mark.parametrize("seed", range(12))
def test_drivers_at_once_make_one_dataset_whose_atlases_are_of_its_fits(tmp_path: Path, seed: int) -> None:
    out = tmp_path / "out"
    run = planned(LocalStorage(out), UIDS, shard_size=3)
    errors: list[BaseException] = []

    def drive(name: str, number: int) -> None:
        storage = Hasty(out, 100 * seed + number)
        chosen = list(range(run.n_shards))
        random.Random(seed + number).shuffle(chosen)
        try:
            Driver(storage, run, Worker(storage, run, name), PolicyConfig(), shards=chosen).run()
            if seed % 3 == 0:
                clean_work(storage)
            finalize(storage, run)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=drive, args=(name, k)) for k, name in enumerate(("first", "second"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    storage = LocalStorage(out)
    assert list(verify(storage, run)) == []
    for shard in range(run.n_shards):
        for row in shards.stats_rows(storage, dataset_format.ATLAS, shard):
            fit, atlas = (shards.read_record(storage, stage, shard, str(row["uid"])) for stage in layout.STAGES)
            assert fit.ok == atlas.ok
            if fit.ok:
                assert atlas.main(dataset_format.ATLAS) == atlas_of(fit.main(dataset_format.SPLATS))
