"""The one checker of manifests: text and Parquet get the same rows and the same faults."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gaussianverse.manifests import authored, runform
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.schema import FIRST_SCHEMA
from gaussianverse.manifests.table import Rules, parse_default

A, B, C = ({"uid": uid, "views": f"v/{uid}"} for uid in "abc")


def text(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "m.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def parquet(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "m.parquet"
    names = dict.fromkeys(name for row in rows for name in row)
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path)
    return path


FORMS = [text, parquet]


@pytest.mark.parametrize("form", FORMS)
def test_captions_splits_and_columns_of_the_author_are_kept(form: Any, tmp_path: Path) -> None:
    rows = [
        {**B, "captions": ["x", "y"], "caption_sources": ["Cap3D", "us"], "split": "val"},
        {**A, "caption": "one", "caption_source": "Cap3D", "category": "Toys & Games"},
    ]
    rows[0] |= {"score": 1.0, "n": 1, "good": True}
    rows[1] |= {"score": 0.5, "n": 2, "good": False}
    found = authored.read(form(tmp_path, rows))
    assert found.faults == []
    first, second = found.rows
    assert (first.caption, first.captions, first.caption_sources) == ("x", ("x", "y"), ("Cap3D", "us"))
    assert (second.captions, second.caption_sources) == (("one",), ("Cap3D",))
    assert (first.split, second.category) == ("val", "Toys & Games")
    assert [row.extras for row in found.rows] == [
        {"good": True, "n": 1, "score": 1.0}, {"good": False, "n": 2, "score": 0.5},
    ]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**B, "uid": "a"}, "duplicate uid 'a', first on line 1"),
        ({**B, "uid": "A"}, "uid 'A' and 'a' on line 1 differ in case only"),
        ({**B, "uid": "../../x"}, "uid '../../x'"),
        ({**B, "uid": "x" * 300}, "300 characters, at most 128"),
        ({**B, "license": "CC0\n# owned"}, "not printable"),
        ({**B, "views": "https://x/y"}, "only paths and s3://bucket/key"),
        ({**B, "colour": "red"}, "unknown key 'colour', which most rows do not have"),
        ({**B, "psnr": 1.0}, "cannot be called 'psnr'"),
        ({**B, "split": "dev"}, "unknown split 'dev'"),
    ],
)
def test_a_faulty_row_costs_that_row_alone(form: Any, row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = form(tmp_path, [A, row, C, {**A, "uid": "d"}])
    if "psnr" in row and form is parquet:
        pytest.skip("a column of Parquet is in all rows")
    found = authored.read(path)
    (fault,) = found.faults
    assert message in fault
    assert fault.startswith(f"{path}:2: ")
    good = [r.uid for r in found.rows if not r.fault]
    assert good == ["a", "c", "d"]
    (bad,) = [r for r in found.rows if r.fault]
    assert bad.fault.startswith("line 2: ")
    assert bad.views == bad.license == ""
    with pytest.raises(ManifestError, match="m\\."):
        authored.read(path, strict=True)
    # the run form carries the faulty row, and so does what is made of it
    data = runform.encode(found.rows)
    (tmp_path / "run.parquet").write_bytes(data)
    again = authored.read(tmp_path / "run.parquet")
    assert runform.encode(again.rows) == data
    assert sorted(r.uid for r in again.rows if r.fault) == [bad.uid]


def test_uids_of_faulty_rows_are_their_own_where_they_can_be(tmp_path: Path) -> None:
    rows = [A, {**A}, {"uid": "b", "views": ""}, {"uid": "x/y", "views": "v"}, {"uid": "bad-line-2", "views": "v"}]
    found = authored.read(text(tmp_path, rows))
    assert [r.uid for r in found.rows] == ["a", "bad-line-2", "bad-line-2_", "b", "bad-line-4"]


@pytest.mark.parametrize("form", FORMS)
def test_a_value_that_a_row_lacks_is_given_once_for_all(form: Any, tmp_path: Path) -> None:
    path = form(tmp_path, [{**A, "score": 1.5}, {**B, "score": 2.0}, C])
    assert "no 'score', which other rows have" in authored.read(path).faults[0]
    found = authored.read(path, rules=Rules(defaults=dict([parse_default("score=-1"), parse_default("by=us")])))
    assert found.faults == []
    assert [r.extras for r in found.rows] == [
        {"by": "us", "score": 1.5}, {"by": "us", "score": 2.0}, {"by": "us", "score": -1.0},
    ]  # fmt: skip


def test_one_type_for_a_column(tmp_path: Path) -> None:
    found = authored.read(text(tmp_path, [{**A, "n": 1}, {**B, "n": "one"}, {**C, "n": 2}]))
    assert [f.split(": ", 1)[1] for f in found.faults] == [
        "'n' is text, integer in other rows; a column has one type"
    ]
    mixed = authored.read(text(tmp_path, [{**A, "n": 1}, {**B, "n": 0.5}, {**C, "n": 2}]))
    assert [r.extras["n"] for r in mixed.rows] == [1.0, 0.5, 2.0]
    assert all(type(r.extras["n"]) is float for r in mixed.rows)


@pytest.mark.parametrize("text_of_it", ["score", "=1", "psnr=1", "my score=1", 'x="\\u0007"', "uid=a"])
def test_defaults_of_another_form_are_named(text_of_it: str) -> None:
    with pytest.raises(ManifestError):
        parse_default(text_of_it)


@pytest.mark.parametrize(
    ("views", "good"),
    [
        ("s3://b/pre/x", True), ("s3://b/pre", True), ("s3://b/prefix/x", False), ("s3://b/pre/../x", False),
        ("/data/x", True), ("/data/../etc", False), ("v/a", False), ("../../data/y", True), ("/database", False),
    ],
)  # fmt: skip
def test_views_lie_under_the_sources_or_are_a_fault(views: str, good: bool, tmp_path: Path) -> None:
    rules = Rules(sources=("s3://b/pre/", "/data"), base="/home/me")
    found = authored.read(
        text(tmp_path, [{"uid": "a", "views": views}, {"uid": "b", "views": "/data/b"}]), rules=rules
    )
    assert [r.uid for r in found.rows if not r.fault] == (["a", "b"] if good else ["b"])


def test_parquet_as_pandas_writes_it(tmp_path: Path) -> None:
    table = pa.table(
        {
            "uid": pa.array(["b", "a"], pa.large_string()),
            "views": ["v/b", "v/a"],
            "category": pa.array(["Toys", None]).dictionary_encode(),
            "score": pa.array([1, None], pa.float32()),
            "seen": pa.array([3, 4], pa.int16()),
            "__index_level_0__": [7, 8],
        }
    ).replace_schema_metadata({"pandas": '{"index_columns": ["__index_level_0__"]}'})
    pq.write_table(table, tmp_path / "m.parquet")
    found = authored.read(tmp_path / "m.parquet", rules=Rules(defaults={"score": -1.0}))
    assert found.faults == []
    assert [(r.uid, r.category, r.extras) for r in found.rows] == [
        ("b", "Toys", {"score": 1.0, "seen": 3}), ("a", "", {"score": -1.0, "seen": 4}),
    ]  # fmt: skip


def test_columns_that_a_manifest_cannot_hold_are_named(tmp_path: Path) -> None:
    rows = [{**A, "when": [1, 2], "score": 1.0}]
    with pytest.raises(ManifestError, match="column 'when' has the type list"):
        authored.read(parquet(tmp_path, rows))
    (tmp_path / "m.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(ManifestError, match=r"m\.parquet: cannot be read as Parquet"):
        authored.read(tmp_path / "m.parquet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"uid": ["b", "a"]}, "not sorted"),
        ({"uid": ["a", "a"]}, "not sorted"),
        ({"index": [0, 5]}, "does not count the rows"),
    ],
)
def test_a_run_form_that_is_none_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    texts = ("format", "category", "license", "caption", "caption_source", "source_id")
    columns = {"index": [0, 1], "uid": ["a", "b"], "views": ["v", "w"], **{name: ["", ""] for name in texts}}
    pq.write_table(
        pa.table({**columns, "format": ["auto", "auto"], **change}, schema=FIRST_SCHEMA), tmp_path / "m.parquet"
    )
    with pytest.raises(ManifestError, match=message):
        authored.read(tmp_path / "m.parquet")


def test_rows_of_a_run_form_are_checked_as_any_others(tmp_path: Path) -> None:
    texts = ("category", "license", "caption", "caption_source", "source_id")
    columns = {"index": [0, 1], "uid": ["../../a", "b"], "views": ["v", "w"], "format": ["auto", "auto"]}
    columns |= {name: ["", ""] for name in texts}
    pq.write_table(pa.table(columns, schema=FIRST_SCHEMA), tmp_path / "m.parquet")
    found = authored.read(tmp_path / "m.parquet")
    assert [r.uid for r in found.rows if not r.fault] == ["b"]
    assert "uid '../../a'" in found.faults[0]
