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
from gaussianverse.pipeline.dataset import layout, records, shards
from gaussianverse.pipeline.dataset.manifest_rows import ORIGIN, work_rows
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.dataset.shards import committed_shards
from gaussianverse.pipeline.errors import BreakerOpen, PipelineError, ShardConflict
from gaussianverse.pipeline.policy import (
    CONFLICT,
    DAMAGED,
    INFRASTRUCTURE,
    KILLS,
    PROVISIONAL,
    Alone,
    Breaker,
    History,
    PolicyConfig,
    Retry,
    Stop,
    Throttle,
    decide,
    failed,
    text_of,
)
from gaussianverse.pipeline.run.executor import ATLAS, FIT, PACK, Executor, Task
from gaussianverse.pipeline.run.following import NEXT, Following
from gaussianverse.pipeline.run.in_flight import InFlight
from gaussianverse.pipeline.run.neighbours import ALONE, BESIDE, Neighbours
from gaussianverse.pipeline.run.reuse import REUSE, Reuse
from gaussianverse.pipeline.run.watch import Summary, Watch, Work
from gaussianverse.pipeline.store.publish import Published

T = TypeVar("T")

_POLL_S = 1.0
_TELL_S = 0.5
"""Seconds between two times that watches hear that the run waits."""
_REMEDY = "Fix the cause and run the same command again."


@dataclass(frozen=True)
class _Verdict:
    """A quarantine that is held back."""

    task: Task
    cause: Facts


@dataclass
class _Shard:
    """An uncommitted shard: its number of objects, the uids done in each stage, and the families committed."""

    objects: int
    done: dict[str, set[str]]
    committed: set[str]
    views: Neighbours
    without_views: set[str] = field(default_factory=set)
    """Objects whose reference views are made again."""
    damaged: int = 0
    """Number of times that a fragment of it was found damaged."""
    work: dict[str, Work] = field(default_factory=dict)
    """By uid, of objects that are not finished."""
    held: dict[str, list[_Verdict]] = field(default_factory=lambda: {stage: [] for stage in layout.STAGES})
    """By stage."""

    def complete(self, stage: str) -> bool:
        """Whether every object of a stage is done, or held back."""
        return len(self.done[stage]) + len(self.held[stage]) == self.objects


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
        reuse: fits of other outputs that are taken over.
        base: folder or prefix that relative `views` are relative to.
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
        reuse: Reuse | None = None,
        base: str = "",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._storage, self._run, self._executor, self._policy = storage, run, executor, policy
        self._shards, self._stages, self._watches = list(shards), stages, watches
        self._families = families_of(run, stages)
        self._clock, self._sleep = clock, sleep
        self._reuse, self._following = reuse, Following(base)
        self._breaker, self._throttle = Breaker(policy), Throttle(policy)
        self._open: dict[int, _Shard] = {}
        self._ready: deque[Task] = deque()
        self._delayed: list[_Delayed] = []
        self._suspects: deque[Task] = deque()
        """Tasks that are run alone, when nothing else is left."""
        self._in_flight = InFlight(executor, policy, clock)
        self._read: deque[str] = deque(maxlen=2)
        """Views that were read lately."""
        self._order = itertools.count()
        self._told = -_TELL_S
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
            used = self._throttle.slots(slots, last)
            window = self._policy.window * slots if used == slots else used
            while waiting and (
                len(self._ready) + len(self._delayed) + len(self._in_flight) < window
                or (self._following and len(self._ready) < used)  # what is kept back is followed by others
            ):
                self._open_shard(waiting.popleft(), committed)
            now = self._clock()
            while self._delayed and self._delayed[0].due <= now:
                task = heapq.heappop(self._delayed).task
                (self._suspects if task.alone else self._ready).append(task)
            while self._ready and len(self._in_flight) < window:
                self._submit(self._ready.popleft())
            while self._following and len(self._in_flight) < min(slots, window):
                self._submit(self._following.oldest())
            if not waiting and not self._ready and not self._delayed and not self._following:
                self.summary.repeats += self._in_flight.repeat(slots)
            if self._in_flight:
                for task, result in self._in_flight.ended(slots):
                    self._settle(task, result)
                self._tell()
            elif self._delayed:
                self._sleep(max(0.0, min(_POLL_S, self._delayed[0].due - self._clock())))
            elif not waiting and not self._ready:
                if self._suspects:
                    self._submit(self._suspects.popleft())
                elif not self._publish_held(last=True):
                    return self.summary
            self._publish_held()

    def _tell(self) -> None:
        now = self._clock()
        if now - self._told >= _TELL_S:
            self._told = now
            for watch in self._watches:
                watch.waited(self._in_flight.oldest_s())

    def _submit(self, task: Task) -> None:
        if task.kind == FIT:
            idle = self._executor.slots() - len(self._in_flight) - 1
            follower = self._following.choose(task, self._ready) if len(self._ready) > idle else ""
            beside = self._open[task.shard].views.beside(str(task.row["views"]), self._read)
            row = {**task.row, NEXT: follower, BESIDE: beside}
            if self._reuse is not None and (fit := self._reuse.of(str(task.row["uid"]))):
                row[REUSE] = fit
            task = replace(task, row=row)
        if task.alone:
            task = replace(task, row={**task.row, ALONE: 1})
        self._in_flight.submit(task)

    def _open_shard(self, shard: int, committed: set[tuple[str, int]]) -> None:
        rows = self._with_retries(lambda: work_rows(self._storage, self._run, shard))
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
        made = [r for r in rows if r[ORIGIN] < 0]  # the views of the others may be gone, and are not read
        self._open[shard] = _Shard(len(uids), done, families, Neighbours(str(r["views"]) for r in made))
        self._read.extend([str(r["views"]) for r in made if r["uid"] in done[SPLATS]][: 2 - len(self._read)])
        for watch in self._watches:
            watch.opened(len(done[self._stages[-1]]))
        for row in rows:
            if row["uid"] not in done[SPLATS]:
                self._ready.append(Task(FIT, SPLATS, shard, row))
            elif dataset_format.ATLAS in self._stages and row["uid"] not in done[dataset_format.ATLAS]:
                self._ready.append(Task(ATLAS, dataset_format.ATLAS, shard, row))
        if VIEWS in self._families and VIEWS not in families and dataset_format.ATLAS in families:
            state = self._open[shard]
            state.without_views = self._without_views(shard) if SPLATS in self._stages else set()
            self._ready.extend(Task(FIT, SPLATS, shard, row) for row in rows if row["uid"] in state.without_views)
        for family in self._families:
            self._pack_when_complete(shard, family)

    def _with_fragment(self, stage: str, shard: int) -> set[str]:
        keys = (layout.parse_fragment(e.key) for e in self._storage.list(layout.fragments(stage, shard)))
        return {found[2] for found in keys if found}

    def _pack_when_complete(self, shard: int, family: str) -> None:
        state = self._open[shard]
        if family == VIEWS:  # published before the fits, but packed only for objects that have an atlas
            complete = dataset_format.ATLAS in state.committed and not state.without_views
        else:
            complete = len(state.done[family]) == state.objects
        if complete and family not in state.committed:
            self._ready.appendleft(Task(PACK, family, shard))

    def _settle(self, task: Task, result: Facts) -> None:
        ours = (BESIDE, ALONE, REUSE, NEXT)
        task = replace(task, row={name: v for name, v in task.row.items() if name not in ours}, near="")
        if follower := self._following.ended(task, result):
            self._ready.appendleft(follower)
        for watch in self._watches:
            watch.worked(task, result)
        if task.kind != PACK:
            uid, work = str(task.row["uid"]), self._open[task.shard].work
            work[uid] = work.get(uid, Work(task.shard)).after(result)
        if result["status"] != "failed":
            self.summary.fit_seconds += float(result.get("fit_seconds", 0.0))
            self._breaker.succeeded("" if task.kind == PACK else task.stage)
            if task.kind == FIT and task.row[ORIGIN] < 0:
                self._read.append(str(task.row["views"]))
            self._complete(task, "" if result["status"] == OK else str(result.get("reason", "unknown")))
            return
        reason, text = str(result["reason"]), text_of(result)
        if reason == CONFLICT:
            raise ShardConflict(text)
        task, now = replace(task, history=task.history.after(reason)), self._clock()
        if reason == INFRASTRUCTURE and (
            outage := self._breaker.infrastructure(now, lasting=bool(result.get("lasting")))
        ):
            raise self._stopped(f"{outage}; last, {task.name}: {text}")
        if reason == DAMAGED and self._make_again(task, text):
            return
        decision = decide(reason, task.history, self._policy, alone=task.alone)
        if reason in KILLS and not task.alone:
            self._throttle.killed(now, self._executor.slots())
        if isinstance(decision, Retry | Alone):
            self.summary.retries += 1
            for watch in self._watches:
                watch.retried(task, result)
            if isinstance(decision, Alone):
                self._suspects.append(replace(task, alone=True))
            else:
                heapq.heappush(self._delayed, _Delayed(now + decision.pause_s, next(self._order), task))
        elif isinstance(decision, Stop):
            raise self._stopped(f"{task.name} {decision.message}: {text}")
        elif task.kind == PACK and reason in KILLS:  # it has no object that could be blamed
            raise self._stopped(
                f"{task.name} was killed {task.history.count(reason)} times, as when the node is short of memory: "
                f"free memory there, or use fewer workers ({reason}: {text})"
            )
        elif task.kind == PACK:
            raise PipelineError(f"{task.name} failed ({reason}): {text}")
        else:
            self._give_up(_Verdict(task, {**result, "reason": decision.reason}))

    def _make_again(self, task: Task, text: str) -> bool:
        """Put back the objects of a task's shard whose fragments were damaged and deleted; whether there were any."""
        state, shard = self._open[task.shard], task.shard
        rows = self._with_retries(lambda: work_rows(self._storage, self._run, shard))
        lost: dict[str, set[str]] = {}
        for stage in layout.STAGES:
            there = self._with_retries(partial(self._with_fragment, stage, shard))
            lost[stage] = set() if stage in state.committed else state.done[stage] - there
            state.done[stage] -= lost[stage]
        state.damaged += 1
        if state.damaged > self._policy.damage_retries:
            raise self._stopped(f"{task.name}: its fragments were damaged {state.damaged} times; last: {text}")
        again = [(FIT, SPLATS, uid) for uid in lost[SPLATS]]
        again += [(ATLAS, dataset_format.ATLAS, uid) for uid in lost[dataset_format.ATLAS] - lost[SPLATS]]
        if task.stage == VIEWS:
            state.without_views = self._without_views(shard)
            again += [(FIT, SPLATS, uid) for uid in state.without_views]
        if again and SPLATS not in self._stages and any(kind == FIT for kind, _, _ in again):
            raise PipelineError(f"shard {shard}: {text}; run fit-shard, which makes the fit again")
        by_uid = {str(r["uid"]): r for r in rows}
        for kind, stage, uid in sorted(again):
            made = Task(kind, stage, shard, by_uid[uid])
            self.summary.retries += 1
            for watch in self._watches:
                watch.retried(made, failed(DAMAGED, text))
            self._ready.append(made)
        return bool(again)

    def _without_views(self, shard: int) -> set[str]:
        """Objects of a shard, whose atlases are committed, that lack the fragment of their reference views."""
        rows = self._with_retries(lambda: shards.stats_rows(self._storage, dataset_format.ATLAS, shard))
        there = self._with_retries(partial(self._with_fragment, VIEWS, shard))
        return {str(r["uid"]) for r in rows if r["sample"] != -1} - there

    def _give_up(self, verdict: _Verdict) -> None:
        """Quarantine an object; later, if the cause could lie outside."""
        task, reason = verdict.task, str(verdict.cause["reason"])
        if reason in PROVISIONAL:
            self._open[task.shard].held[task.stage].append(verdict)
            self.summary.held += 1
            for watch in self._watches:
                watch.held(task, verdict.cause)
        else:
            self._quarantine(verdict)
        if outage := self._breaker.gave_up(task.stage, reason):
            if not self.summary.held:
                raise BreakerOpen(f"{outage}; `gaussianverse top-errors` lists the reasons")
            raise self._stopped(f"{outage}; last, {task.name}: {verdict.cause['error_message']}")

    def _publish_held(self, *, last: bool = False) -> bool:
        """Publish the verdicts of stages that are otherwise complete, if the run is well; returns whether there were.

        `last`: nothing else is left to do, so no later object will show whether the run is well.
        """
        found = False
        for shard, stage in [(k, stage) for k, state in self._open.items() for stage in state.held]:
            state = self._open.get(shard)
            if state and state.held[stage] and state.complete(stage) and (last or self._breaker.calm(stage)):
                verdicts, state.held[stage] = state.held[stage], []
                self.summary.held -= len(verdicts)
                for verdict in verdicts:
                    self._quarantine(verdict)
                found = True
        return found

    def _quarantine(self, verdict: _Verdict) -> None:
        task, stopwatch = verdict.task, records.Stopwatch(verdict.task.history.attempts)
        ended = self._with_retries(
            lambda: records.publish_quarantine(
                self._storage, task.stage, task.row, self._run, verdict.cause, stopwatch
            )
        )
        # another driver may have brought it through meanwhile
        adopted = ended is Published.ADOPTED
        there = adopted and self._with_retries(
            lambda: shards.read_record(self._storage, task.stage, task.shard, str(task.row["uid"])).ok
        )
        self._complete(task, "" if there else str(verdict.cause["reason"]), fresh=True)

    def _stopped(self, why: str) -> BreakerOpen:
        """The error that ends a run which is ill."""
        held = self.summary.held
        quarantined = f"The last {held} that failed were not quarantined" if held else "No object was quarantined"
        return BreakerOpen(f"{why}. {quarantined}. {_REMEDY}")

    def _complete(self, task: Task, reason: str, *, fresh: bool = False) -> None:
        """Record that a fragment or a shard exists.

        Args:
            task: made it.
            reason: of its quarantine, "" if it is none.
            fresh: it is a quarantine that this driver decided.
        """
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
        if task.kind == FIT and uid in state.without_views:
            state.without_views.remove(uid)
            self._pack_when_complete(task.shard, VIEWS)
            return
        state.done[task.stage].add(uid)
        last = task.stage == self._stages[-1]
        if last:
            self.summary.objects += 1
            self.summary.quarantined += bool(reason)
            work = state.work.pop(uid, Work(task.shard))
            for watch in self._watches:
                watch.finished(uid, reason, work)
        elif uid not in state.done[dataset_format.ATLAS]:
            fitted = replace(task, kind=ATLAS, stage=dataset_format.ATLAS, history=History(), alone=False)
            self._ready.appendleft(fitted)
        if last and not reason and not fresh and (outage := self._breaker.finished(False)):
            raise BreakerOpen(f"{outage}; `gaussianverse top-errors` lists the reasons")
        self._pack_when_complete(task.shard, task.stage)

    def _with_retries(self, operation: Callable[[], T]) -> T:
        """Run one of the driver's own store operations, again after each StoreError until the breaker opens."""
        while True:
            try:
                return operation()
            except StoreRefused as error:
                raise self._stopped(str(error)) from error
            except StoreError as error:
                if outage := self._breaker.infrastructure(self._clock()):
                    raise self._stopped(f"{outage}; last: {error}") from error
                self._sleep(self._policy.pause_s)


def families_of(run: Run, stages: tuple[str, ...]) -> tuple[str, ...]:
    """Families of shards that these stages commit: the stages, and views together with the atlases."""
    return (*stages, *(f for f in run.families if f not in layout.STAGES and dataset_format.ATLAS in stages))
