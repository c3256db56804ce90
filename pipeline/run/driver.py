"""The driver of a run: one loop in one thread. Its only state is the store, from which a killed run continues."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import FAMILIES, OK, SPLATS, VIEWS
from gaussianverse.atlas.store.errors import StoreError, StoreRefused
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.dataset import layout, records
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.dataset.shards import committed_shards
from gaussianverse.pipeline.errors import BreakerOpen, PipelineError, ShardConflict
from gaussianverse.pipeline.policy import (
    CONFLICT,
    INFRASTRUCTURE,
    Breaker,
    History,
    PolicyConfig,
    Quarantine,
    Retry,
    Stop,
    decide,
)
from gaussianverse.pipeline.run.executor import ATLAS, FIT, PACK, Executor, Task
from gaussianverse.pipeline.run.in_flight import InFlight

T = TypeVar("T")

_POLL_S = 1.0
_REMEDY = "No object was quarantined. Fix the cause and run the same command again."


class Watch:
    """Receives the events of a run, for a progress bar or a log; by itself it ignores them."""

    def opened(self, done: int) -> None:
        """A shard was opened; `done` of its objects are already complete."""

    def finished(self, uid: str, quarantined: bool) -> None:
        """An object was completed or quarantined."""

    def retried(self, task: Task, reason: str, text: str) -> None:
        """A task failed and will be tried again."""


@dataclass
class Summary:
    """Counts and times of one call."""

    shards: int = 0
    objects: int = 0
    quarantined: int = 0
    retries: int = 0
    repeats: int = 0
    """Tasks started a second time at the end of the run."""
    fit_seconds: float = 0.0
    """Seconds of fits whose fragment was published."""
    slot_seconds: float = 0.0
    """Slots times wall time."""


@dataclass
class _Shard:
    """An uncommitted shard: its number of objects, the uids done in each stage, and the families committed."""

    objects: int
    done: dict[str, set[str]]
    committed: set[str]


@dataclass(order=True)
class _Delayed:
    due: float
    order: int
    task: Task = field(compare=False)


class Driver:
    """Commits shards: fits objects, builds each atlas once its fit is published, and packs complete shards.

    Args:
        storage: store of the run.
        run: the run.
        executor: runs the tasks.
        policy: retries, deadlines, breaker.
        shards: shards to work on; committed ones are skipped.
        stages: both stages, or one of them.
        watches: receive the events.
        clock: seconds, monotonic.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        storage: Storage,
        run: Run,
        executor: Executor,
        policy: PolicyConfig,
        *,
        shards: Iterable[int],
        watches: Sequence[Watch] = (),
        stages: tuple[str, ...] = layout.STAGES,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._storage, self._run, self._executor, self._policy = storage, run, executor, policy
        self._shards, self._stages, self._watches = list(shards), stages, watches
        self._families = families_of(run, stages)
        self._clock, self._sleep = clock, sleep
        self._breaker = Breaker(policy)
        self._open: dict[int, _Shard] = {}
        self._ready: deque[Task] = deque()
        self._delayed: list[_Delayed] = []
        self._in_flight = InFlight(executor, policy, clock)
        self._order = itertools.count()
        self.summary = Summary()

    def run(self) -> Summary:
        """Work until every shard is committed.

        Raises:
            BreakerOpen: too many failures at once, or one task keeps failing because of the store or the machine.
            Stalled: no task ends any more.
            ShardConflict: a key already holds other bytes than those to be published.
        """
        committed = self._with_retries(lambda: committed_shards(self._storage))
        waiting = deque(k for k in self._shards if not all((f, k) in committed for f in self._families))
        last = self._clock()
        while True:
            slots = self._executor.slots()
            last, before = self._clock(), last
            self.summary.slot_seconds += slots * (last - before)
            window = self._policy.window * slots
            while waiting and len(self._ready) + len(self._delayed) + len(self._in_flight) < window:
                self._open_shard(waiting.popleft(), committed)
            now = self._clock()
            while self._delayed and self._delayed[0].due <= now:
                self._ready.append(heapq.heappop(self._delayed).task)
            while self._ready and len(self._in_flight) < window:
                self._in_flight.submit(self._ready.popleft())
            if not waiting and not self._ready and not self._delayed:
                self.summary.repeats += self._in_flight.repeat(slots)
            if self._in_flight:
                for task, result in self._in_flight.ended(slots):
                    self._settle(task, result)
            elif self._delayed:
                self._sleep(max(0.0, min(_POLL_S, self._delayed[0].due - self._clock())))
            elif not waiting and not self._ready:
                return self.summary

    def _open_shard(self, shard: int, committed: set[tuple[str, int]]) -> None:
        rows = self._with_retries(lambda: shard_rows(self._storage, shard))
        uids = {str(r["uid"]) for r in rows}
        families = {family for family in FAMILIES if (family, shard) in committed}
        done = {
            stage: set(uids)
            if stage in families
            else self._with_retries(partial(self._with_fragment, stage, shard)) & uids
            for stage in layout.STAGES
        }
        if SPLATS not in self._stages and len(done[SPLATS]) < len(uids):
            missing = len(uids) - len(done[SPLATS])
            raise PipelineError(f"shard {shard}: {missing} of {len(uids)} objects have no fit; run fit-shard first")
        self._open[shard] = _Shard(len(uids), done, families)
        for watch in self._watches:
            watch.opened(len(done[self._stages[-1]]))
        for manifest_row in rows:
            row: Facts = {**manifest_row, "shard": shard}
            if row["uid"] not in done[SPLATS]:
                self._ready.append(Task(FIT, SPLATS, shard, row))
            elif dataset_format.ATLAS in self._stages and row["uid"] not in done[dataset_format.ATLAS]:
                self._ready.append(Task(ATLAS, dataset_format.ATLAS, shard, row))
        for family in self._families:
            self._pack_when_complete(shard, family)

    def _with_fragment(self, stage: str, shard: int) -> set[str]:
        keys = (layout.parse_fragment(e.key) for e in self._storage.list(layout.fragments(stage, shard)))
        return {found[2] for found in keys if found}

    def _pack_when_complete(self, shard: int, family: str) -> None:
        state = self._open[shard]
        if family == VIEWS:  # published before the fits, but packed only for objects that have an atlas
            complete = dataset_format.ATLAS in state.committed
        else:
            complete = len(state.done[family]) == state.objects
        if complete and family not in state.committed:
            self._ready.appendleft(Task(PACK, family, shard))

    def _settle(self, task: Task, result: Facts) -> None:
        if result["status"] != "failed":
            self.summary.fit_seconds += float(result.get("fit_seconds", 0.0))
            self._complete(task, quarantined=result["status"] != OK, fresh=False)
            return
        reason, text = str(result["reason"]), str(result["error_message"])
        if reason == CONFLICT:
            raise ShardConflict(text)
        task = replace(task, history=task.history.after(reason))
        if reason == INFRASTRUCTURE and (outage := self._breaker.infrastructure()):
            raise BreakerOpen(f"{outage}; last, {task.name}: {text}. {_REMEDY}")
        decision = decide(reason, task.history, self._policy)
        if isinstance(decision, Retry):
            self.summary.retries += 1
            for watch in self._watches:
                watch.retried(task, reason, text)
            heapq.heappush(self._delayed, _Delayed(self._clock() + decision.pause_s, next(self._order), task))
        elif isinstance(decision, Stop):
            raise BreakerOpen(f"{task.name} {decision.message}: {text}. {_REMEDY}")
        elif task.kind == PACK:
            raise PipelineError(f"{task.name} failed ({reason}): {text}")
        else:
            self._quarantine(task, decision, result)

    def _quarantine(self, task: Task, decision: Quarantine, result: Facts) -> None:
        stopwatch = records.Stopwatch(task.history.attempts)
        cause = {**result, "reason": decision.reason}
        self._with_retries(
            lambda: records.publish_quarantine(self._storage, task.stage, task.row, self._run, cause, stopwatch)
        )
        self._complete(task, quarantined=True, fresh=True)

    def _complete(self, task: Task, *, quarantined: bool, fresh: bool) -> None:
        """Record that a fragment or a shard exists. `fresh`: it is a quarantine that this driver decided."""
        state = self._open[task.shard]
        if task.kind == PACK:
            state.committed.add(task.stage)
            if task.stage == dataset_format.ATLAS and VIEWS in self._families:
                self._pack_when_complete(task.shard, VIEWS)
            if all(family in state.committed for family in self._families):
                del self._open[task.shard]
                self.summary.shards += 1
            return
        uid = str(task.row["uid"])
        state.done[task.stage].add(uid)
        last = task.stage == self._stages[-1]
        if last:
            self.summary.objects += 1
            self.summary.quarantined += quarantined
            for watch in self._watches:
                watch.finished(uid, quarantined)
        elif uid not in state.done[dataset_format.ATLAS]:
            self._ready.appendleft(replace(task, kind=ATLAS, stage=dataset_format.ATLAS, history=History()))
        if (fresh or (last and not quarantined)) and (outage := self._breaker.finished(fresh)):
            raise BreakerOpen(f"{outage}; `gaussianverse status` shows the reasons")
        self._pack_when_complete(task.shard, task.stage)

    def _with_retries(self, operation: Callable[[], T]) -> T:
        """Run one of the driver's own store operations, again after each StoreError until the breaker opens."""
        while True:
            try:
                return operation()
            except StoreRefused:
                raise
            except StoreError as error:
                if outage := self._breaker.infrastructure():
                    raise BreakerOpen(f"{outage}; last: {error}. {_REMEDY}") from error
                self._sleep(self._policy.pause_s)


def families_of(run: Run, stages: tuple[str, ...]) -> tuple[str, ...]:
    """Families of shards that these stages commit: the stages, and views together with the atlases."""
    return (*stages, *(f for f in run.families if f not in layout.STAGES and dataset_format.ATLAS in stages))
