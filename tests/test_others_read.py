"""Tools that people have read a published dataset: webdataset, Hugging Face datasets, DuckDB, tarfile, pandas."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from reader_datasets import array_of, publish_dataset

UIDS = [f"obj{i:02d}" for i in range(9)]
GOOD = [u for u in UIDS if u != "obj04"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards; one object was quarantined."""
    return publish_dataset(tmp_path_factory.mktemp("set"), UIDS, shard_size=3, quarantined=frozenset({"obj04"}))


def shards(root: Path, stage: str = "atlas") -> list[str]:
    return [str(p) for p in sorted(root.glob(f"{stage}/*.tar"))]


def test_tarfile(root: Path) -> None:
    names = []
    for shard in shards(root):
        with tarfile.open(shard) as archive:
            names += archive.getnames()
    assert names == [f"{u}.{suffix}" for u in GOOD for suffix in ("atlas.npy", "json", "txt")]


def test_webdataset(root: Path) -> None:
    import webdataset as wds

    samples = list(wds.WebDataset(shards(root), shardshuffle=False).decode())
    assert [s["__key__"] for s in samples] == GOOD
    for sample in samples:
        assert (sample["atlas.npy"] == array_of(int(sample["__key__"][3:]), 8)).all()
        assert sample["txt"] == f"caption of {sample['__key__']}: é" == sample["json"]["caption"]


def test_webdataset_on_splats(root: Path) -> None:
    import webdataset as wds

    samples = list(wds.WebDataset(shards(root, "splats"), shardshuffle=False))
    assert [s["__key__"] for s in samples] == GOOD
    with np.load(io.BytesIO(samples[0]["splat.npz"]), allow_pickle=False) as archive:
        assert set(archive.files) == {"means", "scales", "quats", "opacities", "colors"}
    assert json.loads(samples[0]["json"])["n_gaussians"] == 61


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_datasets(root: Path, tmp_path: Path, streaming: bool) -> None:
    import datasets

    datasets.disable_progress_bars()
    loaded = datasets.load_dataset(
        "webdataset", data_files={"train": shards(root)}, split="train", cache_dir=str(tmp_path), streaming=streaming
    )
    rows = list(loaded)
    assert [r["__key__"] for r in rows] == GOOD
    for row in rows:
        index = int(row["__key__"][3:])
        np.testing.assert_array_equal(np.asarray(row["atlas.npy"], np.float32), array_of(index, 8))
        assert row["txt"] == f"caption of {row['__key__']}: é" == row["json"]["caption"]
        assert row["json"]["uid"] == row["__key__"]


def test_hugging_face_datasets_on_the_table(root: Path, tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    files = {"train": str(root / "metadata.parquet")}
    table = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert table["uid"][:] == UIDS
    assert table.filter(lambda row: row["status"] == "ok").num_rows == len(GOOD)


def test_duckdb(root: Path) -> None:
    import duckdb

    with duckdb.connect() as connection:
        query = f"select uid, license, atlas_offset, atlas_nbytes, shard from '{root}/metadata.parquet' "
        rows = connection.execute(query + "where status = 'ok' and psnr >= 23 order by uid").fetchall()
        reasons = connection.execute(
            f"select stage, reason, count(*) from '{root}/quarantine.parquet' group by all"
        ).fetchall()
    assert [r[0] for r in rows] == GOOD[3:]
    assert reasons == [("splats", "bad_input", 1)]
    uid, _, offset, nbytes, shard = rows[-1]
    data = (root / f"atlas/atlas-{shard:06d}.tar").read_bytes()[offset : offset + nbytes]
    assert (np.load(io.BytesIO(data), allow_pickle=False) == array_of(int(uid[3:]), 8)).all()
