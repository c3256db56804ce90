"""Parquet files of many row groups."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gaussianverse.manifests import row_groups
from gaussianverse.manifests.parquet import UNREADABLE
from gaussianverse.manifests.row_groups import GroupWriter, RowGroups

SCHEMA = pa.schema([("index", pa.int64()), ("uid", pa.string()), ("captions", pa.list_(pa.string()))])
OPTIONS = {"compression": "zstd", "use_dictionary": ["uid"], "write_statistics": ["index", "uid"]}


def groups(count: int, rows: int = 3) -> list[pa.Table]:
    made = [
        [{"index": k, "uid": f"o{k}", "captions": ["x"] * (k % 3)} for k in range(g, g + rows)] for g in range(count)
    ]
    return [pa.Table.from_pylist(group, schema=SCHEMA) for group in made]


def file_of(tables: list[pa.Table]) -> bytes:
    out = io.BytesIO()
    writer = GroupWriter(out, SCHEMA, **OPTIONS)
    for table in tables:
        writer.add(table)
    writer.finish()
    return out.getvalue()


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 14, 15, 16, 40])
def test_it_has_the_bytes_that_one_writer_of_arrow_makes(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_groups, "_BLOCK", 4)
    whole, tables = io.BytesIO(), groups(count)
    with pq.ParquetWriter(whole, SCHEMA, **OPTIONS) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=len(table))
    assert file_of(tables) == whole.getvalue()


def test_any_groups_are_read_from_a_footer_that_is_not_parsed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_groups, "WHOLE", 0)
    monkeypatch.setattr(row_groups, "_TOGETHER", 7)
    tables = groups(40)
    file = RowGroups(io.BytesIO(file_of(tables)))
    assert file.is_large
    assert (len(file), file.rows, file.schema.names) == (40, 120, SCHEMA.names)
    for start, stop in ((0, 1), (39, 40), (3, 20), (0, 40)):
        assert file.read(start, stop).equals(pa.concat_tables(tables[start:stop]))
    assert file.read(5, 6, ["uid"]).column_names == ["uid"]
    assert pa.concat_tables(file.tables(11)).equals(pa.concat_tables(tables))
    assert max(map(len, file.tables(11))) <= 11
    assert list(file.sizes()) == [3] * 40


def test_a_damaged_footer_is_an_error_of_parquet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_groups, "WHOLE", 0)
    data, rng = bytearray(file_of(groups(6))), random.Random(0)
    length = int.from_bytes(data[-8:-4], "little")
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 3, 30])):
            damaged[rng.randrange(len(data) - 8 - length, len(data))] = rng.randrange(256)
        try:
            file = RowGroups(io.BytesIO(damaged))
            file.read(0, min(2, len(file)))
        except UNREADABLE:
            continue


def resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def test_a_footer_takes_little_memory_for_each_group() -> None:
    """Arrow takes about 4 kB here for each group of three columns, 27 MB in all."""
    table = groups(1)[0]
    data = io.BytesIO(file_of([table] * 6000))
    before = resident_mb()
    row_groups_before, row_groups.WHOLE = row_groups.WHOLE, 0
    try:
        file = RowGroups(data)
    finally:
        row_groups.WHOLE = row_groups_before
    assert len(file) == 6000
    assert resident_mb() - before < 10
