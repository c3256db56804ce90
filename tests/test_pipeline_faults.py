"""Every place where a run opens, reads, stats or writes, each error of the system there: no object is condemned."""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import itertools
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pipeline_runs import TINY, build_in_process, dataset, write_inputs

import gaussianverse
from gaussianverse.atlas import os_errors
from gaussianverse.atlas.store.errors import NotFound, StoreError, StoreRefused
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.s3 import S3Storage
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.dataset import layout, records
from gaussianverse.pipeline.errors import BreakerOpen, PipelineError
from gaussianverse.pipeline.run import job, tasks

CONFIG = load("test", [*TINY, "policy.pause_s=0", "policy.breaker_store_s=0"])
ROOMS = Path(gaussianverse.__file__).resolve().parent.parent
CALLS = [
    (builtins, "open"), (io, "open"), (os, "open"), (os, "stat"), (os, "lstat"), (os, "scandir"), (os, "listdir"),
    (os, "mkdir"), (os, "link"), (os, "unlink"), (os, "fstat"), (os, "preadv"), (os, "read"), (os, "fsync"),
]  # fmt: skip
MACHINES = (
    "EIO ESTALE ENOSPC EDQUOT EMFILE ENFILE ENOMEM ETIMEDOUT ECONNRESET EHOSTUNREACH EAGAIN EBUSY EROFS EPERM EACCES"
)
NUMBERS = [getattr(errno, name) for name in MACHINES.split()]


class Disk:
    """Notes each call about files below a folder as "call in file:function", and fails those of one place."""

    def __init__(self, below: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.below, self.seen, self.fails, self.number, self.left = str(below), set[str](), "", 0, 0
        self._handles: set[int] = set()
        for module, name in CALLS:
            monkeypatch.setattr(module, name, self._watched(getattr(module, name), name))

    def _watched(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(target: Any, *arguments: Any, **options: Any) -> Any:
            ours = target in self._handles if type(target) is int else self._is_below(target)
            if ours and (place := self._place(name)):
                self.seen.add(place)
                if self.fails in (place, "everywhere") and self.left:
                    self.left -= 1
                    raise OSError(self.number, os.strerror(self.number), str(target))
            found = real(target, *arguments, **options)
            if ours and type(found) is int:
                self._handles.add(found)
            return found

        return call

    def _is_below(self, target: Any) -> bool:
        return isinstance(target, str | os.PathLike) and os.fspath(target).startswith(self.below)

    @staticmethod
    def _place(name: str) -> str:
        """The function of the product that calls; "" if it is a test."""
        frame = sys._getframe(2)
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(ROOMS):
                found = path.relative_to(ROOMS).as_posix().removeprefix("gaussianverse/")
                return "" if found.startswith("tests/") else f"{name} in {found}:{frame.f_code.co_name}"
            frame = frame.f_back  # type: ignore[assignment]
        return ""


@cache
def fitted() -> dict[bytes, Any]:
    return {}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits are made once, and nobody sleeps."""
    fit = tasks.fit_prepared

    def again(prepared: Any, *arguments: Any, **options: Any) -> Any:
        key = prepared.train.images.tobytes()
        if key not in fitted():
            fitted()[key] = fit(prepared, *arguments, **options)
        return fitted()[key]

    monkeypatch.setattr(tasks, "fit_prepared", again)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def condemned(storage: LocalStorage) -> list[str]:
    keys = [layout.parse_fragment(e.key) for e in storage.list(layout.WORK)]
    return [f"{k[0]} {k[2]}" for k in keys if k and not records.read(storage, *k).ok]


def attempt(folder: Path, disk: Disk, out: str) -> tuple[LocalStorage, Exception | None]:
    """One call on an output of its own; the disk fails only after the plan."""
    fails, disk.fails = disk.fails, ""
    storage, run, base = job.plan(str(folder / out), str(folder / "objects.jsonl"), CONFIG)
    assert isinstance(storage, LocalStorage)
    disk.fails = fails
    try:
        build_in_process(storage, run, CONFIG, base)
    except (PipelineError, StoreError, NotFound) as error:
        return storage, error
    finally:
        disk.fails = ""
    return storage, None


def places(folder: Path, disk: Disk) -> list[str]:
    storage, error = attempt(folder, disk, "undisturbed")
    assert error is None
    assert condemned(storage) == []
    return sorted(disk.seen)


KNOWN = {
    "atlas/os_errors.py", "atlas/store/local.py", "fitter/sources/files.py", "fitter/sources/gobjaverse.py",
    "fitter/views.py", "foreign.py", "pipeline/run/job.py", "pipeline/run/manifest.py", "manifests/files.py",
    "manifests/intake.py", "manifests/jsonl.py",
}  # fmt: skip
"""Files that may touch a disk; what a new one does on an error of the system is decided here first."""


def test_no_error_of_the_system_at_any_place_condemns_an_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None, request: pytest.FixtureRequest
) -> None:
    write_inputs(tmp_path, ["a", "b", "c"])
    disk = Disk(tmp_path, monkeypatch)
    found = places(tmp_path, disk)
    assert len(found) > 10
    assert {place.split(" in ")[1].split(":")[0] for place in found} <= KNOWN
    expected = dataset(LocalStorage(tmp_path / "undisturbed"))
    every = request.config.getoption("--run-slow")
    for k, place in enumerate(found):
        for j, number in enumerate(NUMBERS if every else [NUMBERS[k % len(NUMBERS)]]):
            disk.fails, disk.number, disk.left = place, number, 10**9 if (k + j) % 2 or every else 1
            storage, error = attempt(tmp_path, disk, f"{k}-{j}")
            where = f"{place}: {errno.errorcode[number]}: {error}"
            assert condemned(storage) == [], where
            assert error is None or (str(error) and "\n" not in str(error)), where
            if error is None:
                continue
            # mended, the same command ends it
            storage, error = attempt(tmp_path, disk, f"{k}-{j}")
            assert error is None, where
            if k % 7 == 0:
                assert dataset(storage) == expected, where


@pytest.mark.parametrize("number", sorted(os_errors.OBJECTS))
def test_a_share_that_vanishes_with_all_views_condemns_nobody_and_comes_back(
    tmp_path: Path, quick: None, number: int
) -> None:
    manifest = write_inputs(tmp_path, ["a", "b", "c", "d", "e"])
    storage, run, base = job.plan(str(tmp_path / "out"), manifest, CONFIG)
    assert isinstance(storage, LocalStorage)
    (tmp_path / "views").rename(tmp_path / "away")
    if number != errno.ENOENT:  # what stands in its place
        (tmp_path / "views").write_text("") if number == errno.ENOTDIR else (tmp_path / "views").mkdir()
    with pytest.raises(PipelineError, match="mount the share") as caught:
        build_in_process(storage, run, CONFIG, base)
    assert caught.value.exit_code == 3
    assert "No object was quarantined" in str(caught.value)
    assert condemned(storage) == []
    if number != errno.ENOENT:
        (tmp_path / "views").unlink() if number == errno.ENOTDIR else (tmp_path / "views").rmdir()
    (tmp_path / "away").rename(tmp_path / "views")
    outcome = build_in_process(storage, run, CONFIG, base)
    assert (outcome.summary.objects, outcome.summary.quarantined) == (5, 0)
    assert outcome.finalized


def coming_back(folder: Path, fit: Callable[..., Any]) -> Callable[..., Any]:
    """A fit whose seventh call finds the share again."""
    calls = itertools.count(1)

    def late(*arguments: Any) -> Any:
        if next(calls) == 7:
            (folder / "away").rename(folder / "views")
        return fit(*arguments)

    return late


def test_a_share_that_comes_back_while_the_run_waits_leaves_the_same_bytes(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_inputs(tmp_path, ["a", "b", "c", "d", "e"])
    datasets = []
    for out in ("calm", "cut"):
        storage, run, base = job.plan(str(tmp_path / out), manifest, CONFIG)
        if out == "cut":
            (tmp_path / "views").rename(tmp_path / "away")
            monkeypatch.setattr(tasks, "fit_object", coming_back(tmp_path, tasks.fit_object))
        assert build_in_process(storage, run, CONFIG, base).summary.quarantined == 0
        datasets.append(dataset(storage))
    assert datasets[0] == datasets[1]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_output_ends_the_run_at_once_with_place_and_mend(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    manifest = write_inputs(tmp_path, ["a", "b"])
    storage, run, base = job.plan(str(tmp_path / "out"), manifest, CONFIG)
    with monkeypatch.context() as full:

        def fails(*_: Any, **__: Any) -> None:
            raise OSError(number, os.strerror(number))

        full.setattr(os, "link", fails)
        with pytest.raises(
            (PipelineError, StoreError), match=f"{tmp_path}/out/.*{os.strerror(number)}; .*free space"
        ):
            build_in_process(storage, run, CONFIG, base)
    assert isinstance(storage, LocalStorage)
    assert condemned(storage) == []
    with monkeypatch.context() as full:

        def refused(*_: Any) -> None:
            raise StoreRefused(f"{tmp_path}/out/README.md: {os.strerror(number)}; free space there")

        full.setattr(job, "finalize", refused)
        with pytest.raises(BreakerOpen, match=r"README\.md.*free space there\. All shards are there"):
            build_in_process(storage, run, CONFIG, base)
    assert build_in_process(storage, run, CONFIG, base).finalized


def test_one_object_on_a_bad_sector_costs_one_object(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_inputs(tmp_path, ["a", "b", "c"])
    disk = Disk(tmp_path / "views" / "b", monkeypatch)
    storage, run, base = job.plan(str(tmp_path / "out"), manifest, CONFIG)
    disk.fails, disk.number, disk.left = "everywhere", errno.EIO, 10**9
    outcome = build_in_process(storage, run, CONFIG, base)
    assert (outcome.summary.objects, outcome.summary.quarantined) == (3, 1)
    assert records.read(storage, "splats", 0, "b").facts["reason"] == "unreadable"


@pytest.mark.parametrize("error", [StoreError("503 SlowDown"), StoreRefused("AccessDenied"), NotFound("gone")])
@pytest.mark.parametrize("where", ["views", "output"])
def test_no_error_of_s3_at_any_call_condemns_an_object(
    tmp_path: Path,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    s3_endpoint: str,
    where: str,
    error: Exception,
    request: pytest.FixtureRequest,
) -> None:
    store = StoreOptions(endpoint_url=s3_endpoint, region="us-east-1", max_attempts=1)
    write_inputs(tmp_path / "local", ["a", "b"])
    bucket = S3Storage(f"s3://bucket/{tmp_path.name}-{where}-{type(error).__name__}/in", store)
    for path in (tmp_path / "local").rglob("*.*"):
        bucket.put_if_absent(path.relative_to(tmp_path / "local").as_posix(), path.read_bytes())
    config = replace(CONFIG, store=store)
    calls = ["get", "list"] if where == "views" else ["put_if_absent", "get", "list", "read", "size", "head"]
    if not request.config.getoption("--run-slow"):
        calls = calls[:1]
    for call in calls:
        out = f"{bucket.url}/../out-{call}".replace("/in/..", "")
        storage, run, base = job.plan(out, f"{bucket.url}/objects.jsonl", config)
        real = getattr(S3Storage, call)

        def fails(self: S3Storage, *arguments: Any, real: Any = real, out: str = out, **options: Any) -> Any:
            if (self.url.startswith(out)) == (where == "output"):
                raise error
            return real(self, *arguments, **options)

        with monkeypatch.context() as failing:
            failing.setattr(S3Storage, call, fails)
            with contextlib.suppress(PipelineError, StoreError, NotFound):
                build_in_process(storage, run, config, base)
        assert condemned(storage) == [], call  # type: ignore[arg-type]
        assert build_in_process(storage, run, config, base).summary.quarantined == 0
