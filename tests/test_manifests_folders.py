"""Rows from a folder of objects."""

import os
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
    built = folders.build(root, tmp_path / "m", captions={"a": "an apple"}, caption_source="me", license="CC0-1.0")
    assert [(row.uid, row.views, row.caption, row.caption_source) for row in built.rows] == [
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
        (("a", "A.tar"), {}, "'A' and 'a' differ in case only"),
        (("x.zip", "y.tar.xz"), {}, r"no objects.*\(2 left out: 1 \.xz files.*; 1 \.zip files, which are not read"),
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


def test_every_entry_is_taken_or_counted(tmp_path: Path) -> None:
    root = objects(
        tmp_path / "data", "a", "b.TAR", "c.tgz", "d.zip", "e.tar.xz", "f.ply", "g.glb", "h.jpg", ".git", "notes"
    )
    (root / "notes").rmdir()
    (root / "notes").touch()
    (root / "gone.tar").symlink_to(root / "nowhere")
    os.mkfifo(root / "pipe.tar")
    built = folders.build(root, tmp_path)
    assert [row.uid for row in built.rows] == ["a", "b", "c"]
    assert {reason.split(" files")[0]: count for reason, count in built.left_out.items()} == {
        ".zip": 1, ".xz": 1, ".ply": 1, ".glb": 1, ".jpg": 1, "hidden": 1, "suffixless": 1,
        "links that lead nowhere": 1, "pipes, devices and sockets": 1,
    }  # fmt: skip
    assert len(built.rows) + built.left_out.total() == len(list(root.iterdir()))
    assert folders.left_out_text({"x": 2, "a": 1}) == "3 left out: 1 a; 2 x"
