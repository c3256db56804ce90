"""The table of a dataset: columns are read when they are asked for, and once for all processes."""

from __future__ import annotations

import io
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reader_datasets import publish_dataset

from gaussianverse import AtlasDataset, AtlasLoader
from gaussianverse.atlas.reader.catalogue import Catalogue
from gaussianverse.atlas.reader.table import Table
from gaussianverse.atlas.store.local import LocalStorage

ROWS = {
    "uid": [f"obj{i}" for i in range(7)], "psnr": [float(i) for i in range(7)], "n": list(range(7)),
    "captions": [["a", "b"][: i % 3] for i in range(7)], "flag": [i % 2 == 0 for i in range(7)],
}  # fmt: skip


@pytest.fixture
def data() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(ROWS), out, row_group_size=3)
    return out.getvalue()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The columns that were read, in their order."""
    found: list[str] = []
    whole = pq.ParquetFile.read

    def watched(self: Any, columns: list[str], **how: Any) -> Any:
        found.extend(columns)
        return whole(self, columns=columns, **how)

    monkeypatch.setattr(pq.ParquetFile, "read", watched)
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lost = frozenset({"obj1", "obj5"})
    return publish_dataset(tmp_path_factory.mktemp("set"), ROWS["uid"], shard_size=3, quarantined=lost)  # type: ignore[arg-type]


def values(column: Any) -> list[Any]:
    found: list[Any] = column.tolist() if isinstance(column, np.ndarray) else column.to_pylist()
    return found


@pytest.mark.parametrize("first", [[], ["n", "uid"]])
def test_columns_are_those_of_the_file_for_the_rows_that_are_kept(data: bytes, first: list[str]) -> None:
    table = Table(data)
    table.columns(first)
    table.keep(np.array([5, 0, 3]))
    table.keep(np.array([2, 0]))
    expected = {name: [column[3], column[5]] for name, column in ROWS.items()}
    assert len(table) == 2
    assert {name: values(column) for name, column in table.columns().items()} == expected
    assert list(table.columns()) == table.column_names == list(ROWS)
    assert table["captions"].to_pylist() == expected["captions"]
    assert values(table.column("psnr")) == expected["psnr"]


def test_each_column_is_read_once_and_only_if_it_is_asked_for(data: bytes, read: list[str]) -> None:
    table = Table(data)
    assert (len(table), read) == (7, [])
    table.columns(["n", "psnr"])
    table.column("n")
    assert read == ["n", "psnr"]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: table.columns(), range(8)))
    assert sorted(read) == sorted(ROWS)


def test_a_table_goes_to_another_process(data: bytes) -> None:
    for asked in ([], ["n"], list(ROWS)):
        table = Table(data)
        table.columns(asked)
        there = pickle.loads(pickle.dumps(table))
        assert {name: values(column) for name, column in there.columns().items()} == ROWS


def test_opening_reads_what_says_where_samples_lie(root: Path, read: list[str]) -> None:
    catalogue = Catalogue(LocalStorage(root))
    assert set(read) == {"uid", "status", "reason", "shard", "atlas_sample", "atlas_offset", "atlas_nbytes"}
    assert catalogue.uids(range(5)) == ["obj0", "obj2", "obj3", "obj4", "obj6"]
    AtlasDataset(root)
    assert len(read) == 14


def test_samples_read_the_columns_that_are_asked_for(root: Path, read: list[str]) -> None:
    dataset = AtlasDataset(root, columns=["psnr", "license"])
    assert next(item["row"] for item in dataset).keys() == {"psnr", "license"}
    assert set(read[7:]) == {"psnr", "license", "caption"}
    # the hashes of JSON members are of all facts
    assert len([item for item in AtlasDataset(root, columns=["psnr"], hashes=True)]) == 5
    assert "background" in read


@pytest.mark.parametrize("columns", [None, ["psnr"]])
def test_workers_share_what_was_read_before_they_were_forked(
    root: Path, read: list[str], columns: list[str] | None
) -> None:
    dataset = AtlasDataset(root, columns=columns)
    del read[:]
    loader = AtlasLoader(dataset, 2, num_workers=2, multiprocessing_context="fork")
    assert sum(len(batch["uid"]) for batch in loader) == 5
    # by this process, or it would not stand in its list
    assert set(read) == ({"caption", "psnr"} if columns else set(dataset.catalogue.row(0)) - set(OPENED))


OPENED = ("uid", "status", "shard", "reason", "atlas_sample", "atlas_offset", "atlas_nbytes")


def _child(dataset: AtlasDataset, found: Any) -> None:
    found.put([item["uid"] for item in dataset])


def test_a_fork_while_a_thread_reads_leaves_no_lock_behind(root: Path) -> None:
    dataset = AtlasDataset(root, shuffle=False)
    context = multiprocessing.get_context("fork")
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            work = [pool.submit(lambda: AtlasDataset(root).catalogue.row(0)) for _ in range(8)]
            found = context.Queue()
            child = context.Process(target=_child, args=(dataset, found))
            child.start()
            assert found.get(timeout=60) == ["obj0", "obj2", "obj3", "obj4", "obj6"]
            child.join()
            assert all(one.result() for one in work)
