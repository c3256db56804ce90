"""Run form: row group k is shard k, sorted, deterministic, read by range."""

import io
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaussianverse.manifests import runform
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.schema import ARROW_SCHEMA, FIRST_SCHEMA, Row


def rows(n: int) -> list[Row]:
    return [Row(uid=f"{i % 7}_{i}", views=f"/data/{i}", caption=f"object {i}", category="Food") for i in range(n)]


@given(n=st.integers(1, 40), shard_size=st.integers(1, 12), seed=st.integers(0, 5))
def test_shards_are_the_sorted_rows_cut_in_order(n: int, shard_size: int, seed: int) -> None:
    shuffled = random.Random(seed).sample(rows(n), n)
    data = runform.encode(shuffled, shard_size=shard_size)
    shards = [runform.read_shard(io.BytesIO(data), k) for k in range(runform.extent_of(data).shards)]
    assert [len(shard) for shard in shards[:-1]] == [shard_size] * (len(shards) - 1)
    flat = [row for shard in shards for row in shard]
    assert [row.index for row in flat] == list(range(n))
    assert [row.uid for row in flat] == sorted(row.uid for row in shuffled)
    by_uid = {row.uid: row for row in shuffled}
    assert all(row.caption == by_uid[row.uid].caption and row.views == by_uid[row.uid].views for row in flat)


def test_bytes_depend_on_the_rows_and_not_on_their_order() -> None:
    forward = runform.encode(rows(600), shard_size=256)
    assert runform.encode(rows(600)[::-1], shard_size=256) == forward
    assert runform.encode(rows(601), shard_size=256) != forward


class Counted(io.BytesIO):
    """A file that records the byte ranges that were read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.ranges: list[tuple[int, int]] = []

    def read(self, size: int | None = -1) -> bytes:
        start = self.tell()
        data = super().read(size)
        self.ranges.append((start, start + len(data)))
        return data


def test_a_shard_is_read_without_the_other_shards() -> None:
    varied = random.Random(0)
    many = [Row(f"{i:06d}", f"/data/{i}", caption=varied.randbytes(200).hex()) for i in range(4096)]
    file = Counted(runform.encode(many))
    assert runform.read_shard(file, 7)[0].index == 7 * 256
    total = len(file.getvalue())
    assert total > 800_000
    body = [r for r in file.ranges if r[1] <= total - (64 << 10)]  # before the footer's block
    assert sum(stop - start for start, stop in body) < total / 8


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_reading_starts_no_thread_which_could_outlive_the_interpreter_and_abort_it(tmp_path: Path) -> None:
    runform.write(tmp_path / "objects.parquet", rows(600))
    program = (
        "import io, os, pathlib, sys; from gaussianverse.manifests import runform\n"
        "data = io.BytesIO(pathlib.Path(sys.argv[1]).read_bytes()); before = len(os.listdir('/proc/self/task'))\n"
        "assert [len(runform.read_shard(data, k)) for k in range(runform.extent_of(data).shards)] == [256, 256, 88]\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "objects.parquet")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "0\n"


def test_null_free_explicit_schema(tmp_path: Path) -> None:
    assert runform.write(tmp_path / "objects.parquet", [Row("a", "b")]) == 1
    table = pq.read_table(tmp_path / "objects.parquet")
    assert [(f.name, f.type, f.nullable) for f in table.schema] == [
        (f.name, f.type, f.nullable) for f in ARROW_SCHEMA
    ]
    assert table.schema.metadata == {b"gaussianverse.manifest": b"2"}
    texts = ("category", "license", "caption", "caption_source", "source_id", "split", "attribution", "fault")
    assert table.to_pylist() == [
        {"index": 0, "uid": "a", "views": "b", "format": "auto", "captions": [], "caption_sources": []}
        | dict.fromkeys(texts, "")
    ]


def test_columns_of_the_author_keep_their_types() -> None:
    given = [
        Row("b", "v", extras={"score": 0.5, "views_seen": 3, "good": True, "note": "x"}, captions=("one", "two")),
        Row("a", "v", extras={"score": 1, "views_seen": 2**40, "good": False, "note": ""}),
    ]
    data = runform.encode(given)
    assert runform.extent_of(data).kinds == {
        "good": "truth", "note": "text", "score": "number", "views_seen": "integer",
    }  # fmt: skip
    first, second = runform.read_shard(io.BytesIO(data), 0)
    assert first.extras == {"good": False, "note": "", "score": 1.0, "views_seen": 2**40}
    assert second.captions == ("one", "two")
    assert second.caption == "one"
    assert runform.row_of({**runform.flat(second), "shard": 4}) == Row(
        **{k: v for k, v in vars(second).items() if k != "index"}
    )
    assert runform.encode([runform.row_of(runform.flat(row)) for row in (second, first)]) == data


def test_the_first_edition_is_still_read(tmp_path: Path) -> None:
    values = {
        "index": [0],
        "uid": ["a"],
        "views": ["v"],
        "format": ["auto"],
        "category": ["Food"],
        "license": ["CC0-1.0"],
    }
    values |= {"caption": ["a pear"], "caption_source": ["Cap3D"], "source_id": [""]}
    pq.write_table(pa.table(values, schema=FIRST_SCHEMA), tmp_path / "objects.parquet")
    (row,) = runform.read_shard(tmp_path / "objects.parquet", 0)
    assert (row.caption, row.captions, row.caption_sources, row.split) == ("a pear", ("a pear",), ("Cap3D",), "")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "manifest is empty"),
        ([Row("a", "x"), Row("b", "y"), Row("a", "z")], "duplicate uid 'a'"),
        ([Row("a/b", "x")], "uid 'a/b'"),
        ([Row("a", "x", format="colmap")], "unknown format"),
        ([Row("a", "x", extras={"score": 1}), Row("b", "x", extras={"score": 2}), Row("c", "x")], "c: no 'score'"),
    ],
)
def test_faulty_rows_are_refused_and_nothing_is_written(bad: list[Row], message: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=message):
        runform.write(tmp_path / "objects.parquet", bad)
    assert list(tmp_path.iterdir()) == []


def test_shard_size_must_be_positive() -> None:
    with pytest.raises(ValueError, match="shard_size = 0"):
        runform.encode(rows(3), shard_size=0)


@pytest.mark.parametrize("shard", [-1, 3])
def test_absent_shard(shard: int) -> None:
    data = runform.encode(rows(30), shard_size=10)
    with pytest.raises(ManifestError, match=f"no shard {shard}; it has 0 to 2"):
        runform.read_shard(io.BytesIO(data), shard)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    pq.write_table(pa.table({"uid": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(ManifestError, match="cannot be read as Parquet"):
        runform.read_shard(tmp_path / "text", 0)
    with pytest.raises(ManifestError, match="cannot be read as Parquet"):
        runform.read_shard(tmp_path / "absent", 0)
    with pytest.raises(ManifestError, match="not a manifest in run form"):
        runform.read_shard(tmp_path / "other.parquet", 0)
