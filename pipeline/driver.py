"""The driver: one loop, one thread, no state but the store. Killed, it starts again where the store is."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from pipeline import layout, records
from pipeline.errors import BreakerOpen, PipelineError, ShardConflict, Stalled, StorageError, StoreRefused
from pipeline.executor import ATLAS, FIT, PACK, Executor, Task
from pipeline.identity import Run, shard_rows
from pipeline.policy import (
    CONFLICT,
    INFRASTRUCTURE,
    Breaker,
    PolicyConfig,
    Quarantine,
    Retry,
    Stop,
    deadline_of,
    decide,
    failed,
    repeats,
)
from pipeline.schemas import Facts
from pipeline.storage import Storage

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


@dataclass
class _Flight:
    task: Task
    submitted: float
    started: float | None = None
    cancelled: float | None = None


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
        self._flights: dict[Hashable, _Flight] = {}
        self._twins: set[Hashable] = set()
        self._order = itertools.count()
        self._slots = 1
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
        self._progress = last = self._clock()
        while True:
            self._slots = self._executor.slots()
            last, before = self._clock(), last
            self.summary.slot_seconds += self._slots * (last - before)
            window = self._policy.window * self._slots
            while waiting and len(self._ready) + len(self._delayed) + len(self._flights) < window:
                self._open_shard(waiting.popleft(), committed)
            now = self._clock()
            while self._delayed and self._delayed[0].due <= now:
                self._ready.append(heapq.heappop(self._delayed).task)
            while self._ready and len(self._flights) < window:
                task = self._ready.popleft()
                self._flights[self._executor.submit(task)] = _Flight(task, now)
            if not waiting and not self._ready and not self._delayed:
                self._repeat()
            if self._flights:
                self._collect()
                self._expire()
            elif self._delayed:
                self._sleep(max(0.0, min(_POLL_S, self._delayed[0].due - self._clock())))
            elif not waiting and not self._ready:
                return self.summary

    def _open_shard(self, shard: int, committed: set[tuple[str, int]]) -> None:
        rows = self._persistently(lambda: shard_rows(self._storage, shard))
        uids = {str(r["uid"]) for r in rows}
        packed = {family for family in layout.FAMILIES if (family, shard) in committed}
        have = {
            stage: uids
            if stage in packed
            else self._persistently(lambda s=stage: self._listed(s, shard)) & uids  # type: ignore[misc]
            for stage in layout.STAGES
        }
        if layout.SPLATS not in self._stages and len(have[layout.SPLATS]) < len(uids):
            lacking = len(uids) - len(have[layout.SPLATS])
            raise PipelineError(
                f"shard {shard}: {lacking} of {len(uids)} objects have no fit; run fit-shard first"
            )
        state = _Shard({s: len(uids) - len(have[s]) for s in self._stages}, have, packed)
        self._open[shard] = state
        self._watch.opened(len(uids) - state.left[self._stages[-1]])
        for manifest_row in rows:
            row: Facts = {**manifest_row, "shard": shard}
            if row["uid"] not in have[layout.SPLATS]:
                self._ready.append(Task(FIT, layout.SPLATS, shard, row))
            elif layout.ATLAS in self._stages and row["uid"] not in have[layout.ATLAS]:
                self._ready.append(Task(ATLAS, layout.ATLAS, shard, row))
        for family in self._families:
            self._pack_when_complete(shard, family)

    def _listed(self, stage: str, shard: int) -> set[str]:
        keys = (layout.parse_fragment(e.key) for e in self._storage.list(layout.fragments(stage, shard)))
        return {found[2] for found in keys if found}

    def _pack_when_complete(self, shard: int, stage: str) -> None:
        state = self._open[shard]
        # views are there before the fits, and wait for the atlases to say which objects came through
        complete = layout.ATLAS in state.packed if stage == layout.VIEWS else state.left[stage] == 0
        if complete and stage not in state.packed:
            self._ready.appendleft(Task(PACK, stage, shard))

    def _collect(self) -> None:
        for handle in self._executor.wait(list(self._flights), _POLL_S):
            flight = self._flights.pop(handle)
            result = self._executor.result(handle)
            if flight.cancelled is not None and result["status"] == "failed":
                result = failed("timeout", f"cancelled {self._deadline(flight):.0f} s after its start")
            self._progress = self._clock()
            if handle in self._twins:
                self._twins.discard(handle)
                if result["status"] == "failed" and result["reason"] != CONFLICT and self._twin_of(flight):
                    continue  # the other one is still at it
            elif (twin := self._twin_of(flight)) and result["status"] == "failed":
                self._twins.discard(twin)  # and what this one was, the twin is now
                if result["reason"] != CONFLICT:
                    continue
            self._settle(flight, result)
            self._end_twin(flight)

    def _repeat(self) -> None:
        """At the tail, start the oldest tasks again where slots are idle: a slow machine need not hold up a run.

        Harmless, since the first to publish wins; the loser is cancelled.
        """
        now, running = self._clock(), list(self._flights.items())
        ages = [now - flight.submitted for _, flight in running]
        idle = self._slots - len(running)
        for k in repeats(ages, idle, self._policy):
            flight = running[k][1]
            if flight.task.kind == PACK or flight.cancelled is not None or self._twin_of(flight):
                continue
            handle = self._executor.submit(flight.task)
            self._flights[handle] = _Flight(flight.task, now)
            self._twins.add(handle)
            self.summary.repeats += 1

    def _twin_of(self, flight: _Flight) -> Hashable | None:
        """Another flight of the same task."""
        for handle, other in self._flights.items():
            if other is not flight and other.task is flight.task:
                return handle
        return None

    def _end_twin(self, flight: _Flight) -> None:
        """Once a task has ended, its repetition has nothing to add."""
        twin = self._twin_of(flight)
        if twin is not None:
            self._executor.cancel(twin)
            del self._flights[twin]
            self._twins.discard(twin)

    def _settle(self, flight: _Flight, result: Facts) -> None:
        task = flight.task
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
                f"{task.name}: {decision.why}: {text}. Nothing was condemned: mend it and run again"
            )
        elif task.kind == PACK:
            raise PipelineError(f"{task.name} failed ({reason}): {text}")
        else:
            self._quarantine(flight, task, decision, result)

    def _quarantine(self, flight: _Flight, task: Task, decision: Quarantine, result: Facts) -> None:
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
            if task.stage == layout.ATLAS and layout.VIEWS in self._families:
                self._pack_when_complete(task.shard, layout.VIEWS)
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
        elif uid not in state.have[layout.ATLAS]:
            self._ready.appendleft(
                replace(task, kind=ATLAS, stage=layout.ATLAS, history=type(task.history)())
            )
        if fresh or (last and not quarantined):
            why = self._breaker.finished(fresh)
            if why:
                raise BreakerOpen(f"{why}; look at the reasons with `gaussianverse status`")
        self._pack_when_complete(task.shard, task.stage)

    def _deadline(self, flight: _Flight) -> float:
        return deadline_of(flight.task.kind, self._policy)

    def _expire(self) -> None:
        """Cancel what has run too long; Ray has no time-out of its own for tasks.

        Ray does not say when a task has started. Tasks start roughly in the order of submission, so a task
        counts as running from when it is among the oldest `slots`.
        """
        now = self._clock()
        for handle, flight in list(itertools.islice(self._flights.items(), self._slots)):
            if flight.started is None:
                flight.started = now
            if flight.cancelled is not None:
                if now - flight.cancelled > self._policy.grace_s:
                    # not even cancelling ends it; its slot is lost, the object is not
                    del self._flights[handle]
                    self._twins.discard(handle)
                    if self._twin_of(flight) is None:
                        self._settle(flight, failed("timeout", "did not end when cancelled"))
            elif now - flight.started > self._deadline(flight):
                flight.cancelled = now
                self._executor.cancel(handle)
        longest = max(deadline_of(kind, self._policy) for kind in (FIT, ATLAS, PACK))
        if self._flights and now - self._progress > longest + self._policy.stall_s:
            oldest = next(iter(self._flights.values())).task.name
            raise Stalled(
                f"nothing has ended for {now - self._progress:.0f} s ({len(self._flights)} tasks under way, oldest: "
                f"{oldest}); look at the cluster, then run again: what is done stays done"
            )

    def _persistently(self, operation: Callable[[], T]) -> T:
        """The driver's own few store operations, repeated until the breaker has had enough."""
        while True:
            try:
                return operation()
            except StoreRefused:
                raise
            except StorageError as fault:
                if why := self._breaker.infrastructure():
                    raise BreakerOpen(f"{why}; last: {fault}. Nothing was condemned: run again") from fault
                self._sleep(self._policy.pause_s)


def families_of(run: Run, stages: tuple[str, ...]) -> tuple[str, ...]:
    """The families of shards that working on these stages brings to their commit: views go with the atlases."""
    return (*stages, *(f for f in run.families if f not in layout.STAGES and layout.ATLAS in stages))


def committed_shards(storage: Storage) -> set[tuple[str, int]]:
    """(stage, shard) of every shard that exists."""
    found = (layout.parse_commit(entry.key) for entry in storage.list(layout.COMMITS))
    return {pair for pair in found if pair}
