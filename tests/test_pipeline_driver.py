"""The driver with an executor without Ray, whose tasks write made-up fragments, fail or hang as the test says."""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_runs import data_of, planned, publish_all, publish_one

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.store.errors import NotFound, StoreError, StoreRefused
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.storage import Entry
from gaussianverse.pipeline.dataset import layout, pack, records, shards
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.errors import BreakerOpen, PipelineError, ShardConflict, Stalled
from gaussianverse.pipeline.policy import CONFLICT, INFRASTRUCTURE, PolicyConfig, failed
from gaussianverse.pipeline.run.driver import Driver
from gaussianverse.pipeline.run.executor import ATLAS, FIT, PACK, Task
from gaussianverse.pipeline.run.watch import Summary, Work
from gaussianverse.pipeline.run.watch import Watch as Ignoring

HANG = "hang"
KILLED = "killed"


class Inline:
    """Runs a task when its result is requested; each attempt first takes one of `faults[kind, uid]`."""

    def __init__(
        self, storage: LocalStorage, run: Run, faults: dict[tuple[str, str], list[str]] | None = None
    ) -> None:
        self.storage, self._run = storage, run
        self.faults = defaultdict(deque, {k: deque(v) for k, v in (faults or {}).items()})
        self.log: list[tuple[str, str]] = []
        self.most, self.left, self.cancelled = 0, 10**9, set[Hashable]()
        self._tasks: dict[Hashable, Task] = {}
        self._numbers = itertools.count()

    def slots(self) -> int:
        return 2

    def submit(self, task: Task) -> Hashable:
        handle = next(self._numbers)
        self._tasks[handle] = task
        self.most = max(self.most, len(self._tasks))
        return handle

    def wait(self, handles: Sequence[Hashable], timeout_s: float) -> list[Hashable]:
        return [h for h in handles if h in self.cancelled or self._next_fault(h) != HANG][:1]

    def _next_fault(self, handle: Hashable) -> str:
        queue = self.faults[self._key(self._tasks[handle])]
        return queue[0] if queue else ""

    @staticmethod
    def _key(task: Task) -> tuple[str, str]:
        return task.kind, f"{task.stage}-{task.shard}" if task.kind == PACK else str(task.row["uid"])

    def cancel(self, handle: Hashable) -> None:
        self.cancelled.add(handle)

    def result(self, handle: Hashable) -> Facts:
        if self.left == 0:
            raise KeyboardInterrupt  # the driver dies
        self.left -= 1
        task = self._tasks.pop(handle)
        self.log.append(self._key(task))
        queue = self.faults[self._key(task)]
        if queue:
            fault = queue.popleft()
            return failed("worker_killed" if fault in (HANG, KILLED) else fault, f"told to: {fault}")
        return self._done(task)

    def _done(self, task: Task) -> Facts:
        if task.kind == PACK:
            pack.pack(self.storage, self._run, task.stage, task.shard)
            return {"status": "ok"}
        uid = str(task.row["uid"])
        if task.kind == ATLAS:
            fit = records.read(self.storage, dataset_format.SPLATS, task.shard, uid)
            if not fit.ok:
                watch = records.Stopwatch(1)
                records.publish_quarantine(self.storage, task.stage, task.row, self._run, fit.facts, watch)
                return {"status": "quarantined", "uid": uid}
        publish_one(self.storage, self._run, task.stage, dict(task.row), data=data_of(task.stage, uid))
        return {"status": "ok", "uid": uid}


class Watch(Ignoring):
    def __init__(self) -> None:
        self.done, self.ends, self.retries = 0, dict[str, bool](), 0

    def opened(self, done: int) -> None:
        self.done += done

    def finished(self, uid: str, reason: str, work: Work) -> None:
        assert uid not in self.ends
        self.ends[uid] = bool(reason)

    def retried(self, task: Task, result: Facts) -> None:
        self.retries += 1


class Clock:
    """A clock that advances only when it is read or slept on."""

    def __init__(self, tick: float = 0.0) -> None:
        self.now, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.001)


def drive(
    executor: Inline, run: Run, *, policy: PolicyConfig | None = None, watch: Watch | None = None, tick: float = 0.0,
    **options: Any,
) -> Summary:  # fmt: skip
    clock = Clock(tick)
    return Driver(
        executor.storage,
        run,
        executor,
        policy or PolicyConfig(),
        shards=options.pop("shards", range(run.n_shards)),
        watches=[watch] if watch else [],
        clock=clock,
        sleep=clock.sleep,
        **options,
    ).run()


def dataset(storage: LocalStorage) -> dict[str, bytes]:
    return {e.key: storage.get(e.key) for e in storage.list("") if layout.in_dataset(e.key)}


UIDS = ["a", "b", "c", "d", "e"]


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "out")


def test_every_object_is_fitted_once_and_every_shard_committed(storage: LocalStorage) -> None:
    run = planned(storage, UIDS, shard_size=2)
    executor, watch = Inline(storage, run), Watch()
    summary = drive(executor, run, watch=watch)
    assert (summary.shards, summary.objects, summary.quarantined) == (3, 5, 0)
    assert watch.ends == dict.fromkeys(UIDS, False)
    assert sorted(executor.log) == sorted(
        [(kind, uid) for kind in (FIT, ATLAS) for uid in UIDS]
        + [(PACK, f"{stage}-{k}") for stage in layout.STAGES for k in range(3)]
    )
    assert executor.most <= 2 * executor.slots()
    for stage in layout.STAGES:
        assert [shards.read_commit(storage, stage, k)["samples"] for k in range(3)] == [2, 2, 1]


def test_an_atlas_starts_as_soon_as_its_fit_is_there(storage: LocalStorage) -> None:
    run = planned(storage, [f"o{i:02}" for i in range(40)])
    executor = Inline(storage, run)
    drive(executor, run)
    first_atlas = next(i for i, (kind, _) in enumerate(executor.log) if kind == ATLAS)
    assert first_atlas <= 2 * executor.slots() + 1


def test_a_second_run_does_nothing(storage: LocalStorage) -> None:
    run = planned(storage, UIDS, shard_size=2)
    drive(Inline(storage, run), run)
    before, again = dataset(storage), Inline(storage, run)
    assert drive(again, run).shards == 0
    assert again.log == []
    assert dataset(storage) == before


@settings(max_examples=10, deadline=None)
@given(deaths=st.lists(st.integers(0, 12), max_size=4), bad=st.sets(st.sampled_from(UIDS)))
def test_killed_anywhere_and_run_again_the_bytes_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, deaths: list[int], bad: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("killed")
    faults = {(FIT, uid): ["bad_input"] * 9 for uid in bad}
    one, two = LocalStorage(folder / "one"), LocalStorage(folder / "two")
    run = planned(one, UIDS, shard_size=3)
    drive(Inline(one, run, faults), run)
    planned(two, UIDS, shard_size=3)
    for left in deaths:
        executor = Inline(two, run, faults)
        executor.left = left
        try:
            drive(executor, run)
        except KeyboardInterrupt:
            continue
    drive(Inline(two, run, faults), run)
    assert dataset(one) == dataset(two)


def test_what_is_done_is_not_done_again(storage: LocalStorage) -> None:
    run = planned(storage, UIDS)
    publish_all(storage, run, dataset_format.SPLATS)
    executor, watch = Inline(storage, run), Watch()
    drive(executor, run, watch=watch)
    assert FIT not in {kind for kind, _ in executor.log}


def test_a_bad_object_is_quarantined_with_its_reason_and_the_others_finish(storage: LocalStorage) -> None:
    run = planned(storage, UIDS)
    watch = Watch()
    faults = {(FIT, "b"): ["decode_error"], (ATLAS, "d"): ["rough_atlas"]}
    summary = drive(Inline(storage, run, faults), run, watch=watch)
    assert (summary.objects, summary.quarantined) == (5, 2)
    assert watch.ends == {"a": False, "b": True, "c": False, "d": True, "e": False}
    assert shards.read_commit(storage, dataset_format.SPLATS, 0)["quarantined"] == {"decode_error": 1}
    assert shards.read_commit(storage, dataset_format.ATLAS, 0)["quarantined"] == {
        "decode_error": 1,
        "rough_atlas": 1,
    }
    assert records.read(storage, dataset_format.SPLATS, 0, "b").facts["error_message"] == "told to: decode_error"


def test_retries_follow_the_policy_and_are_counted(storage: LocalStorage) -> None:
    run = planned(storage, UIDS)
    faults = {
        (FIT, "a"): [INFRASTRUCTURE] * 5,
        (FIT, "b"): ["cuda_error"] * 2,
        (FIT, "c"): ["nan_loss"] * 2,
        (ATLAS, "d"): [KILLED] * 4,
        (PACK, "splats-0"): [INFRASTRUCTURE, KILLED],
    }
    watch, executor = Watch(), Inline(storage, run, faults)
    summary = drive(executor, run, watch=watch)
    assert watch.ends == {"a": False, "b": False, "c": True, "d": True, "e": False}
    assert summary.retries == watch.retries == 5 + 2 + 1 + 3 + 2
    assert executor.log.count((FIT, "a")) == 6
    assert records.read(storage, dataset_format.ATLAS, 0, "d").facts["reason"] == "worker_killed"


def test_an_outage_stops_the_run_and_quarantines_nothing(storage: LocalStorage) -> None:
    run = planned(storage, UIDS)
    executor = Inline(storage, run, {(FIT, uid): [INFRASTRUCTURE] * 99 for uid in UIDS})
    with pytest.raises(BreakerOpen, match=r"infrastructure failures in a row.*told to.*No object was quarantined"):
        drive(executor, run)
    assert list(storage.list(layout.fragments(dataset_format.SPLATS, 0))) == []
    drive(Inline(storage, run), run)
    assert shards.read_commit(storage, dataset_format.ATLAS, 0)["samples"] == 5


def test_a_flood_of_quarantines_stops_the_run(storage: LocalStorage) -> None:
    uids = [f"o{i:03}" for i in range(60)]
    run = planned(storage, uids)
    policy = PolicyConfig(breaker_window=20)
    executor = Inline(storage, run, {(FIT, uid): ["bad_input"] for uid in uids[20:]})
    with pytest.raises(BreakerOpen, match="5 of the last 20"):
        drive(executor, run, policy=policy)


def test_a_hanging_task_is_cancelled_by_force_and_its_object_quarantined_after_the_second_time(
    storage: LocalStorage,
) -> None:
    run = planned(storage, UIDS)
    policy = PolicyConfig(fit_deadline_s=10, atlas_deadline_s=10, pack_deadline_s=10, grace_s=2)
    executor = Inline(storage, run, {(FIT, "b"): [HANG, HANG], (ATLAS, "c"): [HANG]})
    watch = Watch()
    drive(executor, run, policy=policy, watch=watch, tick=0.5)
    assert watch.ends == {"a": False, "b": True, "c": False, "d": False, "e": False}
    assert len(executor.cancelled) == 3
    assert records.read(storage, dataset_format.SPLATS, 0, "b").facts["reason"] == "timeout"


def test_the_object_of_a_task_that_does_not_end_when_cancelled_is_quarantined(storage: LocalStorage) -> None:
    run = planned(storage, UIDS)
    policy = PolicyConfig(fit_deadline_s=10, atlas_deadline_s=10, pack_deadline_s=10, grace_s=2)

    class Deaf(Inline):
        def cancel(self, handle: Hashable) -> None:
            pass

    watch = Watch()
    drive(Deaf(storage, run, {(FIT, "b"): [HANG] * 2}), run, policy=policy, watch=watch, tick=0.5)
    assert watch.ends["b"]


def test_when_nothing_ends_any_more_the_run_stops(storage: LocalStorage) -> None:
    run = planned(storage, UIDS)

    class Stuck(Inline):
        def wait(self, handles: Sequence[Hashable], timeout_s: float) -> list[Hashable]:
            return []

    policy = PolicyConfig(grace_s=10_000, fit_deadline_s=10, stall_s=100)
    with pytest.raises(Stalled, match="fit of a"):
        drive(Stuck(storage, run), run, policy=policy, tick=50)


def test_a_conflict_ends_the_run(storage: LocalStorage) -> None:
    run = planned(storage, UIDS)
    with pytest.raises(ShardConflict, match="told to"):
        drive(Inline(storage, run, {(PACK, "splats-0"): [CONFLICT]}), run)


def test_a_pack_that_keeps_failing_ends_the_run_and_not_an_object(storage: LocalStorage) -> None:
    run = planned(storage, UIDS)
    with pytest.raises(PipelineError, match="pack of splats 0 failed"):
        drive(Inline(storage, run, {(PACK, "splats-0"): ["unknown"] * 3}), run)


@pytest.mark.parametrize("reason", ["out_of_memory", "worker_killed"])
def test_a_shard_whose_packing_is_killed_stops_the_run_with_its_mend(storage: LocalStorage, reason: str) -> None:
    run = planned(storage, ["a", "b"])
    executor = Inline(storage, run, {(PACK, "splats-0"): [reason] * 9})
    with pytest.raises(
        BreakerOpen, match=rf"pack of splats 0 was killed .*free memory there.*{reason}.*same command"
    ):
        drive(executor, run)
    executor.faults.clear()
    assert drive(executor, run).shards == 1


def test_disjoint_shards_together_make_the_whole(storage: LocalStorage, tmp_path: Path) -> None:
    run = planned(storage, UIDS, shard_size=1)
    for chosen in ([0, 2], [4], [1, 3]):
        drive(Inline(storage, run), run, shards=chosen)
    other = LocalStorage(tmp_path / "other")
    planned(other, UIDS, shard_size=1)
    drive(Inline(other, run), run)
    assert dataset(storage) == dataset(other)


def test_atlases_alone_need_their_fits(storage: LocalStorage) -> None:
    run = planned(storage, UIDS)
    with pytest.raises(PipelineError, match="5 of 5 objects have no fit"):
        drive(Inline(storage, run), run, stages=(dataset_format.ATLAS,))
    drive(Inline(storage, run), run, stages=(dataset_format.SPLATS,))
    with pytest.raises(NotFound):
        shards.read_commit(storage, dataset_format.ATLAS, 0)
    executor = Inline(storage, run)
    drive(executor, run, stages=(dataset_format.ATLAS,))
    assert {kind for kind, _ in executor.log} == {ATLAS, PACK}


def unreliable(storage: LocalStorage, fault: Callable[[], Exception], times: int) -> None:
    listing = storage.list
    left = [times]

    def list_(prefix: str) -> list[Entry]:
        if left[0]:
            left[0] -= 1
            raise fault()
        return list(listing(prefix))

    storage.list = list_  # type: ignore[method-assign, assignment]


def test_the_drivers_own_store_calls_outlast_a_short_outage_only(storage: LocalStorage) -> None:
    run = planned(storage, UIDS)
    unreliable(storage, lambda: StoreError("503"), 119)
    assert drive(Inline(storage, run), run).objects == 5
    unreliable(storage, lambda: StoreError("503"), 122)
    with pytest.raises(BreakerOpen, match="503"):
        drive(Inline(storage, run), run)


def test_a_refusing_store_ends_the_run_at_once(storage: LocalStorage) -> None:
    run = planned(storage, UIDS)
    unreliable(storage, lambda: StoreRefused("AccessDenied"), 1)
    with pytest.raises(BreakerOpen, match="AccessDenied"):
        drive(Inline(storage, run), run)


class Slow(Inline):
    """Tasks end in the order of submission; the first copies of those in `stuck` never end."""

    def __init__(self, storage: LocalStorage, run: Run, stuck: set[str], faults: Any = None) -> None:
        super().__init__(storage, run, faults)
        self._stuck, self._held = stuck, set[Hashable]()

    def submit(self, task: Task) -> Hashable:
        handle = super().submit(task)
        if task.kind == FIT and task.row["uid"] in self._stuck:
            self._stuck.discard(str(task.row["uid"]))
            self._held.add(handle)
        return handle

    def wait(self, handles: Sequence[Hashable], timeout_s: float) -> list[Hashable]:
        return super().wait([h for h in handles if h not in self._held], timeout_s)


def test_at_the_tail_a_slow_task_is_started_again_and_the_first_to_end_counts(storage: LocalStorage) -> None:
    run = planned(storage, UIDS)
    executor, watch = Slow(storage, run, {"c"}), Watch()
    policy = PolicyConfig(repeat_after_s=20)
    summary = drive(executor, run, policy=policy, watch=watch, tick=0.5)
    assert (summary.repeats, summary.objects) == (1, 5)
    assert executor.log.count((FIT, "c")) == 1
    assert len(executor.cancelled) == 1, "the slow one is cancelled"
    assert watch.ends == dict.fromkeys(UIDS, False)


def test_a_repetition_that_fails_quarantines_nothing_while_the_first_copy_runs(storage: LocalStorage) -> None:
    run = planned(storage, UIDS)
    executor = Slow(storage, run, {"c"}, {(FIT, "c"): ["bad_input"]})
    policy = PolicyConfig(repeat_after_s=20, fit_deadline_s=100, grace_s=5)
    watch = Watch()
    # the first copy never ends: it is cancelled at its deadline, and the task is tried again
    summary = drive(executor, run, policy=policy, watch=watch, tick=0.5)
    assert watch.ends == dict.fromkeys(UIDS, False)
    assert summary.repeats >= 1


def test_without_repeats_nothing_is_started_twice(storage: LocalStorage) -> None:
    run = planned(storage, UIDS)
    executor = Slow(storage, run, {"c"})
    policy = PolicyConfig(repeat_after_s=0, fit_deadline_s=50, atlas_deadline_s=50, pack_deadline_s=50, grace_s=5)
    assert drive(executor, run, policy=policy, tick=0.5).repeats == 0
