"""Verdicts that could come from outside: held back while the run may be ill, published when it is seen to be well."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pipeline_runs import planned
from test_pipeline_driver import HANG, KILLED, Inline, Watch, dataset, drive

from gaussianverse.atlas.dataset_format import ATLAS as ATLASES
from gaussianverse.atlas.dataset_format import SPLATS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.dataset import layout, records, shards
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.errors import BreakerOpen
from gaussianverse.pipeline.policy import INFRASTRUCTURE, PROVISIONAL, UNREAD, PolicyConfig, failed
from gaussianverse.pipeline.run.executor import ATLAS, FIT, PACK, Task
from gaussianverse.pipeline.run.neighbours import ALONE, BESIDE

MANY = {reason: [reason] * 9 for reason in PROVISIONAL} | {"unreadable": [UNREAD] * 9}


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "out")


def uids(count: int) -> list[str]:
    return [f"o{k:03}" for k in range(count)]


def failing(reason: str, objects: Iterable[str], kind: str = FIT) -> dict[tuple[str, str], list[str]]:
    return {(kind, uid): list(MANY.get(reason, [reason] * 9)) for uid in objects}


def condemned(storage: LocalStorage) -> list[str]:
    keys = [layout.parse_fragment(e.key) for e in storage.list(layout.WORK)]
    return [f"{k[0]} {k[2]}" for k in keys if k and not records.read(storage, *k).ok]


@pytest.mark.parametrize("reason", sorted(PROVISIONAL))
@pytest.mark.parametrize("stage", [FIT, ATLAS])
def test_a_streak_stops_the_run_and_nothing_stands_under_a_key(
    storage: LocalStorage, reason: str, stage: str
) -> None:
    run, named = planned(storage, uids(20), shard_size=4), uids(20)[6:]
    executor = Inline(storage, run, failing(reason, named, stage))
    with pytest.raises(BreakerOpen, match=f"8 objects in a row failed as {reason}.*told to"):
        drive(executor, run, policy=PolicyConfig(fit_deadline_s=10, atlas_deadline_s=10), tick=0.1)
    assert condemned(storage) == []
    drive(Inline(storage, run), run)
    assert [shards.read_commit(storage, ATLASES, k)["samples"] for k in range(5)] == [4] * 5


@pytest.mark.parametrize("reason", sorted(PROVISIONAL))
def test_a_few_are_quarantined_when_the_rest_of_their_shard_is_done(storage: LocalStorage, reason: str) -> None:
    run = planned(storage, uids(12), shard_size=6)
    executor, watch = Inline(storage, run, failing(reason, ["o001", "o004", "o008"])), Watch()
    summary = drive(executor, run, watch=watch, policy=PolicyConfig(fit_deadline_s=10), tick=0.1)
    assert (summary.objects, summary.quarantined, summary.held) == (12, 3, 0)
    assert [shards.read_commit(storage, ATLASES, k)["quarantined"] for k in (0, 1)] == [{reason: 2}, {reason: 1}]
    assert [watch.ends["o001"], watch.ends["o000"]] == [True, False]


def test_until_then_there_is_nothing_under_its_key_and_a_run_started_again_tries_it_again(
    storage: LocalStorage,
) -> None:
    run = planned(storage, uids(6))
    executor = Inline(storage, run, failing("decode_error", ["o000"]))
    executor.left = 6  # the driver dies before the shard's last fit
    with pytest.raises(KeyboardInterrupt):
        drive(executor, run)
    assert (FIT, "o000") in executor.log
    assert condemned(storage) == []
    assert drive(Inline(storage, run), run).quarantined == 0
    assert shards.read_commit(storage, ATLASES, 0)["samples"] == 6


def test_the_objects_own_faults_are_published_at_once(storage: LocalStorage) -> None:
    run = planned(storage, uids(6))
    executor = Inline(storage, run, failing("low_psnr", ["o000"]))
    executor.left = 3
    with pytest.raises(KeyboardInterrupt):
        drive(executor, run)
    assert condemned(storage)[0] == "splats o000"


def test_shards_of_one_object_are_no_way_round(storage: LocalStorage) -> None:
    run = planned(storage, uids(30), shard_size=1)
    executor = Inline(storage, run, failing("missing_views", uids(30)[10:]))
    with pytest.raises(BreakerOpen, match="8 objects in a row failed as missing_views"):
        drive(executor, run)
    assert condemned(storage) == []
    # fewer than a streak at the end of a run are believed
    drive(Inline(storage, run, failing("missing_views", uids(30)[23:])), run)
    assert [shards.read_commit(storage, ATLASES, k)["samples"] for k in range(30)] == [1] * 23 + [0] * 7


def test_the_streak_can_be_turned_off(storage: LocalStorage) -> None:
    run = planned(storage, uids(12))
    executor = Inline(storage, run, failing("missing_views", uids(12)[2:]))
    assert drive(executor, run, policy=PolicyConfig(breaker_streak=0)).quarantined == 10


def test_verdicts_do_not_change_the_bytes_of_the_rest(storage: LocalStorage, tmp_path: Path) -> None:
    bad = failing("decode_error", ["o002", "o007"]) | failing("unknown", ["o005"], ATLAS)
    other = LocalStorage(tmp_path / "other")
    for place in (storage, other):
        run = planned(place, uids(9), shard_size=3)
        if place is other:
            for left in (4, 9, 2):
                executor = Inline(place, run, bad)
                executor.left = left
                with pytest.raises(KeyboardInterrupt):
                    drive(executor, run)
        drive(Inline(place, run, bad), run)
    assert dataset(storage) == dataset(other)


def test_another_driver_that_brought_the_object_through_is_believed(storage: LocalStorage) -> None:
    run = planned(storage, uids(4))

    class Late(Inline):
        def result(self, handle: Any) -> Facts:
            found = super().result(handle)
            if len(self.log) == 3:  # after its verdict here, the other driver's fit of o000 comes through
                self._done(Task(FIT, SPLATS, 0, self.row))
            return found

        def submit(self, task: Task) -> Any:
            if task.row and task.row["uid"] == "o000":
                self.row = dict(task.row)
            return super().submit(task)

    summary = drive(Late(storage, run, failing("decode_error", ["o000"])), run)
    assert summary.quarantined == 0
    assert shards.read_commit(storage, ATLASES, 0)["samples"] == 4


class Nodes(Inline):
    """Records what runs beside each task."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.beside: list[tuple[str, bool, int]] = []
        self.most_at: list[int] = []

    def submit(self, task: Task) -> Any:
        handle = super().submit(task)
        assert (ALONE in task.row) == task.alone
        self.beside.append((task.name, task.alone, len(self._tasks)))
        self.most_at.append(len(self._tasks))
        return handle

    def slots(self) -> int:
        return 8


@pytest.mark.parametrize(("reason", "before"), [("out_of_memory", 2), ("worker_killed", 3)])
@pytest.mark.parametrize("kind", [FIT, ATLAS])
def test_it_runs_once_alone_before_it_is_blamed(storage: LocalStorage, reason: str, before: int, kind: str) -> None:
    run = planned(storage, uids(20))
    executor = Nodes(storage, run, {(kind, "o003"): [reason] * before, (kind, "o005"): [reason] * (before + 1)})
    summary = drive(executor, run)
    assert summary.quarantined == 1
    stage = SPLATS if kind == FIT else ATLASES
    assert records.read(storage, stage, 0, "o005").facts["reason"] == reason
    assert records.read(storage, stage, 0, "o003").ok
    alone = [(name, together) for name, alone, together in executor.beside if alone]
    assert sorted(alone) == [(f"{kind} of o003", 1), (f"{kind} of o005", 1)]


def test_a_node_without_room_is_no_verdict(storage: LocalStorage) -> None:
    run = planned(storage, uids(3))
    faults = {(FIT, "o001"): ["out_of_memory"] * 2 + [INFRASTRUCTURE] * 3}
    executor = Nodes(storage, run, faults)
    assert drive(executor, run).quarantined == 0
    assert [name for name, alone, _ in executor.beside if alone] == ["fit of o001"] * 4


def test_kills_for_memory_halve_what_is_under_way(storage: LocalStorage) -> None:
    run = planned(storage, uids(60))
    executor = Nodes(storage, run, {(FIT, uid): ["out_of_memory"] for uid in uids(60)[8:10]})
    assert drive(executor, run, tick=0.01).quarantined == 0
    assert max(executor.most_at[:16]) == 16
    assert max(executor.most_at[60:]) == 4


def test_views_that_others_can_read_beside_are_the_objects_fault_after_five_tries(storage: LocalStorage) -> None:
    run = planned(storage, uids(5))
    executor = Inline(storage, run, {(FIT, "o001"): [UNREAD] * 4, (FIT, "o002"): [UNREAD] * 5})
    assert drive(executor, run).quarantined == 1
    assert executor.log.count((FIT, "o001")) == executor.log.count((FIT, "o002")) == 5
    assert records.read(storage, SPLATS, 0, "o002").facts["reason"] == "unreadable"


def test_a_full_disk_stops_the_run_at_once_and_a_share_that_may_come_back_has_two_minutes(
    storage: LocalStorage,
) -> None:
    run = planned(storage, uids(5))

    class Full(Inline):
        def result(self, handle: Any) -> Facts:
            task = self._tasks.pop(handle)
            self.log.append(self._key(task))
            return failed(INFRASTRUCTURE, "no space left", lasting=self.lasting)

    for lasting, least, most in ((True, 10, 10), (False, 20, 99)):
        executor = Full(storage, run)
        executor.lasting = lasting  # type: ignore[attr-defined]
        with pytest.raises(BreakerOpen, match=r"in a row; last, .*no space left\. No object was quarantined"):
            drive(executor, run)
        assert least <= len(executor.log) <= most
    assert condemned(storage) == []


def test_every_fit_knows_what_lies_beside_it(storage: LocalStorage) -> None:
    run = planned(storage, uids(6), shard_size=3)
    seen: dict[str, list[str]] = {}

    class Asking(Inline):
        def submit(self, task: Task) -> Any:
            if task.kind == FIT:
                seen[str(task.row["uid"])] = str(task.row[BESIDE]).splitlines()
            else:
                assert task.kind == PACK or BESIDE not in task.row
            return super().submit(task)

    drive(Asking(storage, run), run)
    for uid, beside in seen.items():
        assert beside
        assert f"views/{uid}" not in beside
    assert seen["o001"][:2] == ["views/o000", "views/o002"]


def test_a_hang_is_held_back_as_well(storage: LocalStorage) -> None:
    run = planned(storage, uids(3))
    policy = PolicyConfig(fit_deadline_s=10, atlas_deadline_s=10, pack_deadline_s=10, grace_s=2)
    watch = Watch()
    held: list[str] = []
    watch.held = lambda task, result: held.append(f"{task.name} {result['reason']}")  # type: ignore[method-assign]
    executor = Inline(storage, run, {(FIT, "o000"): [HANG, HANG], (FIT, "o001"): [KILLED]})
    drive(executor, run, policy=policy, watch=watch, tick=0.5)
    assert held == ["fit of o000 timeout"]
    assert watch.ends == {"o000": True, "o001": False, "o002": False}
