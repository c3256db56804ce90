"""The driver: one loop, one thread, no state but the store. Killed, it starts again where the store is."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import FAMILIES, SPLATS, VIEWS
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


class Watch(Protocol):
    """Is told what happens, for a progress bar or a log."""

    def opened(self, done: int) -> None:
        """A shard was opened of which `done` objects were complete already."""

    def finished(self, uid: str, quarantined: bool) -> None:
        """An object is complete."""

    def retried(self, task: Task, reason: str, text: str) -> None:
        """A task failed and is tried again."""


@dataclass
class Summary:
    """What a call did."""

    shards: int = 0
    objects: int = 0
    quarantined: int = 0
    retries: int = 0
    repeats: int = 0
    """Tasks started a second time at the tail."""
    fit_seconds: float = 0.0
    """Of fits whose fragment stands."""
    slot_seconds: float = 0.0
    """Slots times wall time."""


@dataclass
class _Shard:
    left: dict[str, int]
    have: dict[str, set[str]]
    packed: set[str]


@dataclass(order=True)
class _Delayed:
    due: float
    order: int
    task: Task = field(compare=False)


class Driver:
    """Brings shards to their commit: fits, atlases as soon as their fit is there, packs when all are there.

    Args:
        storage: of the run.
        run: the run.
        executor: where tasks go.
        policy: retries, deadlines, breaker.
        shards: to work on; committed ones are skipped.
        stages: both, or one of them.
        watch: is told what happens.
        clock: seconds, monotonic.
        sleep: waits.
    """

    def __init__(
        self,
        storage: Storage,
        run: Run,
        executor: Executor,
        policy: PolicyConfig,
        *,
        shards: Iterable[int],
        watch: Watch,
        stages: tuple[str, ...] = layout.STAGES,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._storage, self._run, self._executor, self._policy = storage, run, executor, policy
        self._shards, self._stages, self._watch = list(shards), stages, watch
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
            BreakerOpen: too much fails at once, or one task fails without end through no fault of its own.
            Stalled: nothing ends any more.
            ShardConflict: a key holds other bytes than it must.
        """
        committed = self._persistently(lambda: committed_shards(self._storage))
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
        rows = self._persistently(lambda: shard_rows(self._storage, shard))
        uids = {str(r["uid"]) for r in rows}
        packed = {family for family in FAMILIES if (family, shard) in committed}
        have = {
            stage: uids
            if stage in packed
            else self._persistently(lambda s=stage: self._listed(s, shard)) & uids  # type: ignore[misc]
            for stage in layout.STAGES
        }
        if SPLATS not in self._stages and len(have[SPLATS]) < len(uids):
            lacking = len(uids) - len(have[SPLATS])
            raise PipelineError(
                f"shard {shard}: {lacking} of {len(uids)} objects have no fit; run fit-shard first"
            )
        state = _Shard({s: len(uids) - len(have[s]) for s in self._stages}, have, packed)
        self._open[shard] = state
        self._watch.opened(len(uids) - state.left[self._stages[-1]])
        for manifest_row in rows:
            row: Facts = {**manifest_row, "shard": shard}
            if row["uid"] not in have[SPLATS]:
                self._ready.append(Task(FIT, SPLATS, shard, row))
            elif dataset_format.ATLAS in self._stages and row["uid"] not in have[dataset_format.ATLAS]:
                self._ready.append(Task(ATLAS, dataset_format.ATLAS, shard, row))
        for family in self._families:
            self._pack_when_complete(shard, family)

    def _listed(self, stage: str, shard: int) -> set[str]:
        keys = (layout.parse_fragment(e.key) for e in self._storage.list(layout.fragments(stage, shard)))
        return {found[2] for found in keys if found}

    def _pack_when_complete(self, shard: int, stage: str) -> None:
        state = self._open[shard]
        # views are there before the fits, and wait for the atlases to say which objects came through
        complete = dataset_format.ATLAS in state.packed if stage == VIEWS else state.left[stage] == 0
        if complete and stage not in state.packed:
            self._ready.appendleft(Task(PACK, stage, shard))

    def _settle(self, task: Task, result: Facts) -> None:
        if result["status"] != "failed":
            self.summary.fit_seconds += float(result.get("fit_seconds", 0.0))
            self._complete(task, quarantined=result["status"] != "ok", fresh=False)
            return
        reason, text = str(result["reason"]), str(result["error_message"])
        if reason == CONFLICT:
            raise ShardConflict(text)
        task = replace(task, history=task.history.after(reason))
        if reason == INFRASTRUCTURE and (why := self._breaker.infrastructure()):
            raise BreakerOpen(
                f"{why}; last, {task.name}: {text}. Nothing was condemned: mend it and run again"
            )
        decision = decide(reason, task.history, self._policy)
        if isinstance(decision, Retry):
            self.summary.retries += 1
            self._watch.retried(task, reason, text)
            heapq.heappush(self._delayed, _Delayed(self._clock() + decision.pause_s, next(self._order), task))
        elif isinstance(decision, Stop):
            raise BreakerOpen(
                f"{task.name}: {decision.message}: {text}. Nothing was condemned: mend it and run again"
            )
        elif task.kind == PACK:
            raise PipelineError(f"{task.name} failed ({reason}): {text}")
        else:
            self._quarantine(task, decision, result)

    def _quarantine(self, task: Task, decision: Quarantine, result: Facts) -> None:
        watch = records.Stopwatch(task.history.attempts)
        why = {**result, "reason": decision.reason}
        self._persistently(
            lambda: records.publish_quarantine(self._storage, task.stage, task.row, self._run, why, watch)
        )
        self._complete(task, quarantined=True, fresh=True)

    def _complete(self, task: Task, *, quarantined: bool, fresh: bool) -> None:
        """A fragment, or a shard, is there. `fresh`: it is a quarantine that this driver has decided."""
        state = self._open[task.shard]
        if task.kind == PACK:
            state.packed.add(task.stage)
            if task.stage == dataset_format.ATLAS and VIEWS in self._families:
                self._pack_when_complete(task.shard, VIEWS)
            if all(family in state.packed for family in self._families):
                del self._open[task.shard]
                self.summary.shards += 1
            return
        uid = str(task.row["uid"])
        state.left[task.stage] -= 1
        state.have[task.stage] = state.have[task.stage] | {uid}
        last = task.stage == self._stages[-1]
        if last:
            self.summary.objects += 1
            self.summary.quarantined += quarantined
            self._watch.finished(uid, quarantined)
        elif uid not in state.have[dataset_format.ATLAS]:
            self._ready.appendleft(
                replace(task, kind=ATLAS, stage=dataset_format.ATLAS, history=type(task.history)())
            )
        if fresh or (last and not quarantined):
            why = self._breaker.finished(fresh)
            if why:
                raise BreakerOpen(f"{why}; look at the reasons with `gaussianverse status`")
        self._pack_when_complete(task.shard, task.stage)

    def _persistently(self, operation: Callable[[], T]) -> T:
        """The driver's own few store operations, repeated until the breaker has had enough."""
        while True:
            try:
                return operation()
            except StoreRefused:
                raise
            except StoreError as fault:
                if why := self._breaker.infrastructure():
                    raise BreakerOpen(f"{why}; last: {fault}. Nothing was condemned: run again") from fault
                self._sleep(self._policy.pause_s)


def families_of(run: Run, stages: tuple[str, ...]) -> tuple[str, ...]:
    """The families of shards that working on these stages brings to their commit: views go with the atlases."""
    return (*stages, *(f for f in run.families if f not in layout.STAGES and dataset_format.ATLAS in stages))
