"""Folders of 3D Gaussians: which files are objects, and that every other one is counted."""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from test_atlas_ply import some

from gaussianverse.atlas.arrays import npy
from gaussianverse.atlas.interchange.gaussiancube import to_cube
from gaussianverse.atlas.interchange.ply import write_ply
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.pipeline.ops import splat_folders
from gaussianverse.pipeline.ops.splat_folders import Found, build

G = some(4)
PLY = write_ply(G)
POINTS = b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty float x\nend_header\n0000"


def objects(root: Path, *files: str, data: bytes = PLY) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(data)
    return root


def tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def taken(found: Found) -> dict[str, str]:
    return {row.uid: row.views for row in found.rows}


def test_folders_with_a_point_cloud_and_files_become_rows(tmp_path: Path) -> None:
    root = objects(
        tmp_path, "1923/9611649/point_cloud.ply", "1923/9611649/gs2sphere.npy", "1923/77/point_cloud.npy",
        "vase.ply", "notes.txt", "empty/x.txt", "point_cloud_of_mine.ply",
    )  # fmt: skip
    captions = {"1923/77": "a cat", "vase": "a vase", "of another": "x"}
    found = build(root, captions=captions, caption_source="me")
    assert [(r.uid, r.views, r.source_id, r.caption, r.caption_source) for r in found.rows] == [
        ("point_cloud_of_mine", "point_cloud_of_mine.ply", "point_cloud_of_mine", "", ""),
        ("vase", "vase.ply", "vase", "a vase", "me"),
        ("1923_77", "1923/77", "1923/77", "a cat", "me"),
        ("1923_9611649", "1923/9611649", "1923/9611649", "", ""),
    ]
    assert {r.format for r in found.rows} == {"splats"}
    assert {r.format for r in build(root, swap_red_blue=True).rows} == {"splats-bgr"}
    assert found.left_out_text() == "2 left out: 2 .txt files"


def test_a_caption_may_go_by_uid(tmp_path: Path) -> None:
    found = build(objects(tmp_path, "1/2/point_cloud.ply"), captions={"1_2": "by uid"}, license="CC0-1.0")
    assert [(row.caption, row.license) for row in found.rows] == [("by uid", "CC0-1.0")]


def test_every_file_is_taken_or_counted(tmp_path: Path) -> None:
    """Each file and folder of one's own is made; together they are the rows and the counts."""
    root = objects(
        tmp_path, "a/point_cloud.ply", "a/beside.ply", "a/old/point_cloud.ply", "a/old/deep/x.txt", "deep/down/B.PLY",
        "c/Point_Cloud.PLY", "f/splat.npz", ".hidden.ply", ".git/config", "s.spz", "t.SPLAT", "u.ksplat", "v.sog",
        "w.zip", "x.tar.xz", "y", "z.jpg",
    )  # fmt: skip
    objects(root, "a/input.ply", "points.ply", data=POINTS)
    objects(root, "damaged.ply", data=b"nonsense")
    objects(root, "compressed.ply", data=PLY.replace(b"element vertex", b"element chunk 1\nelement vertex"))
    objects(root, "fit.npz", "g.splat.npz", data=G.to_bytes())
    objects(root, "cube.npy", data=npy(to_cube(G)))
    objects(root, "other.npy", data=npy(np.zeros(3, np.float32)))
    objects(root, "other.npz", data=b"PK")
    for step in (7000, 30000, 999):
        objects(root, f"h/point_cloud/iteration_{step}/point_cloud.ply")
    (root / "gone.ply").symlink_to(root / "nowhere.ply")
    os.mkfifo(root / "pipe.ply")
    (root / "loop").symlink_to(root)
    found = build(root)
    assert taken(found) == {
        "a": "a", "a_beside": "a/beside.ply", "deep_down_B": "deep/down/B.PLY", "c": "c", "f": "f",
        "damaged": "damaged.ply", "compressed": "compressed.ply", "fit": "fit.npz", "g": "g.splat.npz",
        "cube": "cube.npy", "h_point_cloud_iteration_30000": "h/point_cloud/iteration_30000",
    }  # fmt: skip
    convert = "files, which are not read: convert them to .ply, for instance with PlayCanvas' splat-transform"
    unpack = "files, which are not read: unpack them, or pack them as .tar"
    assert dict(found.left_out) == {
        "hidden files and folders": 2, "files in folders below an object": 2, ".ply files without 3D Gaussians": 2,
        f".spz {convert}": 1, f".splat {convert}": 1, f".ksplat {convert}": 1, f".sog {convert}": 1,
        f".zip {unpack}": 1, f".xz {unpack}": 1, "suffixless files": 1, ".jpg files": 1, ".npy files": 1,
        ".npz files": 1, "earlier iterations of an object": 2, "links that lead nowhere": 1,
        "pipes, devices and sockets": 1, "links to a folder that is read already": 1,
    }  # fmt: skip
    assert found.left_out_text().startswith(f"{sum(found.left_out.values())} left out: 1 .jpg files; ")


def test_the_root_may_be_an_object_itself(tmp_path: Path) -> None:
    root = objects(tmp_path / "vase", "point_cloud.ply", "gs2sphere.npy")
    found = build(root)
    assert taken(found) == {"vase": "."}
    assert not found.left_out


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_samples_of_shards_are_objects_with_what_the_shard_says(tmp_path: Path, mode: str) -> None:
    name = "gaussianverse-000000.tar" + (".gz" if mode == "w:gz" else "")
    described = {"caption": "of the metadata", "tar_gz_path": "1923/9611649.tar.gz"}
    tar(tmp_path / "in" / name, {
        "abc.point_cloud.npy": b"x", "abc.gs2sphere.npy": b"x", "abc.caption.txt": "a réd ball".encode(),
        "abc.metadata.json": json.dumps(described).encode(),
        "only.caption.txt": b"of nothing", "19/7/point_cloud.ply": PLY, "19/7/cameras.json": b"[]",
        "19/7/caption.txt": b"a barrel", "./free/vase.PLY": PLY, "strange.json": b"[1]",
    }, mode)  # fmt: skip
    found = build(tmp_path / "in")
    assert taken(found) == {"abc": f"{name}#abc", "19_7": f"{name}#19/7", "free_vase": f"{name}#free/vase"}
    rows = {row.uid: row for row in found.rows}
    assert (rows["abc"].caption, rows["abc"].source_id) == ("a réd ball", "1923/9611649")
    assert (rows["19_7"].caption, rows["19_7"].source_id) == ("a barrel", "19/7")
    assert dict(found.left_out) == {"members of archives that belong to no object": 2}


def test_shards_of_this_project_keep_their_licences(tmp_path: Path) -> None:
    facts = {"caption": "a cup", "license": "CC-BY-4.0", "category": "Food", "source_id": "x/1", "n_gaussians": 4}
    members = {"u.splat.npz": G.to_bytes(), "u.json": json.dumps(facts).encode(), "u.txt": b"a cup"}
    tar(tmp_path / "splats" / "splats-000000.tar", members)
    tar(tmp_path / "atlas" / "atlas-000000.tar", {"u.atlas.npy": b"x", "u.json": b"{}", "u.txt": b""})
    objects(tmp_path, "_work/splats/000000/u.tar", "metadata.parquet")
    found = build(tmp_path)
    (row,) = found.rows
    assert (row.views, row.license, row.category, row.source_id) == (
        "splats/splats-000000.tar#u", "CC-BY-4.0", "Food", "x/1",
    )  # fmt: skip
    assert found.left_out["archives without 3D Gaussians"] == 1
    objects(tmp_path, "run.json")
    assert dict(build(tmp_path).left_out) == {splat_folders.OF_DATASET: 4}
    assert build(tmp_path, license="CC0-1.0").rows[0].license == "CC0-1.0"


def test_archives_that_cannot_be_read_are_counted_with_their_cause(tmp_path: Path) -> None:
    objects(tmp_path, "a.ply")
    whole = tar(tmp_path / "cut.tar", {"x.point_cloud.npy": bytes(5000)}).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:2000])
    (tmp_path / "zip.tar").write_bytes(b"PK\3\4" + bytes(600))
    tar(tmp_path / "texts.tar", {"x.txt": b""})
    found = build(tmp_path)
    assert taken(found) == {"a": "a.ply"}
    assert sorted(found.left_out.values()) == [1, 1, 1]
    text = found.left_out_text()
    assert "1 archives that cannot be read: cut.tar: truncated or not a tar archive" in text
    assert "zip.tar: is a zip archive" in text
    assert "1 archives without 3D Gaussians" in text
    assert str(tmp_path) not in text


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no objects; expected folders with .* \(1 left out: 1 \.txt files\)"):
        build(objects(tmp_path / "1", "a/b.txt"))
    with pytest.raises(ManifestError, match="cannot be read: No such file"):
        build(tmp_path / "nowhere")
    with pytest.raises(ManifestError, match=r"c d/e.*uid 'c d_e'.*rename it"):
        build(objects(tmp_path / "2", "c d/e/point_cloud.ply"))


@pytest.mark.parametrize("second", ["vase.PLY", "Vase.ply", "VASE/point_cloud.ply"])
def test_uids_that_some_file_systems_take_for_one_are_named(tmp_path: Path, second: str) -> None:
    with pytest.raises(ManifestError, match="one uid, or uids that differ in case only; rename all but one"):
        build(objects(tmp_path, "vase.ply", second))
