"""A manifest by columns is the manifest by rows: the same values, and the same faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gaussianverse.manifests import authored, columns, runform
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.schema import FIELDS, Row
from gaussianverse.manifests.table import Rules

TEXTS = st.sampled_from(
    ["", "a chair", "é", "two\nlines", "\x07", "tab\t", "x" * 5000, "x" * 40000, "\u202e", "s3://b"]
)
CAPTIONS = st.none() | st.lists(st.sampled_from(["one", "two", "", "\x07"]), max_size=3)
ROW = st.fixed_dictionaries(
    {
        "uid": st.sampled_from(["a", "b", "B", "c", "d", "e f", "", "x" * 200, None]),
        "views": st.sampled_from(["v", "s3://b/k", "http://x", "", None, "v\x01", "ü"]),
        "caption": st.none() | TEXTS, "license": st.none() | TEXTS,
    },
    optional={
        "format": st.sampled_from([None, "auto", "gobjaverse", "other"]),
        "split": st.sampled_from([None, "", "train", "x"]),
        "captions": CAPTIONS, "caption_sources": CAPTIONS, "caption_source": st.sampled_from([None, "", "one"]),
        "score": st.sampled_from([None, 1.5, float("nan"), float("inf")]), "rank": st.sampled_from([None, 3]),
        "kind": st.sampled_from(["x", "two\nlines", "\x07"]), "sample": st.just("reserved"),
    },
)  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    lists = pa.list_(pa.string())
    types = {"captions": lists, "caption_sources": lists, "score": pa.float64(), "rank": pa.int32()}
    names = dict.fromkeys(name for row in rows for name in row)
    pq.write_table(
        pa.table({n: pa.array([row.get(n) for row in rows], types.get(n, pa.string())) for n in names}), path
    )


def by_rows(path: Path, rules: Rules) -> list[dict[str, Any]] | list[str]:
    try:
        return [runform.flat(row) for row in authored.read(path, strict=True, rules=rules).rows]
    except ManifestError as error:
        return list(error.faults)


def by_columns(path: Path, rules: Rules) -> list[dict[str, Any]] | list[str]:
    try:
        found = columns.read(path, rules)
    except ManifestError as error:
        return list(error.faults)
    names = [*FIELDS, *found.kinds]
    values = {name: found.column(name).to_pylist() for name in names}
    return [{name: values[name][k] for name in names} | {"fault": ""} for k in range(len(found))]


@settings(max_examples=300, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=4), st.booleans())
def test_columns_are_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], default: bool
) -> None:
    path = tmp_path_factory.mktemp("m") / "m.parquet"
    write(path, rows)
    rules = Rules({"score": 2.5, "mark": True} if default else {})
    assert by_columns(path, rules) == by_rows(path, rules)


GOOD = [
    {"uid": "a", "views": "v", "captions": ["one", "two"], "caption_sources": ["s", "t"], "score": 1.0},
    {"uid": "b", "views": "s3://b/k", "caption": "é\nx", "caption_source": "hand", "score": 2.0},
    {"uid": "c", "views": "v", "captions": [], "caption": "", "score": 3.0, "license": "MIT"},
]


def test_a_good_manifest_needs_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "m.parquet", GOOD)
    expected = by_rows(tmp_path / "m.parquet", Rules())
    monkeypatch.setattr(authored, "read", lambda *_, **__: pytest.fail("read by rows"))
    found = by_columns(tmp_path / "m.parquet", Rules())
    assert found == expected
    assert [row["captions"] for row in found] == [["one", "two"], ["é\nx"], []]  # type: ignore[index]


def test_a_run_form_is_read_by_columns_if_it_is_what_it_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "objects.parquet"
    rows = [Row(f"o{k}", f"v/{k}", caption="a ball", extras={"score": k}) for k in range(5)]
    runform.write(path, rows, shard_size=2)
    table = pq.read_table(path)
    pq.write_table(table.take([1, 0, 2, 3, 4]), tmp_path / "unsorted.parquet", row_group_size=2)
    assert "not sorted by uid" in str(by_columns(tmp_path / "unsorted.parquet", Rules()))
    pq.write_table(table, tmp_path / "groups.parquet", row_group_size=3)
    assert by_columns(tmp_path / "groups.parquet", Rules()) == by_columns(path, Rules())
    monkeypatch.setattr(authored, "read", lambda *_, **__: pytest.fail("read by rows"))
    assert [row["score"] for row in by_columns(path, Rules())] == [0, 1, 2, 3, 4]  # type: ignore[index]


def test_a_text_is_read_by_rows_with_the_same_result(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"uid": "a", "views": "v", "n": 1}\n{"uid": "b", "views": "v", "n": 2.5}\n')
    found = columns.read(tmp_path / "m.jsonl")
    assert (found.kinds, found.column("n").to_pylist()) == ({"n": "number"}, [1.0, 2.5])
    (tmp_path / "m.jsonl").write_text('{"uid": "a", "views": "v", "n": 1}\n{"uid": "b", "views": "v", "n": "x"}\n')
    with pytest.raises(ManifestError, match="a column has one type"):
        columns.read(tmp_path / "m.jsonl")
