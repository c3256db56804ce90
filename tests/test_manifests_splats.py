from pathlib import Path

import pytest

from gaussianverse.manifests import splats
from gaussianverse.manifests.errors import ManifestError


def objects(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def test_folders_with_a_point_cloud_and_files_become_rows(tmp_path: Path) -> None:
    root = objects(
        tmp_path, "1923/9611649/point_cloud.ply", "1923/9611649/gs2sphere.npy", "1923/77/point_cloud.npy",
        "vase.ply", "notes.txt", "empty/x.txt", "point_cloud_of_mine.ply",
    )  # fmt: skip
    rows = splats.build(root, captions={"1923/77": "a cat", "vase": "a vase", "of another": "x"}, caption_source="me")
    assert [(r.uid, r.views, r.source_id, r.caption, r.caption_source) for r in rows] == [
        ("point_cloud_of_mine", "point_cloud_of_mine.ply", "point_cloud_of_mine", "", ""),
        ("vase", "vase.ply", "vase", "a vase", "me"),
        ("1923_77", "1923/77", "1923/77", "a cat", "me"),
        ("1923_9611649", "1923/9611649", "1923/9611649", "", ""),
    ]
    assert {r.format for r in rows} == {"splats"}
    assert {r.format for r in splats.build(root, swap_red_blue=True)} == {"splats-bgr"}


def test_a_caption_may_go_by_uid(tmp_path: Path) -> None:
    (row,) = splats.build(objects(tmp_path, "1/2/point_cloud.ply"), captions={"1_2": "by uid"}, license="CC0-1.0")
    assert (row.caption, row.license) == ("by uid", "CC0-1.0")


def test_what_lies_below_an_object_is_its_own(tmp_path: Path) -> None:
    rows = splats.build(objects(tmp_path, "a/point_cloud.ply", "a/old/point_cloud.ply"))
    assert [r.uid for r in rows] == ["a"]


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no objects; expected folders with point_cloud\.ply or"):
        splats.build(objects(tmp_path, "a/b.txt"))
    with pytest.raises(ManifestError, match="cannot be read: No such file"):
        splats.build(tmp_path / "nowhere")
    with pytest.raises(ManifestError, match=r"c d/e.*uid 'c d_e'.*rename it"):
        splats.build(objects(tmp_path, "c d/e/point_cloud.ply"))
