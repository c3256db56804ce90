"""Check: every fault with its line, and views read by a probe."""

from pathlib import Path

import pytest

from gaussianverse.fitter.views import load_views
from gaussianverse.manifests.check import check
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.schema import Row


def manifest(tmp_path: Path, n: int) -> Path:
    path = tmp_path / "m.jsonl"
    path.write_text("".join(f'{{"uid": "o{i}", "views": "o{i}", "caption": "c"}}\n' for i in range(n)))
    return path


def test_clean_manifest(tmp_path: Path) -> None:
    assert check(manifest(tmp_path, 3)) == []


def test_faults_of_all_kinds_in_the_order_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "with:colon.jsonl"
    path.write_text(
        '{"uid": "a", "views": "v", "caption": " "}\n'
        '{"uid": "a", "views": "v", "caption": "c"}\n'
        "nonsense\n"
        '{"uid": "b", "views": "v"}\n'
        '{"uid": "c", "views": "gs://bucket/c", "caption": "c"}\n'
    )
    found = [fault.removeprefix(f"{path}:") for fault in check(path)]
    assert [fault.split(":")[0] for fault in found] == ["1", "2", "3", "4", "5"]
    words = ("no caption", "duplicate uid", "invalid JSON", "no caption", "only paths and s3://")
    for fault, word in zip(found, words, strict=True):
        assert word in fault


def test_empty_manifest_is_a_fault_and_an_absent_one_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").touch()
    assert ["empty" in fault for fault in check(tmp_path / "m.jsonl")] == [True]
    with pytest.raises(ManifestError, match="cannot be read"):
        check(tmp_path / "absent.jsonl")


def test_probe_sees_resolved_rows_and_its_exceptions_become_faults(tmp_path: Path) -> None:
    seen: list[Row] = []

    def probe(row: Row) -> None:
        seen.append(row)
        if row.uid == "o1":
            raise RuntimeError("no such folder")

    path = manifest(tmp_path, 3)
    assert check(path, probe=probe, count=3) == [f"{path}:2: 'o1': RuntimeError: no such folder"]
    assert [row.views for row in seen] == [str(tmp_path.resolve() / f"o{i}") for i in range(3)]


@pytest.mark.parametrize(("n", "count", "expected"), [(3, 10, 3), (100, 4, 4), (7, 5, 5), (5, 0, 0)])
def test_probe_takes_as_many_as_asked_from_all_over(n: int, count: int, expected: int, tmp_path: Path) -> None:
    seen: list[int] = []
    check(manifest(tmp_path, n), probe=lambda row: seen.append(int(row.uid[1:])), count=count)
    assert len(set(seen)) == len(seen) == expected
    if expected:
        assert max(seen) >= n - 1 - n // expected


def test_missing_views_folder_under_the_real_reader(tmp_path: Path) -> None:
    path = manifest(tmp_path, 1)
    (fault,) = check(path, probe=lambda row: load_views(row.views, row.format), count=1)
    assert fault.startswith(f"{path}:1: 'o0': MissingViews: ")
    assert "no such file or folder" in fault
