"""Versions and death: killed before each call of the store and run again, or begun twice at once, nothing is lost."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from pipeline_runs import TINY, build_in_process, dataset, in_process, write_inputs
from servers.memory_s3 import MemoryS3
from test_pipeline_crash import CALLS, Death, Fate, Silent

from gaussianverse.atlas.store import open_storage, s3
from gaussianverse.atlas.store.direct import Direct
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.s3 import Access
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.dataset import new_version
from gaussianverse.pipeline.dataset.versions import finished_versions
from gaussianverse.pipeline.run import job

Objects = dict[tuple[str, str], tuple[bytes, dict[str, str]]]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest that corrects one object and adds one without views, and a list that removes another."""
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder, ["a", "b", "c"])
    rows = [json.loads(line) for line in (folder / "objects.jsonl").read_text().splitlines()]
    new = [{**rows[0], "caption": "corrected"}, {**rows[0], "uid": "z", "views": "views/z"}]
    (folder / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in new))
    (folder / "other.jsonl").write_text(json.dumps({**rows[0], "caption": "another"}) + "\n")
    (folder / "gone.txt").write_text("b\n")
    return folder


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> MemoryS3:
    client = MemoryS3()
    access = Access(client, Direct(StoreOptions(), None, None))
    monkeypatch.setattr(s3, "access_of", lambda _: access)
    monkeypatch.setattr(job, "ray_executor", in_process)
    monkeypatch.setattr(job, "ProgressBar", Silent)
    return client


@pytest.fixture(scope="module")
def parent(inputs: Path) -> Objects:
    """The objects of version 1, below parent/."""
    client = MemoryS3()
    access = Access(client, Direct(StoreOptions(), None, None))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(s3, "access_of", lambda _: access)
        config = load("test", [*TINY, "run.shard_size=2"])
        storage, run, base = job.plan("s3://bucket/parent", str(inputs / "objects.jsonl"), config)
        assert build_in_process(storage, run, config, base).finalized
    return client.objects


def put(client: MemoryS3, parent: Objects, name: str) -> str:
    """Put a copy of version 1 below a prefix; returns its address."""
    client.objects |= {(b, key.replace("parent/", f"{name}/", 1)): value for (b, key), value in parent.items()}
    return f"s3://bucket/{name}"


def extended(url: str, inputs: Path, manifest: str = "new.jsonl") -> int:
    given = ["--manifest", str(inputs / manifest), "--remove", str(inputs / "gone.txt")]
    return cli.main(["extend", "--out", url, *given, "--workers", "1", "--json"])


def test_death_at_every_request(client: MemoryS3, parent: Objects, inputs: Path) -> None:
    first = dataset(open_storage(put(client, parent, "first"), StoreOptions()))
    whole = put(client, parent, "whole")
    assert extended(whole, inputs) == 0
    expected, fate = dataset(open_storage(whole, StoreOptions())), Fate()
    assert first.items() <= expected.items()
    for name in CALLS:
        setattr(client, name, fate.wrapped(getattr(client, name)))
    for number in range(1, 10_000):
        url = put(client, parent, str(number))
        fate.calls, fate.at = 0, number
        try:
            code = extended(url, inputs)
        except Death:
            fate.at = -1
        else:
            break
        storage = open_storage(url, StoreOptions())
        there = dataset(storage)
        assert first.items() <= there.items(), "version 1 is whole at any moment"
        finished = finished_versions(storage)
        assert finished in ([1], [1, 2])
        if finished == [1]:
            assert extended(url, inputs) == 0
        assert dataset(storage) == expected, f"death at request {number}"
        client.objects.clear()
    assert code == 0
    assert number > 80


@pytest.mark.parametrize(("manifests", "expected"), [(["new", "other"], [0, 5]), (["new", "new"], [0, 0])])
def test_two_drivers_at_once(
    client: MemoryS3, parent: Objects, inputs: Path, monkeypatch: pytest.MonkeyPatch, manifests: list[str],
    expected: list[int],
) -> None:  # fmt: skip
    """Both have planned before either claims the version."""
    url, planned = put(client, parent, "both"), threading.Barrier(2)
    begin, codes = new_version.begin, list[tuple[int, str]]()

    def together(*args: Any, **options: Any) -> Any:
        planned.wait(60)
        return begin(*args, **options)

    monkeypatch.setattr(new_version, "begin", together)

    def drive(name: str) -> None:
        codes.append((extended(url, inputs, f"{name}.jsonl"), name))

    threads = [threading.Thread(target=drive, args=(name,)) for name in manifests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(code for code, _ in codes) == expected
    storage, alone = open_storage(url, StoreOptions()), put(client, parent, "alone")
    monkeypatch.setattr(new_version, "begin", begin)
    assert extended(alone, inputs, f"{min(codes)[1]}.jsonl") == 0
    assert dataset(storage) == dataset(open_storage(alone, StoreOptions()))
    assert finished_versions(storage) == [1, 2]
