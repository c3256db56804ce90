"""Tasks under way: one result each, even if they were started twice, end together, or do not end."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import pytest

from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.errors import Stalled
from gaussianverse.pipeline.policy import CONFLICT, PolicyConfig, failed
from gaussianverse.pipeline.run.executor import FIT, PACK, Task
from gaussianverse.pipeline.run.in_flight import InFlight

OK = {"status": "ok"}
POLICY = PolicyConfig(repeat_after_s=10, fit_deadline_s=100, grace_s=5, stall_s=50)


class Scripted:
    """An executor whose tasks end when the test says so; handles are numbers from 0."""

    def __init__(self) -> None:
        self.submitted: list[Task] = []
        self.results: dict[Hashable, Facts] = {}
        self.cancelled: list[Hashable] = []

    def slots(self) -> int:
        return 4

    def submit(self, task: Task) -> Hashable:
        self.submitted.append(task)
        return len(self.submitted) - 1

    def wait(self, handles: Sequence[Hashable], timeout_s: float) -> list[Hashable]:
        return [handle for handle in handles if handle in self.results]

    def result(self, handle: Hashable) -> Facts:
        return self.results[handle]

    def cancel(self, handle: Hashable) -> None:
        self.cancelled.append(handle)


class Site:
    """Tasks in flight on such an executor, at a time that the test sets."""

    def __init__(self, *tasks: Task) -> None:
        self.now, self.executor = 0.0, Scripted()
        self.in_flight = InFlight(self.executor, POLICY, lambda: self.now)
        for task in tasks:
            self.in_flight.submit(task)

    def ended(self, **results: Facts) -> list[tuple[Task, Facts]]:
        self.executor.results = {int(name[1:]): result for name, result in results.items()}
        return list(self.in_flight.ended(4))

    def repeated(self) -> int:
        self.now += POLICY.repeat_after_s
        return self.in_flight.repeat(4)


def fit(uid: str) -> Task:
    return Task(FIT, "splats", 0, {"uid": uid})


A, B = fit("a"), fit("b")


def test_results_come_once_with_their_task() -> None:
    site = Site(A, B)
    assert len(site.in_flight) == 2
    assert site.ended() == []
    assert site.ended(_1=OK) == [(B, OK)]
    assert site.ended(_0=failed("nan_loss", "x")) == [(A, failed("nan_loss", "x"))]
    assert len(site.in_flight) == 0


@pytest.mark.parametrize("first", [0, 1])
def test_the_first_copy_that_succeeds_counts_and_the_other_is_cancelled(first: int) -> None:
    site = Site(A)
    assert site.repeated() == 1
    assert site.ended(**{f"_{first}": OK}) == [(A, OK)]
    assert site.executor.cancelled == [1 - first]
    assert len(site.in_flight) == 0


def test_both_copies_may_end_in_the_same_moment() -> None:
    site = Site(A, B)
    assert site.repeated() == 2
    assert site.ended(_0=OK, _2=OK, _1=OK, _3=OK) == [(A, OK), (B, OK)]
    assert len(site.in_flight) == 0


def test_both_copies_may_fail_in_the_same_moment() -> None:
    site = Site(A)
    assert site.repeated() == 1
    assert site.ended(_0=failed("nan_loss", "one"), _1=failed("nan_loss", "two")) == [(A, failed("nan_loss", "two"))]


@pytest.mark.parametrize("first", [0, 1])
def test_a_copy_that_fails_says_nothing_while_the_other_is_at_it(first: int) -> None:
    site = Site(A)
    site.repeated()
    assert site.ended(**{f"_{first}": failed("worker_killed", "x")}) == []
    assert site.executor.cancelled == []
    assert site.ended(**{f"_{1 - first}": OK}) == [(A, OK)]


def test_a_conflict_is_never_kept_back() -> None:
    site = Site(A)
    site.repeated()
    assert site.ended(_0=failed(CONFLICT, "other bytes")) == [(A, failed(CONFLICT, "other bytes"))]


def test_what_is_young_or_packs_or_runs_twice_is_not_repeated() -> None:
    site = Site(A, Task(PACK, "splats", 0))
    assert site.in_flight.repeat(4) == 0
    assert site.repeated() == 1
    assert site.repeated() == 0
    assert [task.kind for task in site.executor.submitted] == [FIT, PACK, FIT]


def test_a_task_is_started_a_second_time_once() -> None:
    """Otherwise a task that kills its worker would do so again and again, as long as its first copy hangs."""
    site = Site(A)
    assert site.repeated() == 1
    assert site.ended(_1=failed("worker_killed", "x")) == []
    assert site.repeated() == 0


def test_what_cannot_be_repeated_does_not_keep_others_from_it() -> None:
    site = Site(Task(PACK, "splats", 0), A)
    site.now = 11.0
    assert site.in_flight.repeat(3) == 1
    site = Site(A, B)
    site.now = 11.0
    assert site.in_flight.repeat(3) == 1
    assert site.in_flight.repeat(4) == 1
    assert site.executor.submitted == [A, B, A, B]


def test_a_copy_has_the_time_that_its_deadline_gives_it() -> None:
    """A stall is counted from the last event; the copy's start and the end of the original are events too."""
    site = Site(A)
    site.ended()
    site.now = 100.0
    assert site.in_flight.repeat(4) == 1
    longest = POLICY.pack_deadline_s + POLICY.stall_s + POLICY.grace_s
    site.now = 100.0 + longest - 1
    assert site.ended() == []  # the original is cancelled
    site.now += POLICY.grace_s + 1
    assert site.ended() == []  # and dropped
    site.now += longest - 1
    assert site.ended() == []
    site.now += 2
    with pytest.raises(Stalled):
        site.ended()


def test_no_more_is_repeated_than_there_is_room_for() -> None:
    site = Site(A, B, fit("c"))
    assert site.repeated() == 1
    assert site.executor.submitted[-1] is A


def test_past_its_deadline_a_task_is_cancelled_and_counts_as_timed_out() -> None:
    site = Site(A)
    site.ended()
    site.now = 106.0
    assert site.ended() == []
    assert site.executor.cancelled == [0]
    [(task, result)] = site.ended(_0=failed("worker_killed", "x"))
    assert (task, result["reason"]) == (A, "timeout")
    assert "105 s" in str(result["error_message"])


def test_a_task_that_does_not_end_when_cancelled_counts_as_timed_out() -> None:
    site = Site(A)
    site.ended()
    site.now = 106.0
    site.ended()
    site.now = 112.0
    [(task, result)] = site.ended()
    assert (task, result["reason"], len(site.in_flight)) == (A, "timeout", 0)


def test_a_stall_is_an_error() -> None:
    # more tasks than slots: waiting tasks have no deadline yet
    site = Site(*(fit(str(k)) for k in range(9)))
    site.now = POLICY.pack_deadline_s + POLICY.atlas_deadline_s + POLICY.fit_deadline_s + 200
    with pytest.raises(Stalled, match="9 tasks under way, oldest: fit of 0"):
        site.ended()


def test_time_without_tasks_is_no_stall() -> None:
    site = Site()
    site.now = 1e6
    site.in_flight.submit(A)
    assert site.ended() == []


def test_a_task_beside_others_does_not_put_a_stall_off() -> None:
    site = Site(*(fit(str(k)) for k in range(9)))
    longest = POLICY.pack_deadline_s + POLICY.grace_s + POLICY.stall_s
    site.now = longest
    assert site.ended() == []  # a limit is to be exceeded
    site.in_flight.submit(A)
    site.now += 1
    with pytest.raises(Stalled, match=f"{longest + 1:.0f} s"):
        site.ended()


def test_deadline_and_grace_are_to_be_exceeded() -> None:
    site = Site(A)
    site.ended()
    site.now = 105.0
    site.ended()
    assert site.executor.cancelled == []
    site.now = 106.0
    site.ended()
    assert site.executor.cancelled == [0]
    site.now = 106.0 + POLICY.grace_s
    assert site.ended() == []
    site.now += 1
    assert [result["reason"] for _, result in site.ended()] == ["timeout"]


def test_the_task_that_was_submitted_first_is_repeated_first() -> None:
    site = Site()
    for task in (A, B, fit("c")):
        site.in_flight.submit(task)
        site.now += 20
    assert site.in_flight.repeat(4) == 1
    assert site.executor.submitted[3:] == [A]
    assert site.in_flight.repeat(6) == 2
    assert site.executor.submitted[4:] == [B, fit("c")]
