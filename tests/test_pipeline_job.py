"""The job without Ray: planned, run in parts, interrupted, and finished."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pipeline_runs import InProcess, build_in_process, dataset, tiny_arguments, write_inputs, write_manifest

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.store.errors import StoreError, StoreRefused
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.config import RunConfig, load
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.errors import BreakerOpen, RunConflict, UsageError
from gaussianverse.pipeline.ops import report
from gaussianverse.pipeline.run import job
from gaussianverse.pipeline.run.executor import ATLAS, Job, Task

UIDS = ["a", "b", "c"]
CONFIG = load("test", [*tiny_arguments()[3::2], "run.shard_size=2"])


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_inputs(tmp_path_factory.mktemp("inputs"), UIDS)


def planned(out: Path, manifest: str) -> tuple[Storage, Run, str]:
    return job.plan(str(out), manifest, CONFIG)


def built(out: Path, manifest: str, **options: object) -> job.Outcome:
    storage, run, base = planned(out, manifest)
    return build_in_process(storage, run, CONFIG, base, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(manifest: str, tmp_path_factory: pytest.TempPathFactory) -> job.Outcome:
    return built(tmp_path_factory.mktemp("whole") / "out", manifest)


def test_an_outcome_says_what_was_done(whole: job.Outcome) -> None:
    assert whole.finalized
    assert not whole.idle
    assert (whole.summary.shards, whole.summary.objects, whole.summary.quarantined) == (2, 3, 0)
    assert whole.complete == [0, 1]
    assert [row["uid"] for row in report.result_rows(whole.storage, whole.complete)] == UIDS


def test_again_nothing_is_launched(whole: job.Outcome, manifest: str) -> None:
    @contextmanager
    def never(config: RunConfig, job: Job) -> Iterator[InProcess]:
        raise AssertionError("launched")
        yield

    storage, run, base = planned(Path(whole.storage.url), manifest)
    outcome = build_in_process(storage, run, CONFIG, base, executor=never)
    assert outcome.idle
    assert outcome.finalized
    assert outcome.complete == whole.complete


def test_in_parts_it_is_the_same_dataset(whole: job.Outcome, manifest: str, tmp_path: Path) -> None:
    first = built(tmp_path / "out", manifest, shards="1")
    assert not first.finalized
    assert first.complete == [1]
    second = built(tmp_path / "out", manifest, shards="0", stages=(dataset_format.SPLATS,))
    assert not second.finalized
    assert second.complete == []
    third = built(tmp_path / "out", manifest, shards="0", stages=(dataset_format.ATLAS,))
    assert third.finalized
    assert dataset(third.storage) == dataset(whole.storage)


def interrupted(out: Path, manifest: str, tasks: int) -> Storage:
    """An output whose run was interrupted after `left` tasks."""

    class Dying(InProcess):
        def submit(self, task: Task) -> int:
            if len(self.names) == tasks:
                raise KeyboardInterrupt
            return super().submit(task)

    @contextmanager
    def dying(config: RunConfig, job: Job) -> Iterator[InProcess]:
        yield Dying(job)

    storage, run, base = planned(out, manifest)
    with pytest.raises(KeyboardInterrupt):
        build_in_process(storage, run, CONFIG, base, executor=dying)
    return storage


@pytest.mark.parametrize("tasks", [1, 4, 9])
def test_interrupted_after_any_task_it_goes_on_to_the_same_bytes(
    whole: job.Outcome, manifest: str, tmp_path: Path, tasks: int
) -> None:
    interrupted(tmp_path / "out", manifest, tasks)
    outcome = built(tmp_path / "out", manifest)
    assert outcome.finalized
    assert dataset(outcome.storage) == dataset(whole.storage)


def test_killed_in_finalize_it_goes_on_without_a_single_task(
    whole: job.Outcome, manifest: str, tmp_path: Path
) -> None:
    built(tmp_path / "out", manifest)
    storage = LocalStorage(tmp_path / "out")
    for key in (dataset_format.SUCCESS, dataset_format.SUMS, dataset_format.INDEX):
        storage.delete(key)
    outcome = built(tmp_path / "out", manifest)
    assert (outcome.idle, outcome.finalized) == (True, True)
    assert dataset(storage) == dataset(whole.storage)


def test_a_damaged_fragment_is_made_again(whole: job.Outcome, manifest: str, tmp_path: Path) -> None:
    storage = interrupted(tmp_path / "out", manifest, 1)
    [key] = [entry.key for entry in storage.list(layout.fragments(dataset_format.SPLATS, 0))]
    data, path = storage.get(key), tmp_path / "out" / key
    path.write_bytes(data[:700] + b"?" + data[701:])
    assert dataset(built(tmp_path / "out", manifest).storage) == dataset(whole.storage)


def test_another_manifest_in_the_same_place_is_refused(whole: job.Outcome, tmp_path: Path) -> None:
    other = write_manifest(tmp_path, ["a", "b"])
    with pytest.raises(RunConflict, match=r"row '\w+' is only"):
        planned(Path(whole.storage.url), str(other))


def test_shards_that_do_not_exist_are_refused(whole: job.Outcome, manifest: str) -> None:
    with pytest.raises(UsageError, match="shards 0 to 1"):
        built(Path(whole.storage.url), manifest, shards="0-2")


def test_the_last_shard_has_the_objects_that_are_left(whole: job.Outcome, manifest: str) -> None:
    _, run, _ = planned(Path(whole.storage.url), manifest)
    assert [run.objects_in(shard) for shard in range(run.n_shards)] == [2, 1]


def test_the_atlas_stage_needs_the_splats_shards_and_not_their_fragments(
    whole: job.Outcome, manifest: str, tmp_path: Path
) -> None:
    storage, run, base = planned(tmp_path / "out", manifest)
    build_in_process(storage, run, CONFIG, base, stages=(dataset_format.SPLATS,))
    for entry in list(storage.list(layout.WORK)):
        storage.delete(entry.key)
    assert build_in_process(storage, run, CONFIG, "", stages=(dataset_format.ATLAS,)).finalized
    assert dataset(storage) == dataset(whole.storage)


def test_a_call_leaves_its_summary_and_its_events(manifest: str, tmp_path: Path) -> None:
    storage, run, base = planned(tmp_path / "out", manifest)
    events = tmp_path / "events.jsonl"
    build_in_process(storage, run, CONFIG, base, events=events)
    (key,) = [e.key for e in storage.list("runs/summary-")]
    summary = json.loads(storage.get(key))
    assert 0 < summary["goodput"] <= 1
    assert (summary["objects"], summary["shards"], summary["retries"]) == (3, 2, 0)
    names = [json.loads(line)["event"] for line in events.read_text().splitlines()]
    assert sorted(names) == sorted(["opened"] * 2 + ["finished"] * 3 + ["ended"])
    build_in_process(storage, run, CONFIG, base)
    assert len(list(storage.list("runs/summary-"))) == 1, "a call that does nothing leaves nothing"


class Ending(InProcess):
    """Stops the run after the first fit."""

    stop: BaseException

    def submit(self, task: Task) -> int:
        if task.kind == ATLAS:
            raise self.stop
        return super().submit(task)


@pytest.mark.parametrize("stop", [BreakerOpen("the store is away"), KeyboardInterrupt()])
def test_a_call_that_stops_early_leaves_its_summary_too(manifest: str, tmp_path: Path, stop: BaseException) -> None:
    storage, run, base = planned(tmp_path / "out", manifest)

    @contextmanager
    def ending(config: RunConfig, job: Job) -> Iterator[InProcess]:
        executor = Ending(job)
        executor.stop = stop
        yield executor

    with pytest.raises(type(stop)):
        build_in_process(storage, run, CONFIG, base, executor=ending)
    (key,) = [e.key for e in storage.list("runs/summary-")]
    summary = json.loads(storage.get(key))
    assert summary["stopped"] == type(stop).__name__
    assert summary["fit_seconds"] > 0
    assert summary["shards"] == 0


def test_a_store_that_is_away_at_the_end_does_not_hide_what_stopped_the_call(
    manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    storage, run, base = planned(tmp_path / "out", manifest)

    @contextmanager
    def ending(config: RunConfig, job: Job) -> Iterator[InProcess]:
        executor = Ending(job)
        executor.stop = BreakerOpen("first")
        yield executor

    def away(*_: object, **__: object) -> str:
        raise StoreError("503")

    monkeypatch.setattr(job, "publish_summary", away)
    with pytest.raises(BreakerOpen, match="first"):
        build_in_process(storage, run, CONFIG, base, executor=ending)
    assert "the summary of this call was not published: 503" in caplog.text


def test_work_on_a_planned_run_starts_only_where_conditional_puts_hold(
    tmp_path: Path, manifest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run may have been copied, after it was planned, to a store that ignores conditions."""
    storage, run, base = planned(tmp_path / "out", manifest)

    def overwrites(self: LocalStorage, key: str, data: bytes) -> bool:
        (self.root / key).parent.mkdir(parents=True, exist_ok=True)
        (self.root / key).write_bytes(data)
        return True

    monkeypatch.setattr(LocalStorage, "put_if_absent", overwrites)
    with pytest.raises(StoreRefused, match="overwrite each other"):
        build_in_process(storage, run, CONFIG, base)
    assert not list(storage.list("_work/"))
