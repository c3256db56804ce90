"""Rows from a folder of objects."""

from pathlib import Path

import pytest

from gaussianverse.manifests import folders
from gaussianverse.manifests.errors import ManifestError


def objects(root: Path, *names: str) -> Path:
    root.mkdir()
    for name in names:
        if "tar" in name or "." in name:
            (root / name).touch()
        else:
            (root / name).mkdir()
    return root


def test_folders_and_archives_become_rows_relative_to_the_manifest(tmp_path: Path) -> None:
    root = objects(tmp_path / "data", "b", "a.tar", "c.tar.gz", "notes.txt", ".hidden")
    rows = folders.build(root, tmp_path / "m", captions={"a": "an apple"}, caption_source="me", license="CC0-1.0")
    assert [(row.uid, row.views, row.caption, row.caption_source) for row in rows] == [
        ("a", "../data/a.tar", "an apple", "me"),
        ("b", "../data/b", "", ""),
        ("c", "../data/c.tar.gz", "", ""),
    ]


@pytest.mark.parametrize(
    ("names", "captions", "message"),
    [
        ((), {}, "no objects"),
        (("readme.md",), {}, "no objects"),
        (("a b",), {}, "uid 'a b'.*rename"),
        (("a", "a.tar"), {}, "two objects are called 'a'"),
        (("a",), {"b": "x"}, "caption of 'b', which is not in"),
    ],
)
def test_faults(names: tuple[str, ...], captions: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=message):
        folders.build(objects(tmp_path / "data", *names), tmp_path, captions=captions)


def test_absent_root(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        folders.build(tmp_path / "absent", tmp_path)
