"""Which object follows which, alone and in whole runs of the driver without Ray."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pytest
from pipeline_runs import dataset, manifest_row, planned
from test_pipeline_driver import Inline

from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.dataset.manifest_rows import ORIGIN
from gaussianverse.pipeline.dataset.schemas import Facts
from gaussianverse.pipeline.policy import INFRASTRUCTURE, History, PolicyConfig
from gaussianverse.pipeline.run.driver import Driver
from gaussianverse.pipeline.run.executor import ATLAS, FIT, Task
from gaussianverse.pipeline.run.following import NEXT, PLACE, Following

BASE = "s3://bucket/set"
UIDS = [f"o{i:02d}" for i in range(12)]


def fit(uid: str, **changes: Any) -> Task:
    return Task(FIT, "splats", 0, {**manifest_row(0, uid), ORIGIN: -1, **changes})


def test_the_next_fit_is_kept_back_until_the_one_before_it_has_ended_and_then_goes_to_its_node() -> None:
    following, a, b = Following(BASE), fit("a"), fit("b", format="transforms")
    ready = deque([Task(ATLAS, "atlas", 0, a.row), b, fit("c")])
    assert following.choose(a, ready) == "transforms\nviews/b"
    assert [task.row["uid"] for task in ready] == ["a", "c"]
    assert len(following) == 1
    assert following.choose(a, ready) == ""  # it has one
    assert following.ended(fit("other"), {}) is None
    follower = following.ended(a, {PLACE: "node 1"})
    assert follower is not None
    assert (follower.row, follower.near) == (b.row, "node 1")
    assert not following
    assert following.choose(b, ready) == "auto\nviews/c"
    assert following.ended(b, {"status": "failed"}) == fit("c")  # killed, nobody knows where


@pytest.mark.parametrize("changes", [{"views": "/disk/a"}, {"format": "ply"}, {ORIGIN: 3}, {"fault": "line 3"}])
def test_nothing_is_fetched_for_whom_nothing_is_read_from_a_store(changes: dict[str, Any]) -> None:
    ready = deque([fit("a", **changes)])
    assert Following(BASE).choose(fit("b"), ready) == ""
    assert Following(BASE).choose(fit("b", **changes), deque([fit("c")])) == ""
    assert Following("/disk").choose(fit("b"), deque([fit("c")])) == ""
    assert len(ready) == 1


def test_who_failed_before_or_runs_alone_is_followed_by_none() -> None:
    again = Task(FIT, "splats", 0, fit("a").row, History().after("cuda_error"))
    assert Following(BASE).choose(again, deque([fit("c")])) == ""
    assert Following(BASE).choose(Task(FIT, "splats", 0, fit("a").row, alone=True), deque([fit("c")])) == ""


class Noting(Inline):
    """Notes what each fit is told to fetch, and what was done by then."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.told: list[tuple[str, str]] = []
        self.near = dict[str, str]()
        self.done: set[str] = set()
        self.useless: list[str] = []

    def submit(self, task: Task) -> Hashable:
        if task.kind == FIT:
            self.told.append((str(task.row["uid"]), str(task.row[NEXT]).rpartition("/")[2]))
            self.near[str(task.row["uid"])] = task.near
        return super().submit(task)

    def result(self, handle: Hashable) -> Facts:
        task = self._tasks[handle]
        result = super().result(handle)
        if task.kind == FIT:
            uid, following = str(task.row["uid"]), str(task.row[NEXT]).rpartition("/")[2]
            if following in self.done:
                self.useless.append(following)
            self.done.add(uid)
            return {**result, PLACE: f"node of {uid}"}
        return result


def driven(folder: Path, base: str, faults: dict[tuple[str, str], list[str]] | None = None) -> Noting:
    storage = LocalStorage(folder)
    run = planned(storage, UIDS, shard_size=5)
    executor = Noting(storage, run, faults)
    policy = PolicyConfig(pause_s=0.0)
    Driver(storage, run, executor, policy, shards=range(run.n_shards), base=base, sleep=lambda s: None).run()
    return executor


def test_all_are_fitted_once_each_near_its_views_and_none_is_fetched_when_it_is_done(tmp_path: Path) -> None:
    noted, plain = driven(tmp_path / "s3", BASE), driven(tmp_path / "disk", "/disk")
    assert Counter(uid for kind, uid in noted.log if kind == FIT) == Counter(UIDS)
    told = {uid: following for uid, following in noted.told if following}
    assert len(told) == len(set(told.values())) >= len(UIDS) // 2  # not those that began, nor the last
    assert not noted.useless
    for uid, following in told.items():
        assert noted.near[following] in ("", f"node of {uid}")
    assert sum(bool(near) for near in noted.near.values()) >= len(told) - 2
    assert not any(following for _, following in plain.told)
    assert dataset(LocalStorage(tmp_path / "s3")) == dataset(LocalStorage(tmp_path / "disk"))


@pytest.mark.parametrize("fault", [INFRASTRUCTURE, "worker_killed", "bad_input", "nan_loss"])
def test_whatever_happens_to_a_fit_its_follower_is_fitted(fault: str, tmp_path: Path) -> None:
    noted = driven(tmp_path / "s3", BASE, {(FIT, uid): [fault] for uid in UIDS[::3]})
    plain = driven(tmp_path / "disk", "/disk", {(FIT, uid): [fault] for uid in UIDS[::3]})
    assert {uid for kind, uid in noted.log if kind == FIT} == set(UIDS)
    assert Counter(noted.log) == Counter(plain.log)
    assert dataset(LocalStorage(tmp_path / "s3")) == dataset(LocalStorage(tmp_path / "disk"))
