"""Thousands of malformed inputs: each gives the named error, never another exception, never a hang."""

from __future__ import annotations

import io
import json
import math
import random
import shutil
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fuzz_files import places, replaced
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pipeline_runs import planned, publish_all, write_views

from gaussianverse.atlas.dataset_format import SPLATS
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.tar import build, index
from gaussianverse.fitter import load_views
from gaussianverse.fitter.errors import FitError
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.pipeline.dataset import layout, pack, records, run_file, shards
from gaussianverse.pipeline.errors import PipelineError
from gaussianverse.pipeline.run.manifest import read_manifest

FUZZ = settings(
    max_examples=3 * settings.default.max_examples, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def damaged(data: bytes, seed: int) -> bytes:
    """Damaged data: cut, doubled, with flipped bits, or with a slice removed or overwritten."""
    draw = random.Random(seed)
    start, stop = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    kind = draw.randrange(5)
    if kind == 0:
        return data[:start]
    if kind == 1:
        return data + data[start:stop]
    if kind == 2:
        flipped = bytearray(data)
        for _ in range(draw.randrange(1, 6)):
            flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        return bytes(flipped)
    if kind == 3:
        return data[:start] + data[stop:]
    return data[:start] + draw.randbytes(stop - start) + data[stop:]


SEEDS = st.integers(0, 2**32)
KEYS = st.sampled_from(
    ["uid", "views", "format", "category", "license", "caption", "caption_source", "source_id", "extra"]
)


@FUZZ
@given(rows=st.lists(st.dictionaries(KEYS, JSON | st.just("ok"), max_size=9) | JSON, max_size=4))
def test_manifests_of_any_json(tmp_path: Path, rows: list[Any]) -> None:
    path = tmp_path / "objects.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with suppress(ManifestError, PipelineError):
        read_manifest(str(path), 2, StoreOptions())


@FUZZ
@given(seed=SEEDS, parquet=st.booleans())
def test_damaged_manifests(tmp_path: Path, seed: int, parquet: bool) -> None:
    storage = LocalStorage(tmp_path / "out")
    if parquet:
        planned(storage, ["a", "b", "c"], shard_size=2)
        data, name = storage.get(layout.MANIFEST), "objects.parquet"
    else:
        data, name = b'{"uid": "a", "views": "v"}\n{"uid": "b", "views": "w", "caption": "c"}\n', "o.jsonl"
    path = tmp_path / name
    path.write_bytes(damaged(data, seed))
    with suppress(ManifestError, PipelineError):
        read_manifest(str(path), 2, StoreOptions())


def test_a_manifest_with_a_column_whose_name_is_no_text_is_named(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "out")
    planned(storage, ["a"])
    path = tmp_path / "objects.parquet"
    path.write_bytes(storage.get(layout.MANIFEST).replace(b"caption_source", b"\xeeaption_source"))
    with pytest.raises(ManifestError, match="cannot be read as Parquet"):
        read_manifest(str(path), 2, StoreOptions())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalStorage, bytes, bytes]:
    """A store with a committed shard, a fragment and the commit record."""
    storage = LocalStorage(tmp_path_factory.mktemp("made"))
    run = planned(storage, ["a", "b"])
    publish_all(storage, run, SPLATS, quarantined={"b"})
    fragment = storage.get(layout.fragment(SPLATS, 0, "a"))
    pack.pack(storage, run, SPLATS, 0)
    return storage, fragment, storage.get(layout.commit(SPLATS, 0))


@FUZZ
@given(seed=SEEDS)
def test_damaged_fragments(made: tuple[LocalStorage, bytes, bytes], seed: int) -> None:
    _, fragment, _ = made
    data = damaged(fragment, seed)
    try:
        record = records.parse(SPLATS, 0, "a", data)
    except PipelineError:
        return
    # only the members' own bytes, which the canonical form leaves open
    assert build(record.members) == data


@FUZZ
@given(members=st.dictionaries(st.text("./ab\0é", min_size=1, max_size=6), st.binary(max_size=40), max_size=3))
def test_tars_of_any_members(members: dict[str, bytes]) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with suppress(AtlasError):
        assert all("/" not in member.name for member in index(sink.getvalue()))
    with suppress(PipelineError):
        records.parse(SPLATS, 0, "a", sink.getvalue())


class One(LocalStorage):
    """Returns the same bytes for every key."""

    def __init__(self, data: bytes) -> None:
        super().__init__("nowhere")
        self.data = data

    def get(self, key: str) -> bytes:
        return self.data


@FUZZ
@given(seed=SEEDS, by=JSON)
@example(seed=0, by=math.inf)
@example(seed=0, by=True)
def test_damaged_commit_records(made: tuple[LocalStorage, bytes, bytes], seed: int, by: Any) -> None:
    """With damaged bytes or a replaced value, a record that is read has hashes, and counts that add up."""
    commit = json.loads(made[2])
    whole = [json.dumps(replaced(commit, at, by)).encode() for at in places(commit)]
    for data in (damaged(made[2], seed), *whole):
        with suppress(PipelineError):
            record = shards.read_commit(One(data), SPLATS, 0)
            assert record["objects"] == record["samples"] + sum(record["quarantined"].values())
            assert all(type(stored["nbytes"]) is int for stored in record["files"].values())


@FUZZ
@given(seed=SEEDS, by=JSON)
@example(seed=0, by=math.nan)
def test_damaged_run_files(made: tuple[LocalStorage, bytes, bytes], seed: int, by: Any) -> None:
    """A damaged run.json that is still accepted has readable settings."""
    data = made[0].get(layout.RUN)
    frozen = json.loads(data)
    entry = replaced(frozen, random.Random(seed).choice(list(places(frozen))), by)
    for changed in (damaged(data, seed), json.dumps(entry).encode()):
        with suppress(PipelineError):
            run = run_file.load(One(changed))
            assert run.n_objects >= run.n_shards >= 1
            assert min(run.fit.steps, run.atlas.size) > 0
            assert run.families


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_views(tmp_path_factory.mktemp("views") / "ball", count=4, size=16)


@settings(FUZZ, max_examples=FUZZ.max_examples // 2)
@given(seed=SEEDS, replace=st.none() | JSON)
def test_damaged_view_folders(views: Path, tmp_path: Path, seed: int, replace: Any) -> None:
    """Damage any file of a folder of views, or replace any value of a camera."""
    draw = random.Random(seed)
    folder = tmp_path / "ball"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(views, folder)
    path = draw.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
    if replace is not None and path.suffix == ".json":
        camera = json.loads(path.read_text())
        camera[draw.choice(sorted(camera))] = replace
        path.write_text(json.dumps(camera))
    else:
        path.write_bytes(damaged(path.read_bytes(), seed))
    with suppress(FitError):
        load_views(folder, "auto", size=16, min_views=3)
