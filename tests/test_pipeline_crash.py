"""The process dies before each single call of the store; the restarted run ends with the same dataset.

Only these calls leave anything behind, so dying before one is the same as dying at any time since the one before it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pipeline_runs import build_in_process, dataset, tiny_arguments, write_manifest, write_views
from servers.memory_s3 import MemoryS3

from gaussianverse import atlas
from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.store import open_storage, s3
from gaussianverse.atlas.store.direct import Direct
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.s3 import Access
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.run import job, tasks
from gaussianverse.pipeline.run.watch import Watch

CONFIG = load("test", [*tiny_arguments()[3::2], "run.shard_size=2"])
CALLS = ("put_object", "head_object", "get_object", "delete_object", "list_objects_v2")


class Death(BaseException):
    """Not an Exception, since nothing may catch it, just as nothing catches SIGKILL."""


class Fate:
    """Counts the calls of a store and kills the process at one of them."""

    def __init__(self) -> None:
        self.calls = 0
        self.at = -1

    def wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                raise Death
            return real(*args, **options)

        return call


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A manifest of one good object and one without views."""
    folder = tmp_path_factory.mktemp("inputs")
    write_views(folder / "views" / "a")
    return str(write_manifest(folder, ["a", "b"]))


@pytest.fixture(scope="module", autouse=True)
def _once() -> Iterator[None]:
    """Make each fit once for all tests of this file; everything around it is real."""
    fit, pack, fits, atlases = tasks.fit_prepared, atlas.pack, list[Any](), dict[bytes, Any]()

    def one_fit(prepared: Any, config: Any, **options: Any) -> Any:
        if not fits:
            fits.append(fit(prepared, config, **options))
        return fits[0]

    def one_atlas(gaussians: Any, config: Any) -> Any:
        data = gaussians.to_bytes()
        if data not in atlases:
            atlases[data] = pack(gaussians, config)
        return atlases[data]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tasks, "fit_prepared", one_fit)
        patched.setattr(atlas, "pack", one_atlas)
        patched.setattr(tasks, "atlas_psnr", lambda *_: 99.0)
        patched.setattr(job, "ProgressBar", Silent)
        yield


class Silent(Watch):
    def __init__(self, *_: object) -> None: ...

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None: ...


def built(url: str, manifest: str) -> Storage:
    storage, run, base = job.plan(url, manifest, CONFIG)
    build_in_process(storage, run, CONFIG, base)
    return storage


def enumerated(url: Callable[[int], str], manifest: str, fate: Fate, expected: dict[str, bytes]) -> int:
    """Die at call 1, 2, 3, .. until a run survives; returns the number of deaths."""
    for number in range(1, 10_000):
        fate.calls, fate.at = 0, number
        try:
            built(url(number), manifest)
        except Death:
            fate.at = -1
        else:
            fate.at = -1
            return number - 1
        storage = built(url(number), manifest)
        assert dataset(storage) == expected, f"death at call {number}"
        assert storage.head(dataset_format.SUCCESS) is not None
    raise AssertionError("it never ends")


def test_death_at_every_call_of_the_file_system(
    manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process also dies between the temporary file, the link and the two syncs of one write."""
    expected = dataset(built(str(tmp_path / "whole"), manifest))
    fate = Fate()
    for name in ("get", "read", "put_if_absent", "put_unsynced", "put_file", "head", "size", "list", "delete"):
        real = getattr(LocalStorage, name)
        monkeypatch.setattr(LocalStorage, name, fate.wrapped(real))
    monkeypatch.setattr(os, "fsync", fate.wrapped(lambda _: None))
    monkeypatch.setattr(os, "link", fate.wrapped(os.link))
    deaths = enumerated(lambda n: str(tmp_path / str(n)), manifest, fate, expected)
    assert deaths > 150


def test_death_at_every_request_to_s3(manifest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client, fate = MemoryS3(), Fate()
    access = Access(client, Direct(StoreOptions(), None, None))
    monkeypatch.setattr(s3, "access_of", lambda _: access)
    expected = dataset(built("s3://bucket/whole", manifest))
    for name in CALLS:
        monkeypatch.setattr(client, name, fate.wrapped(getattr(client, name)))
    deaths = enumerated(lambda n: f"s3://bucket/{n}", manifest, fate, expected)
    assert deaths > 60
    assert dataset(open_storage("s3://bucket/1", StoreOptions())) == expected
