"""The first line of a run, and its progress where stderr is no terminal; `test_end_to_end_terminal` has one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from pipeline_runs import planned, publish_all, publish_one

from gaussianverse.atlas.dataset_format import ATLAS, SPLATS
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.manifests import runform
from gaussianverse.manifests.schema import SPLATS as SPLATS_FORMAT
from gaussianverse.manifests.schema import Row
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.dataset import layout, members, run_file
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.policy import DAMAGED, History, failed
from gaussianverse.pipeline.run import costs
from gaussianverse.pipeline.run import first_line as first_line_module
from gaussianverse.pipeline.run.bar import FIT_SHARE, duration
from gaussianverse.pipeline.run.costs import OF_ATLAS, Cost
from gaussianverse.pipeline.run.executor import FIT, PACK, Task
from gaussianverse.pipeline.run.first_line import first_line
from gaussianverse.pipeline.run.progress import ProgressBar
from gaussianverse.pipeline.run.watch import Work

TASK = Task(FIT, SPLATS, 0, {"uid": "a"}, History({"cuda_error": 1}))
Captured = pytest.CaptureFixture[str]


class Site:
    """A bar, at a time and with shares that the test sets."""

    def __init__(self, total: int) -> None:
        self.now, self.shares = 0.0, dict[str, float]()
        self.bar = ProgressBar(total, lambda: self.shares, lambda: self.now)


def test_it_counts_old_new_and_quarantined_objects_gaussians_and_psnr(capsys: Captured) -> None:
    site = Site(10)
    with site.bar as bar:
        bar.opened(4)
        site.now = 3600.0
        bar.finished("a", "", Work(0, gaussians=900, psnr=31.0))
        bar.finished("b", "low_psnr", Work(0))
        bar.finished("c", "", Work(0, gaussians=1300, psnr=32.0))
        bar.finished("d", "", Work(0, gaussians=200))
    *_, last = capsys.readouterr().err.splitlines()
    assert last == "8/10 objects, 4/h, 30 min left, 1 quarantined (1 low_psnr), 800 Gaussians, 31.50 dB"


def test_it_moves_with_the_steps_of_fits_and_never_counts_them_twice(capsys: Captured) -> None:
    def line(**shares: float) -> str:
        site.shares, site.now = shares, site.now + 60.0
        site.bar.waited(1.0)
        return capsys.readouterr().err.strip()

    site = Site(1_000_000)
    assert line() == "0/1000000 objects, time left unknown"
    days = (1e6 - FIT_SHARE) * 120 / FIT_SHARE / 86400
    assert line(a=0.25, b=0.75) == f"0/1000000 objects, {FIT_SHARE * 3600 / 120:.0f}/h, {days:.0f} days left"
    site.bar.worked(TASK, {"status": "ok"})
    assert line(a=1.0, b=0.5).startswith(f"0/1000000 objects, {FIT_SHARE * 1.5 * 3600 / 180:.0f}/h")
    site.bar.finished("a", "", Work(0))
    assert line(b=0.5).startswith(f"1/1000000 objects, {(1 + FIT_SHARE * 0.5) * 3600 / 240:.0f}/h")


def test_what_is_made_again_counts_once(capsys: Captured) -> None:
    site = Site(2)
    with site.bar as bar:
        site.now = 60.0
        bar.finished("a", "", Work(0))
        bar.retried(TASK, failed(DAMAGED, "its views were damaged"))
        bar.worked(TASK, {"status": "ok"})
        site.now = 120.0
        bar.waited(1.0)
        assert capsys.readouterr().err.splitlines()[-1] == "1/2 objects, 30/h, 2.0 min left"
        bar.finished("b", "", Work(0))
        bar.finished("a", "", Work(0))
        bar.worked(Task(PACK, ATLAS, 0, {}, History()), {"status": "ok"})
    assert capsys.readouterr().err.startswith("2/2 objects, ")


def test_without_a_terminal_it_is_a_line_a_minute(capsys: Captured) -> None:
    site = Site(1000)
    with site.bar as bar:
        for _ in range(600):
            site.now += 0.5
            bar.waited(1.0)
            bar.finished("a", "", Work(0))
    told = capsys.readouterr().err
    assert "\r" not in told
    assert [line.partition(" ")[0] for line in told.splitlines()] == [
        "119/1000", "239/1000", "359/1000", "479/1000", "599/1000", "600/1000",
    ]  # fmt: skip


def test_what_was_there_already_is_not_counted_as_speed(capsys: Captured) -> None:
    site = Site(10)
    with site.bar as bar:
        site.now = 30.0
        bar.opened(9)
    assert capsys.readouterr().err == "9/10 objects, time left unknown\n"


def test_a_retry_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    with Site(1).bar as bar, caplog.at_level(logging.WARNING):
        bar.retried(TASK, failed("cuda_error", "it broke"))
    assert "fit of a failed (cuda_error: it broke), attempt 2 follows" in caplog.text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (150, "2.5 min"), (7000, "117 min"), (9000, "2.5 h"), (86400, "24 h"),
     (2.25 * 86400, "2.2 days"), (33 * 86400, "33 days")],
)  # fmt: skip
def test_durations_have_the_unit_that_people_would_choose(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.fixture
def profiled(storage: Storage) -> Callable[..., Run]:
    """Plans a run of five objects, two a shard, with a profile's own settings or others."""

    def plan(profile: str, *overrides: str, format: str = "auto") -> Run:
        config = load(profile, ["run.shard_size=2", *overrides])
        rows = [Row(f"o{k}", f"views/{k}", format=format, license="CC0-1.0", caption="x") for k in range(5)]
        manifest = runform.encode(rows, shard_size=2)
        identity = run_file.identity_of(manifest, config, members.representation(config.atlas))
        return run_file.establish(storage, manifest, identity)

    return plan


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return LocalStorage(tmp_path)


def line(storage: Storage, run: Run, stages: tuple[str, ...] = layout.STAGES, slots: int = 2) -> str:
    return first_line(storage, run, range(3), stages, slots=slots, of=5)


def test_the_first_line_says_how_long_a_profile_took_and_where(
    storage: Storage, profiled: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {
        name: Cost(name, "one core", seconds, 4, "a benchmark", "a commit")
        for name, seconds in (("quick", 12.5), (OF_ATLAS, 0.88))
    }
    for module in (costs, first_line_module):
        monkeypatch.setattr(module, "costs", lambda: kept)
    told = line(storage, profiled("quick"))
    assert told.startswith("5 objects, 2 at a time, about 40 s (12.5 s a fit: profile quick on one core")
    assert line(storage, profiled("quick"), slots=64).startswith("5 objects, 5 at a time, about 13 s (")
    assert line(storage, profiled("quick"), (ATLAS,)).startswith("5 objects, 2 at a time, about 3 s (0.88 s an atlas")


@pytest.mark.parametrize(
    ("profile", "overrides", "format"),
    [("quick", ["fit.steps=999"], "auto"), ("fast", [], "auto"), ("quick", [], SPLATS_FORMAT)],
)
def test_it_says_nothing_about_time_where_nobody_measured(
    storage: Storage, profiled: Callable[..., Run], profile: str, overrides: list[str], format: str
) -> None:
    assert line(storage, profiled(profile, *overrides, format=format)) == "5 objects, 2 at a time"


def test_kept_seconds_that_cannot_be_read_end_no_run(
    storage: Storage, profiled: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = profiled("quick")

    def unread() -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(first_line_module, "costs", unread)
    assert line(storage, run) == "5 objects, 2 at a time"


def test_it_counts_what_is_there_already(storage: Storage) -> None:
    run = planned(storage, [f"o{k}" for k in range(5)], shard_size=2)
    publish_one(storage, run, ATLAS, {**shard_rows(storage, run, 0)[0], "shard": 0}, data=b"x")
    assert line(storage, run) == "5 objects, 1 of them done, 2 at a time"
    # the first shard is committed, and is not among those that are left
    assert first_line(storage, run, [1, 2], layout.STAGES, slots=8, of=5) == "5 objects, 2 of them done, 3 at a time"
    publish_all(storage, run, ATLAS)
    assert line(storage, run) == "5 objects, all done but not packed"
