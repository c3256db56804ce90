"""Tasks under way: each gives one result, even if it was started twice, hangs, or was cancelled by force."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace

from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.errors import Stalled
from gaussianverse.pipeline.policy import CONFLICT, PolicyConfig, deadline_of, failed, repeats
from gaussianverse.pipeline.run.executor import ATLAS, FIT, PACK, Executor, Task

_POLL_S = 1.0


@dataclass(eq=False)
class _Submission:
    """One copy of a task, as the executor was given it."""

    task: Task
    submitted: float
    repeated: bool = False
    """The task was started a second time, which happens at most once."""
    started: float | None = None
    cancelled: float | None = None


class InFlight:
    """Tasks that were submitted to an executor and have not ended.

    Args:
        executor: runs the tasks.
        policy: deadlines, and when to start a task a second time.
        clock: seconds, monotonic.
    """

    def __init__(self, executor: Executor, policy: PolicyConfig, clock: Callable[[], float]) -> None:
        self._executor, self._policy, self._clock = executor, policy, clock
        self._submissions: dict[Hashable, _Submission] = {}  # in the order of submission
        self._progress = clock()

    def __len__(self) -> int:
        return len(self._submissions)

    def oldest_s(self) -> float:
        """Seconds for which the oldest of the tasks that run has been running; 0 if none is known to run."""
        started = [s.started for s in self._submissions.values() if s.started is not None]
        return self._clock() - min(started) if started else 0.0

    def submit(self, task: Task) -> None:
        """Start a task as soon as there is a slot for it."""
        if not self._submissions:
            self._progress = self._clock()
        self._start(task, repeated=False)

    def _start(self, task: Task, *, repeated: bool) -> None:
        # another node, since the first may be slow
        given = replace(task, near="") if repeated and task.near else task
        self._submissions[self._executor.submit(given)] = _Submission(task, self._clock(), repeated)

    def repeat(self, slots: int) -> int:
        """Start the oldest tasks again on idle slots, so that a slow machine does not delay the end of a run.

        This is safe, since the first to publish wins; the other copy is cancelled. Returns the number started.
        """
        now, idle = self._clock(), slots - len(self._submissions)
        once = [
            s
            for s in self._submissions.values()
            if not (s.repeated or s.task.kind == PACK or s.task.alone) and s.cancelled is None
        ]
        chosen = repeats([now - submission.submitted for submission in once], idle, self._policy)
        for submission in (once[k] for k in chosen):
            submission.repeated = True
            self._start(submission.task, repeated=True)
            self._progress = now
        return len(chosen)

    def ended(self, slots: int) -> Iterator[tuple[Task, Facts]]:
        """Wait a moment, then yield each task that ended or timed out, once, with its result.

        A task that was started twice gives the first success, or else the last failure.

        Args:
            slots: number of tasks that can run at once.

        Raises:
            Stalled: nothing has ended for longer than any task may take.
        """
        for handle in self._executor.wait(list(self._submissions), _POLL_S):
            if handle not in self._submissions:
                continue  # the other copy of a task whose result was taken in this loop
            submission, result = self._submissions.pop(handle), self._executor.result(handle)
            if submission.cancelled is not None and result["status"] == "failed":
                result = failed("timeout", f"cancelled {self._deadline(submission):.0f} s after its start")
            self._progress = self._clock()
            others = self._other_copies(submission)
            if others and result["status"] == "failed" and result["reason"] != CONFLICT:
                continue  # the other copy may succeed
            for other in others:
                self._executor.cancel(other)
                del self._submissions[other]
            yield submission.task, result
        yield from self._expire(slots)

    def _other_copies(self, submission: _Submission) -> list[Hashable]:
        return [
            handle
            for handle, other in self._submissions.items()
            if other.task is submission.task and other is not submission
        ]

    def _deadline(self, submission: _Submission) -> float:
        return deadline_of(submission.task.kind, self._policy)

    def _expire(self, slots: int) -> Iterator[tuple[Task, Facts]]:
        """Cancel tasks past their deadline, since Ray has no time-out for tasks.

        Ray does not say when a task has started. Tasks start roughly in the order of submission, so a task
        counts as running from when it is among the oldest `slots`.
        """
        now = self._clock()
        for handle, submission in list(itertools.islice(self._submissions.items(), slots)):
            if submission.started is None:
                submission.started = now
            if submission.cancelled is None:
                if now - submission.started > self._deadline(submission):
                    submission.cancelled = now
                    self._executor.cancel(handle)
            elif now - submission.cancelled > self._policy.grace_s:
                # it does not end even when cancelled; its slot stays occupied, but the object is tried again
                del self._submissions[handle]
                self._progress = now
                if not self._other_copies(submission):
                    yield submission.task, failed("timeout", "did not end when cancelled")
        longest = max(deadline_of(kind, self._policy) for kind in (FIT, ATLAS, PACK))
        if self._submissions and now - self._progress > longest + self._policy.stall_s:
            oldest = next(iter(self._submissions.values())).task.name
            raise Stalled(
                f"nothing has ended for {now - self._progress:.0f} s ({len(self)} tasks under way, oldest: "
                f"{oldest}); check the cluster, then run the same command again to continue"
            )
