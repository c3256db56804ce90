import json
import random
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pipeline_runs import planned

from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.storage import sha256_of
from gaussianverse.manifests import runform
from gaussianverse.manifests.schema import Row
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.dataset import layout, manifest_rows, run_file
from gaussianverse.pipeline.errors import PipelineError, RunConflict

REPRESENTATION = {"channels": ["x"], "dtype": "float32", "sphere_sha256": "", "plane_sha256": ""}


def manifest(count: int = 5, shard_size: int = 2) -> bytes:
    return runform.encode([Row(f"o{i}", f"v/{i}") for i in range(count)], shard_size=shard_size)


def identity_of(data: bytes, *overrides: str) -> dict[str, object]:
    return run_file.identity_of(data, load("test", overrides), REPRESENTATION)


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "out")


def test_it_says_what_is_made_of_what(storage: LocalStorage) -> None:
    data = manifest()
    run = run_file.establish(storage, data, identity_of(data))
    assert (run.n_objects, run.n_shards, run.settings.shard_size) == (5, 3, 2)
    assert run.identity["manifest_sha256"] == sha256_of(data) == sha256_of(storage.get(layout.MANIFEST))
    assert (run.fit.steps, run.atlas.size) == (160, 128)
    assert run.digest == run_file.digest_of(run.identity["config"])
    assert run.identity["versions"]["numpy"]


def test_again_it_is_the_same_and_reads_back_the_same_to_the_order_of_its_keys(storage: LocalStorage) -> None:
    data = manifest()
    runs = [
        run_file.establish(storage, data, identity_of(data)),
        run_file.establish(storage, data, identity_of(data, "ray.workers=3")),
        run_file.load(storage),
        run_file.load_cached(storage.url, StoreOptions()),
    ]
    assert len({json.dumps(run.identity) for run in runs}) == 1


@pytest.mark.parametrize(
    ("count", "overrides", "words"),
    [
        (5, ["fit.steps=7"], "config.fit.steps is 160 there, 7 here"),
        (5, ["atlas.pad=nearest"], 'config.atlas.pad is "transport" there, "nearest" here'),
        (6, [], "row 'o5' is only here"),
    ],
)
def test_another_run_in_the_same_place_is_refused_by_its_differences(
    storage: LocalStorage, count: int, overrides: list[str], words: str
) -> None:
    first, other = manifest(), manifest(count)
    run_file.establish(storage, first, identity_of(first))
    with pytest.raises(RunConflict, match=words) as caught:
        run_file.establish(storage, other, identity_of(other, *overrides))
    assert caught.value.exit_code == 5
    assert storage.get(layout.MANIFEST) == first


def test_killed_between_its_two_files_it_goes_on(storage: LocalStorage) -> None:
    data = manifest()
    run_file.establish(storage, data, identity_of(data))
    storage.delete(layout.MANIFEST)
    run_file.establish(storage, data, identity_of(data))
    assert storage.get(layout.MANIFEST) == data


def test_no_machine_credential_or_place_is_in_it(storage: LocalStorage) -> None:
    data = manifest()
    run_file.establish(storage, data, identity_of(data, "store.endpoint_url=http://10.0.0.1", "ray.address=h:1"))
    text = storage.get(layout.RUN).decode()
    assert not any(word in text for word in ("10.0.0.1", "h:1", str(storage.root), "secret"))


def test_rows_of_a_shard_are_read_without_the_whole_manifest(storage: LocalStorage) -> None:
    noise = random.Random(0)
    rows = [Row(f"o{i:04}", "v", caption=noise.randbytes(600).hex()) for i in range(4000)]
    data = runform.encode(rows, shard_size=100)
    run = run_file.establish(storage, data, identity_of(data))
    read: list[int] = []
    real = storage.read

    def counted(key: str, offset: int, nbytes: int, total: int | None = None) -> memoryview:
        read.append(nbytes)
        return real(key, offset, nbytes, total)

    storage.read = counted  # type: ignore[method-assign]
    found = manifest_rows.shard_rows(storage, run, 7)
    assert [(r["index"], r["uid"]) for r in found] == [(i, f"o{i:04}") for i in range(700, 800)]
    assert run.n_shards == 40
    assert 0 < sum(read) < len(data) / 2


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "flipped"])
def test_a_damaged_manifest_is_named(storage: LocalStorage, damage: str) -> None:
    run = planned(storage, ["a", "b"])
    path = storage.root / layout.MANIFEST
    data = path.read_bytes()
    if damage == "other":
        pq.write_table(pq.read_table(path).select(["uid"]), path)
    else:
        cut = {"cut": data[:-9], "empty": b"", "flipped": data[:100] + b"\xff" * 50 + data[150:]}
        path.write_bytes(cut[damage])
    with pytest.raises(PipelineError, match=r"objects\.parquet"):
        manifest_rows.shard_rows(storage, run, 0)


def test_a_shard_that_does_not_exist_is_named(storage: LocalStorage) -> None:
    run = planned(storage, ["a", "b"])
    with pytest.raises(PipelineError, match="no shard 1"):
        manifest_rows.shard_rows(storage, run, 1)


def test_no_run_here(storage: LocalStorage) -> None:
    with pytest.raises(NotFound, match="start one with fit-shard"):
        run_file.load(storage)


def test_differing_rows_of_a_manifest_are_named_by_column(storage: LocalStorage) -> None:
    rows = [Row(f"o{i}", f"v/{i}", caption="a ball", extras={"score": i}) for i in range(30)]
    first = runform.encode(rows)
    run_file.establish(storage, first, identity_of(first))
    changed = [replace(row, caption="a cube") if row.uid == "o3" else row for row in rows[:-1]]
    other = runform.encode(changed)
    with pytest.raises(RunConflict) as caught:
        run_file.establish(storage, other, identity_of(other))
    text = str(caught.value)
    assert "row 'o29' is only there" in text
    assert """row 'o3': caption is "a ball" there, "a cube" here""" in text
    many = runform.encode([replace(row, license="CC0-1.0") for row in rows])
    with pytest.raises(RunConflict, match="and 22 more differences"):
        run_file.establish(storage, many, identity_of(many))


def test_other_versions_of_packages_go_on_and_are_logged(
    storage: LocalStorage, caplog: pytest.LogCaptureFixture
) -> None:
    data = manifest()
    run_file.establish(storage, data, identity_of(data))
    identity = identity_of(data)
    identity |= {"versions": {**identity["versions"], "numpy": "9.9"}, "code_digest": "0" * 64}  # type: ignore[dict-item]
    again = run_file.establish(storage, data, identity)
    assert again.identity["versions"]["numpy"] != "9.9"
    assert "versions.numpy is" in caplog.text
    assert "code_digest is" in caplog.text
