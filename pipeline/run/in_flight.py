"""Tasks under way: one result for each, whatever was started twice, hangs, or had to be ended by force."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.errors import Stalled
from gaussianverse.pipeline.policy import CONFLICT, PolicyConfig, deadline_of, failed, repeats
from gaussianverse.pipeline.run.executor import ATLAS, FIT, PACK, Executor, Task

_POLL_S = 1.0


@dataclass(eq=False)
class _Flight:
    task: Task
    submitted: float
    twice: bool = False
    """Whether the task was started a second time; that is done once."""
    started: float | None = None
    cancelled: float | None = None


class Flights:
    """Tasks that an executor was given and whose results are still to come.

    Args:
        executor: where tasks go.
        policy: deadlines, and when to start a task a second time.
        clock: seconds, monotonic.
    """

    def __init__(self, executor: Executor, policy: PolicyConfig, clock: Callable[[], float]) -> None:
        self._executor, self._policy, self._clock = executor, policy, clock
        self._flights: dict[Hashable, _Flight] = {}  # in the order of submission
        self._progress = clock()

    def __len__(self) -> int:
        return len(self._flights)

    def submit(self, task: Task) -> None:
        """Start a task as soon as there is a slot for it."""
        if not self._flights:
            self._progress = self._clock()
        self._start(task, twice=False)

    def _start(self, task: Task, *, twice: bool) -> None:
        self._flights[self._executor.submit(task)] = _Flight(task, self._clock(), twice)

    def repeat(self, slots: int) -> int:
        """Start the oldest tasks again where slots are idle: a slow machine need not hold up the tail of a run.

        Harmless, since the first to publish wins; the loser is cancelled. Returns how many were started.
        """
        now, idle = self._clock(), slots - len(self._flights)
        once = [
            f for f in self._flights.values() if not f.twice and f.task.kind != PACK and f.cancelled is None
        ]
        chosen = repeats([now - flight.submitted for flight in once], idle, self._policy)
        for flight in (once[k] for k in chosen):
            flight.twice = True
            self._start(flight.task, twice=True)
            self._progress = now
        return len(chosen)

    def ended(self, slots: int) -> Iterator[tuple[Task, Facts]]:
        """Wait a moment; then each task that has ended or was given up, once, with its result.

        Of a task that was started twice the first success counts, or else the last failure.

        Args:
            slots: how many tasks can run at once.

        Raises:
            Stalled: nothing has ended for longer than any task may take.
        """
        for handle in self._executor.wait(list(self._flights), _POLL_S):
            if handle not in self._flights:
                continue  # a copy, which ended in the same moment as the one that counts
            flight, result = self._flights.pop(handle), self._executor.result(handle)
            if flight.cancelled is not None and result["status"] == "failed":
                result = failed("timeout", f"cancelled {self._deadline(flight):.0f} s after its start")
            self._progress = self._clock()
            copies = self._copies(flight)
            if copies and result["status"] == "failed" and result["reason"] != CONFLICT:
                continue  # the other one is still at it
            for copy in copies:
                self._executor.cancel(copy)
                del self._flights[copy]
            yield flight.task, result
        yield from self._expire(slots)

    def _copies(self, flight: _Flight) -> list[Hashable]:
        """Handles of the other flights of the same task."""
        return [h for h, other in self._flights.items() if other.task is flight.task and other is not flight]

    def _deadline(self, flight: _Flight) -> float:
        return deadline_of(flight.task.kind, self._policy)

    def _expire(self, slots: int) -> Iterator[tuple[Task, Facts]]:
        """Cancel what has run too long; Ray has no time-out of its own for tasks.

        Ray does not say when a task has started. Tasks start roughly in the order of submission, so a task
        counts as running from when it is among the oldest `slots`.
        """
        now = self._clock()
        for handle, flight in list(itertools.islice(self._flights.items(), slots)):
            if flight.started is None:
                flight.started = now
            if flight.cancelled is None:
                if now - flight.started > self._deadline(flight):
                    flight.cancelled = now
                    self._executor.cancel(handle)
            elif now - flight.cancelled > self._policy.grace_s:
                # not even cancelling ends it; its slot is lost, the object is not
                del self._flights[handle]
                self._progress = now
                if not self._copies(flight):
                    yield flight.task, failed("timeout", "did not end when cancelled")
        longest = max(deadline_of(kind, self._policy) for kind in (FIT, ATLAS, PACK))
        if self._flights and now - self._progress > longest + self._policy.stall_s:
            oldest = next(iter(self._flights.values())).task.name
            raise Stalled(
                f"nothing has ended for {now - self._progress:.0f} s ({len(self)} tasks under way, oldest: "
                f"{oldest}); look at the cluster, then run again: what is done stays done"
            )
