"""Two nodes of a Ray cluster on one machine, and a job whose workers and nodes are killed in the middle."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from pipeline_runs import dataset, differing, tiny_arguments, undisturbed_dataset, until, write_inputs

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import SPLATS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.parquet import from_parquet
from gaussianverse.pipeline.dataset.schemas import QUARANTINE
from gaussianverse.pipeline.run import job

UIDS = [f"o{i}" for i in range(6)]
MEMORY = 80 << 20


def profile(*more: str) -> Any:
    return load("test", [*tiny_arguments()[3::2], "run.shard_size=3", "policy.pause_s=0.1", *more])


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_inputs(tmp_path_factory.mktemp("inputs"), UIDS)


@pytest.fixture(scope="module")
def undisturbed(manifest: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return undisturbed_dataset(tmp_path_factory.mktemp("whole") / "out", manifest, profile())


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that runs no task, and two nodes of one core each; a dead one is noticed within seconds."""
    from ray.cluster_utils import Cluster

    assert not ray.is_initialized(), "an earlier test left Ray running"
    quick = {"health_check_period_ms": 500, "health_check_timeout_ms": 500, "health_check_failure_threshold": 3}
    started = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0, "object_store_memory": MEMORY, "include_dashboard": False, "_system_config": quick,
        },
    )  # fmt: skip
    try:
        for _ in range(2):
            started.add_node(num_cpus=1, object_store_memory=MEMORY)
        started.wait_for_nodes()
        yield started
    finally:
        ray.shutdown()
        started.shutdown()


def workers_of(node: Any) -> dict[int, str]:
    """Processes of a node that run tasks, each with the title that Ray gives it."""
    (raylet,) = (info.process.pid for info in node.all_processes["raylet"])
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            title = (folder / "cmdline").read_bytes().decode(errors="replace")
            if parent == raylet and title.startswith("ray::"):
                found[int(folder.name)] = title
    return found


def at_work(node: Any) -> list[int]:
    """Processes that are in the middle of a fit."""
    return [pid for pid, title in workers_of(node).items() if title.startswith("ray::fit_object")]


def built(out: Path, manifest: str, cluster: Any, disturb: Callable[[LocalStorage], None]) -> tuple[Storage, Any]:
    """Run the job on the cluster while `disturb` kills workers or nodes."""
    config = profile(f"ray.address={cluster.address}")
    storage, run, base = job.plan(str(out), manifest, config)
    errors: list[BaseException] = []

    def disturbing() -> None:
        try:
            disturb(LocalStorage(out))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=disturbing)
    thread.start()
    outcome = job.build(storage, run, config, base)
    thread.join(60)
    assert errors == []
    return storage, outcome


def fits(storage: LocalStorage) -> int:
    return sum(1 for _ in storage.list(f"{layout.WORK}{SPLATS}/"))


def nothing_was_quarantined(storage: Storage) -> bool:
    return from_parquet(QUARANTINE, storage.get(dataset_format.QUARANTINE)).num_rows == 0


@pytest.mark.slow
def test_a_node_is_killed_in_the_middle(
    cluster: Any, manifest: str, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    second = cluster.list_all_nodes()[2]

    def kill_node(storage: LocalStorage) -> None:
        """Kill the raylet first, so that no process can report the deaths of its workers."""
        until(lambda: fits(storage) >= 1 and at_work(second))
        (raylet,) = (info.process for info in second.all_processes["raylet"])
        workers = workers_of(second)
        os.kill(raylet.pid, signal.SIGKILL)
        for worker in workers:
            with suppress(ProcessLookupError):  # it has noticed
                os.kill(worker, signal.SIGKILL)

    storage, outcome = built(tmp_path / "out", manifest, cluster, kill_node)
    assert outcome.finalized
    assert outcome.summary.retries > 0, "the death was felt"
    assert nothing_was_quarantined(storage)
    assert differing(dataset(storage), undisturbed) == []


@pytest.mark.slow
def test_workers_are_killed_in_the_middle_of_fits(
    cluster: Any, manifest: str, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    nodes = cluster.list_all_nodes()[1:]

    def kill_workers(storage: LocalStorage) -> None:
        for node in nodes:
            os.kill(until(partial(at_work, node))[0], signal.SIGKILL)

    storage, outcome = built(tmp_path / "out", manifest, cluster, kill_workers)
    assert outcome.finalized
    assert outcome.summary.retries >= 1, "the deaths were felt"
    assert nothing_was_quarantined(storage)
    assert differing(dataset(storage), undisturbed) == []
