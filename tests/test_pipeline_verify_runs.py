"""verify notices any changed byte of journals and summaries, which no sum of the dataset lists."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pipeline_runs import planned, publish_all

from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.dataset import layout, pack
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.shards import Counts
from gaussianverse.pipeline.ops.verify import fault_of_journal, verify
from gaussianverse.pipeline.run.events import publish_summary
from gaussianverse.pipeline.run.watch import Summary


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, bytes]]:
    """Journals of committed shards, and the summaries of a call that ended and of one that stopped."""
    storage = LocalStorage(tmp_path_factory.mktemp("out"))
    run = planned(storage, ["a", "b", "c"])
    for stage in layout.STAGES:
        publish_all(storage, run, stage, quarantined={"b"})
        pack.pack(storage, run, stage, 0)
    publish_summary(storage, run, Summary(), 1e9, Counts(3, 2, {"bad_input": 1}))
    publish_summary(storage, run, Summary(), 1.1e9, stopped="KeyboardInterrupt")
    files = {entry.key: storage.get(entry.key) for entry in storage.list(layout.JOURNAL)}
    assert sorted(Path(key).suffix for key in files) == [".json", ".json", ".parquet", ".parquet"]
    assert [fault_of_journal(run, key, data) for key, data in files.items()] == [""] * 4
    return run, files


def version_in(data: bytes) -> range:
    """The place in a Parquet file of the version of pyarrow that wrote it."""
    said = pq.ParquetFile(io.BytesIO(data)).metadata.created_by.encode()
    version = said.split()[-1]
    assert data.count(said) == 1
    end = data.index(said) + len(said)
    return range(end - len(version), end)


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_any_flipped_bit_is_noticed(made: tuple[Run, dict[str, bytes]], stride: int) -> None:
    """But for the digits of the version of pyarrow that wrote a journal, which may be another."""
    run, files = made
    for key, data in files.items():
        parquet = key.endswith(".parquet")
        spared = version_in(data) if parquet else range(0)
        for position in {*range(0, len(data), stride if parquet else 1)} - {*spared}:
            for bit in [position // stride % 8] if parquet else range(8):
                flipped = data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]
                assert fault_of_journal(run, key, flipped), (key, position, bit)


def test_a_version_of_pyarrow_that_is_none_is_noticed(made: tuple[Run, dict[str, bytes]]) -> None:
    run, files = made
    key = layout.journal(layout.STAGES[0], 0)
    data = files[key]
    for position in version_in(data):
        flipped = data[:position] + b"x" + data[position + 1 :]
        assert fault_of_journal(run, key, flipped)


def test_a_cut_or_empty_file_is_noticed(made: tuple[Run, dict[str, bytes]]) -> None:
    run, files = made
    for key, data in files.items():
        for part in (b"", data[:-1], data[: len(data) // 2], data + b"\n"):
            assert fault_of_journal(run, key, part), key


def test_verify_names_the_file(tmp_path: Path, made: tuple[Run, dict[str, bytes]]) -> None:
    run, files = made
    storage = LocalStorage(tmp_path)
    planned(storage, ["a", "b", "c"])
    for key, data in files.items():
        storage.put_if_absent(key, data[:-2])
    found = list(verify(storage, run))
    assert {key for key in files if any(fault.startswith(f"{key}: ") for fault in found)} == set(files)
