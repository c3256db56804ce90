"""JSON Lines: rows survive a round trip, and faults have their lines."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaussianverse.manifests import jsonl
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.schema import CATEGORIES, Row, completed, faults_of

ROOT = Path(__file__).resolve().parents[1]
ROWS = st.builds(
    Row,
    uid=st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True),
    views=st.text(min_size=1, max_size=30),
    category=st.sampled_from([*CATEGORIES, ""]),
    caption=st.text(max_size=60),
).filter(lambda row: not faults_of(row))


def faults(path: Path) -> tuple[str, ...]:
    with pytest.raises(ManifestError) as caught:
        jsonl.read(path)
    return caught.value.faults


def write(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@given(st.lists(ROWS, min_size=1, max_size=5, unique_by=lambda row: row.uid.casefold()))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    path = tmp_path_factory.mktemp("m") / "m.jsonl"
    jsonl.write(path, rows)
    assert jsonl.read(path) == [completed(row) for row in rows]


def test_a_line_holds_the_caption_and_what_is_not_empty() -> None:
    assert jsonl.dumps(Row("a", "v")) == '{"uid": "a", "views": "v", "format": "auto", "caption": ""}'
    full = Row("a", "v", license="CC0-1.0", caption="é", category="Food")
    assert json.loads(jsonl.dumps(full)) == {
        "uid": "a", "views": "v", "format": "auto", "category": "Food", "license": "CC0-1.0", "caption": "é",
    }  # fmt: skip
    assert "é" in jsonl.dumps(full)


def test_faults_are_described_by_line_and_those_of_the_whole_file_come_first(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    given = [jsonl.Fault(7, "b"), jsonl.Fault(0, "whole"), jsonl.Fault(2, "a"), jsonl.Fault(7, "c")]
    assert jsonl.describe(path, given) == [f"{path}: whole", f"{path}:2: a", f"{path}:7: b", f"{path}:7: c"]


def test_caption_survives_line_separators_that_are_not_newlines(tmp_path: Path) -> None:
    row = Row(uid="a", views="v", caption="one\u2028two\x85three\nfour\r\nfive")
    jsonl.write(tmp_path / "m.jsonl", [row])
    assert jsonl.read(tmp_path / "m.jsonl") == [completed(row)]


def test_every_fault_is_reported_with_its_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '{"uid": "a", "views": "v"}',
        '{"uid": "b", "views": "v"',
        "",
        '{"uid": "a", "views": "w"}',
        '{"uid": "x/y", "views": "v", "category": "Vehicles"}',
        '["uid"]',
        '{"uid": "c", "uid": "d", "views": "v"}',
        '{"uid": "e", "views": "v", "caption": null}',
    )
    found = faults(path)
    expected = [
        (2, "invalid JSON"),
        (4, "duplicate uid 'a', first on line 1"),
        (5, "uid 'x/y'"),
        (6, "expected a JSON object, got list"),
        (7, "the key 'uid' occurs twice"),
        (8, "'caption' is None"),
    ]
    assert len(found) == len(expected)
    for fault, (line, message) in zip(found, expected, strict=True):
        assert fault.startswith(f"{path}:{line}: ")
        assert message in fault


@pytest.mark.parametrize("text", ["", "\n\n  \n"])
def test_empty_manifest(text: str, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(text)
    assert "the manifest is empty" in faults(tmp_path / "m.jsonl")[0]
    with pytest.raises(ManifestError, match="no rows"):
        jsonl.write(tmp_path / "n.jsonl", [])
    assert not (tmp_path / "n.jsonl").exists()


def test_absent_manifest_and_binary_file(tmp_path: Path) -> None:
    assert "cannot be read" in faults(tmp_path / "absent.jsonl")[0]
    (tmp_path / "m.jsonl").write_bytes(b"\xff\xfe\x00\x01")
    assert "invalid JSON" in faults(tmp_path / "m.jsonl")[0]


def test_views_become_absolute_and_urls_stay(tmp_path: Path) -> None:
    rows = [Row("a", "objects/a"), Row("b", "/abs/b"), Row("c", "s3://bucket/c.tar"), Row("d", "../d")]
    resolved = [row.views for row in jsonl.resolve_views(rows, tmp_path)]
    root = tmp_path.resolve()
    assert resolved == [str(root / "objects/a"), "/abs/b", "s3://bucket/c.tar", str(root.parent / "d")]


def test_append_starts_a_manifest_and_refuses_a_second_row_of_one_uid(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    jsonl.append(path, Row("a", "a"))
    jsonl.append(path, Row("b", "b"))
    assert [row.uid for row in jsonl.read(path)] == ["a", "b"]
    before = path.read_bytes()
    for row in (Row("a", "elsewhere"), Row("c/d", "c")):
        with pytest.raises(ManifestError):
            jsonl.append(path, row)
    assert path.read_bytes() == before


APPEND = """
import sys
from pathlib import Path
from gaussianverse.manifests import jsonl
from gaussianverse.manifests.schema import Row
sys.stdin.read(1)
for k in range(8):
    jsonl.append(Path(sys.argv[1]), Row(uid=f"{sys.argv[2]}_{k}", views="v"))
"""


def test_rows_that_processes_append_at_once_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "m.jsonl"
    command = [sys.executable, "-c", APPEND, str(path)]
    processes = [subprocess.Popen([*command, str(i)], stdin=subprocess.PIPE, cwd=ROOT) for i in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()  # all have been started: go
    assert [process.wait(timeout=120) for process in processes] == [0] * 4
    assert {row.uid for row in jsonl.read(path)} == {f"{i}_{k}" for i in range(4) for k in range(8)}


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    jsonl.write(path, [Row("a", "a")])
    with pytest.raises(UnicodeEncodeError):
        jsonl.write(path, [Row("a", "\ud800")])
    assert jsonl.read(path) == [Row("a", "a")]
    assert list(tmp_path.iterdir()) == [path]
