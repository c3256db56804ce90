"""Ray's executor: tasks that die, hang, raise or are lost give a result with the reason."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import ray.exceptions

from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.policy import INFRASTRUCTURE, History
from gaussianverse.pipeline.run.executor import ATLAS, FIT, PACK, Job, Task
from gaussianverse.pipeline.run.ray_executor import RayExecutor
from gaussianverse.pipeline.run.ray_start import ray_executor

CONFIG = load("test", ["ray.workers=2", "ray.object_store_mb=80"])


def acting() -> Any:
    """Make a function that stands in for a fit and does what its row says; local, so that it is pickled by value."""

    def act(job: Job, row: Facts, attempt: int, *_: object) -> Facts:
        if row["do"] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if row["do"] == "hang":
            time.sleep(600)
        if row["do"] == "raise":
            raise ArithmeticError("no such number")
        return {"status": "ok", "uid": row["uid"], "attempt": attempt, "threads": os.environ["OMP_NUM_THREADS"]}

    return act


def task(do: str, **failures: int) -> Task:
    return Task(FIT, "splats", 0, {"uid": do, "do": do}, History(failures))


@pytest.fixture(scope="module")
def executor() -> Iterator[RayExecutor]:
    with ray_executor(CONFIG, Job("/nowhere")) as started:
        assert isinstance(started, RayExecutor)
        started._fit = ray.remote(num_cpus=1, max_retries=0)(acting())
        yield started


def ended(executor: RayExecutor, *handles: Any) -> list[Any]:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if found := executor.wait(list(handles), 1.0):
            return found
    raise AssertionError("nothing ended")


def test_a_task_comes_back_with_what_it_returned(executor: RayExecutor) -> None:
    assert executor.slots() == 2
    handle = executor.submit(task("work", cuda_error=2))
    assert ended(executor, handle) == [handle]
    assert executor.result(handle) == {"status": "ok", "uid": "work", "attempt": 3, "threads": "1"}


def test_all_that_have_ended_are_reported_at_once(executor: RayExecutor) -> None:
    handles = [executor.submit(task("work")) for _ in range(4)]
    left, seen = list(handles), list[Any]()
    while left:
        for handle in ended(executor, *left):
            left.remove(handle)
            seen.append(handle)
    assert sorted(map(str, seen)) == sorted(map(str, handles))


@pytest.mark.parametrize(("do", "reason"), [("die", "worker_killed"), ("raise", "unknown")])
def test_death_and_exceptions_are_reasons(executor: RayExecutor, do: str, reason: str) -> None:
    handle = executor.submit(task(do))
    ended(executor, handle)
    result = executor.result(handle)
    assert (result["status"], result["reason"]) == ("failed", reason)
    if do == "raise":
        # texts of others are kept for the journal and never published
        assert (result["error_class"], result["error_text"]) == ("ArithmeticError", "no such number")
        assert result["error_message"] == "unexpected ArithmeticError; the journal has its text"


def test_what_is_cancelled_ends_and_its_slot_is_free_again(executor: RayExecutor) -> None:
    hanging = [executor.submit(task("hang")) for _ in range(2)]
    assert executor.wait(hanging, 0.1) == []
    for handle in hanging:
        executor.cancel(handle)
    for handle in hanging:
        ended(executor, handle)
        assert executor.result(handle)["reason"] in ("timeout", "worker_killed")
    after = executor.submit(task("work"))
    ended(executor, after)
    assert executor.result(after)["status"] == "ok"


class FakeRay:
    """Stands in for Ray and records how it is called."""

    exceptions = ray.exceptions

    def __init__(self, resources: dict[str, float], outcome: Any = None) -> None:
        self.resources, self.outcome, self.asked = resources, outcome, list[dict[str, Any]]()
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.alive = {"first": True, "second": True, "long gone": False}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": name, "Alive": alive} for name, alive in self.alive.items()]

    def remote(self, **options: Any) -> Any:
        self.asked.append(options)

        def wrap(function: Any) -> Any:
            return SimpleNamespace(remote=lambda *a: self.calls.append((function.__name__, a)) or len(self.calls))

        return wrap

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def get(self, handle: Any) -> Any:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.mark.parametrize(
    ("overrides", "resources", "slots"),
    [
        ([], {"CPU": 8}, 8),
        ([], {"CPU": 8, "GPU": 2}, 8),
        (["fit.backend=gsplat"], {"CPU": 8, "GPU": 2}, 2),
        (["fit.backend=gsplat", "ray.gpus_per_fit=0.25"], {"CPU": 16, "GPU": 2}, 8),
        (["fit.backend=gsplat", "ray.gpus_per_fit=0.25"], {"CPU": 4, "GPU": 2}, 4),
        ([], {}, 1),
    ],
)
def test_slots_follow_the_cluster(overrides: list[str], resources: dict[str, float], slots: int) -> None:
    assert RayExecutor(FakeRay(resources), load("test", overrides), Job("/x")).slots() == slots


def test_the_cluster_is_not_counted_for_every_task_and_its_growth_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("gaussianverse.pipeline.run.ray_executor.time.monotonic", lambda: now[0])
    fake = FakeRay({"CPU": 2})
    executor = RayExecutor(fake, CONFIG, Job("/x"))
    assert executor.slots() == 2
    fake.resources = {"CPU": 4}
    assert executor.slots() == 2
    now[0] += 1.0
    assert executor.slots() == 4


def test_ray_retries_nothing_and_gpu_workers_are_renewed() -> None:
    fake = FakeRay({})
    RayExecutor(fake, load("test", ["fit.backend=gsplat", "ray.max_calls=7"]), Job("/x"))
    fit, *others = fake.asked
    assert fit == {"num_cpus": 1, "max_retries": 0, "num_gpus": 1.0, "max_calls": 7}
    assert others == [{"num_cpus": 1, "max_retries": 0}] * 2


def test_each_kind_of_task_goes_to_its_function() -> None:
    fake, job, row = FakeRay({}), Job("/x"), {"uid": "a"}
    executor = RayExecutor(fake, CONFIG, job)
    executor.submit(Task(FIT, "splats", 0, row, History({"nan_loss": 1, "timeout": 1})))
    executor.submit(Task(ATLAS, "atlas", 0, row))
    executor.submit(Task(PACK, "atlas", 3))
    (fit, given), *others = fake.calls
    assert (fit, given[:4]) == ("fit_object", (job, row, 3, 1))
    assert others == [
        ("atlas_object", (job, row, 1)), ("pack_shard", (job, "atlas", 3)),
    ]  # fmt: skip


def test_a_task_that_runs_alone_takes_all_cores_of_the_largest_node_that_can_fit() -> None:
    class Sizes(FakeRay):
        def nodes(self) -> list[dict[str, Any]]:
            sizes = [(True, 4, 1), (True, 16, 1), (True, 64, 0), (False, 32, 1)]
            return [
                {"NodeID": f"{k:056x}", "Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus}}
                for k, (alive, cpus, gpus) in enumerate(sizes)
            ]

        def remote(self, **options: Any) -> Any:
            def wrap(function: Any) -> Any:
                def call(*_: Any, **given: Any) -> int:
                    self.asked.append({**options, **given, "name": function.__name__})
                    return len(self.asked)

                return SimpleNamespace(remote=call, options=lambda **o: SimpleNamespace(remote=lambda *a: call(**o)))

            return wrap

    for overrides, cores in (([], 64), (["fit.backend=gsplat"], 16)):
        fake = Sizes({})
        executor = RayExecutor(fake, load("test", overrides), Job("/x"))
        for kind, stage in ((FIT, "splats"), (ATLAS, "atlas")):
            for alone in (True, False):
                executor.submit(Task(kind, stage, 0, {"uid": "a"}, alone=alone))
        assert [asked["num_cpus"] for asked in fake.asked] == [cores, 1, cores, 1]
        assert [asked["name"] for asked in fake.asked] == ["fit_object"] * 2 + ["atlas_object"] * 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (ray.exceptions.OutOfMemoryError("x"), "out_of_memory"),
        (ray.exceptions.NodeDiedError("x"), INFRASTRUCTURE),
        (ray.exceptions.WorkerCrashedError(), "worker_killed"),
        (ray.exceptions.TaskCancelledError(), "timeout"),
        (ray.exceptions.RaySystemError("x"), INFRASTRUCTURE),
        (ray.exceptions.RuntimeEnvSetupError("x"), INFRASTRUCTURE),
    ],
)
def test_errors_of_ray_become_reasons(fault: BaseException, reason: str) -> None:
    result = RayExecutor(FakeRay({}, fault), CONFIG, Job("/x")).result("handle")
    assert (result["status"], result["reason"]) == ("failed", reason)


class Room(FakeRay):
    """One node, on which each task is killed, and what a look at its memory says or is ended by."""

    def __init__(self, killed: Exception, look: str | Exception) -> None:
        super().__init__({"CPU": 4}, killed)
        self.look = look

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": "ab" * 28, "Alive": True, "Resources": {"CPU": 4}}]

    def remote(self, **options: Any) -> Any:
        def wrap(function: Any) -> Any:
            def call(*_: Any, **given: Any) -> str:
                self.asked.append({**options, **given, "name": function.__name__})
                return str(function.__name__)

            return SimpleNamespace(remote=call, options=lambda **o: SimpleNamespace(remote=lambda *a: call(**o)))

        return wrap

    def get(self, handle: Any, timeout: float | None = None) -> Any:
        found = self.look if handle == "memory_shortage" else self.outcome
        if isinstance(found, Exception):
            raise found
        return found


@pytest.mark.parametrize(("kind", "stage"), [(FIT, "splats"), (ATLAS, "atlas")])
@pytest.mark.parametrize(
    ("killed", "reason"),
    [
        (ray.exceptions.OutOfMemoryError("killed"), "out_of_memory"),
        (ray.exceptions.WorkerCrashedError(), "worker_killed"),
    ],
)
@pytest.mark.parametrize(
    ("look", "words"),
    [
        ("", ""),
        ("the node is short of memory: 0.2 of 16.0 GiB are free", "0.2 of 16.0 GiB"),
        (ray.exceptions.OutOfMemoryError("killed too"), "a task that needs none did not come through"),
        (ray.exceptions.GetTimeoutError("late"), "a task that needs none did not come through"),
    ],
)
def test_who_is_killed_alone_is_blamed_only_if_its_node_has_room_without_it(
    kind: str, stage: str, killed: Exception, reason: str, look: str | Exception, words: str
) -> None:
    fake = Room(killed, look)
    executor = RayExecutor(fake, CONFIG, Job("/x"))
    result = executor.result(executor.submit(Task(kind, stage, 0, {"uid": "a"}, alone=True)))
    assert result["reason"] == (INFRASTRUCTURE if words else reason)
    assert words in result["error_message"]
    assert [asked["scheduling_strategy"].node_id for asked in fake.asked] == ["ab" * 28] * 2, "on the same node"


def test_who_is_killed_beside_others_is_not_looked_into() -> None:
    fake = Room(ray.exceptions.OutOfMemoryError("killed"), "short")
    executor = RayExecutor(fake, CONFIG, Job("/x"))
    assert executor.result(executor.submit(task("work")))["reason"] == "out_of_memory"
    assert [asked["name"] for asked in fake.asked] == ["fit_object"]


def test_a_worker_that_may_have_died_with_its_node_is_not_held_against_its_object() -> None:
    """Ray declares a node that was cut off dead, and if it comes back reports crashed workers for its tasks."""
    fake = FakeRay({}, ray.exceptions.WorkerCrashedError())
    executor = RayExecutor(fake, CONFIG, Job("/x"))
    before = [executor.submit(task("work")) for _ in range(2)]
    assert executor.result(executor.submit(task("work")))["reason"] == "worker_killed"
    fake.alive["second"] = False
    assert [executor.result(handle)["reason"] for handle in before] == [INFRASTRUCTURE] * 2
    assert executor.result(executor.submit(task("work")))["reason"] == "worker_killed"


def test_a_node_that_was_dead_before_excuses_nobody() -> None:
    fake = FakeRay({}, ray.exceptions.WorkerCrashedError())
    executor = RayExecutor(fake, CONFIG, Job("/x"))
    fake.alive["second"] = False
    executor.slots()
    assert executor.result(executor.submit(task("work")))["reason"] == "worker_killed"


def test_where_nodes_come_and_go_an_object_that_kills_its_workers_is_not_excused_for_ever() -> None:
    fake = FakeRay({}, ray.exceptions.WorkerCrashedError())
    executor = RayExecutor(fake, CONFIG, Job("/x"))
    reasons, poison = [], task("work")
    for _ in range(8):
        handle = executor.submit(poison)
        fake.alive[f"node {len(fake.alive)}"] = False
        reasons.append(str(executor.result(handle)["reason"]))
        poison = replace(poison, history=poison.history.after(reasons[-1]))
    kills = CONFIG.policy.kills
    assert reasons == [INFRASTRUCTURE] * kills + ["worker_killed"] * (8 - kills)


@pytest.mark.parametrize(
    ("item", "name"),
    [
        (Task(FIT, "splats", 0, {"uid": "a"}), "fit of a"),
        (Task(ATLAS, "atlas", 0, {"uid": "b"}), "atlas of b"),
        (Task(PACK, "atlas", 12), "pack of atlas 12"),
    ],
)
def test_tasks_have_names(item: Task, name: str) -> None:
    assert item.name == name


def test_every_node_is_examined_once_and_a_faulty_one_is_named(
    executor: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gaussianverse.pipeline.errors import PipelineError
    from gaussianverse.pipeline.node import machine

    def well(config: Any) -> str:
        return ""

    def ill(config: Any) -> str:
        return "no nvcc"

    for function in (well, ill):
        function.__module__ = "__main__"  # so that they are pickled by value
    monkeypatch.setattr(machine, "examine_node", well)
    executor.examine_nodes(CONFIG)
    monkeypatch.setattr(machine, "examine_node", ill)
    with pytest.raises(PipelineError, match=r"node 127\.0\.0\.1: no nvcc"):
        executor.examine_nodes(CONFIG)
