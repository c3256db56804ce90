"""The verb `views-to`: many objects, going on, and inputs that are refused by name with nothing half-written."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import two_spheres
from PIL import Image

from gaussianverse.manifests.rendering.layouts import ganything, root
from gaussianverse.pipeline import cli


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of views: `full` has depth, `flat` has none."""
    folder = tmp_path_factory.mktemp("sources")
    two_spheres.write_views(folder / "full", two_spheres.poses(17), 50.0, 64)
    two_spheres.write_views(folder / "flat", two_spheres.poses(17), 50.0, 32, geometry=False)
    return folder


def write_manifest(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_manifest_gives_every_object_and_its_texts(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    caption = 'a "red", blue\nball; \u00e9\u4e16\U0001f600, \u2028 =SUM(A1)'
    manifest = write_manifest(
        tmp_path / "m.jsonl",
        {"uid": "b", "views": str(sources / "full"), "captions": [caption, "two"], "aesthetic_score": 5.5},
        {"uid": "a", "views": str(sources / "flat"), "caption": "grey", "aesthetic_score": 4.0},
        {"uid": "?", "views": "x"},
        {"uid": "s", "views": "x", "format": "splats"},
    )
    assert cli.main(["views-to", "trellis", manifest, str(tmp_path / "d"), "--default", "aesthetic_score=0.0"]) == 1
    err = capsys.readouterr().err
    assert "uid '?': only A-Z" in err
    assert "s: its format is splats" in err
    table = pandas.read_csv(tmp_path / "d" / "metadata.csv").set_index("file_identifier")
    assert json.loads(table.loc["b", "captions"]) == [caption, "two"]
    assert json.loads(table.loc["a", "captions"]) == ["grey"]
    assert table.loc["b", "aesthetic_score"] == 5.5
    assert table["rendered"].all()
    assert not table["cond_rendered"].any()
    argv = ["views-to", "ganything", manifest, str(tmp_path / "g"), "--default", "aesthetic_score=0.0"]
    assert cli.main(argv) == 1  # flat has no depth
    assert (tmp_path / "g" / "none" / "0" / "b" / "1" / "caption.txt").read_bytes() == caption.encode()
    assert json.loads((tmp_path / "g" / "dataset.json").read_text()) == {"none": ["none/0/b/1"]}


def test_what_is_lacking_is_named_and_nothing_is_half_written(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, fault in (
        ("ganything", "17 of 17 views have no depths, the first is 00000; render them anew"),
        ("instantmesh", "17 of 17 views have no depths"),
        ("gen3d", "17 views, and Gen-3Diffusion reads 132; render with --preset gen3d"),
        ("srn", "Splatter Image takes 51.9895 for granted; render with --fov 51.9895"),
    ):
        assert cli.main(["views-to", name, str(sources / "flat"), str(tmp_path / name)]) == 1
        printed = capsys.readouterr()
        assert f"error: flat: {name}: " in printed.err
        assert fault in printed.err
        assert not [path for path in files(tmp_path / name) if "flat" in path or path.endswith((".png", ".jpg"))]


def test_loaders_that_would_misread_are_warned_of_once(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"uid": uid, "views": str(sources / "flat")} for uid in "ab"]
    manifest = write_manifest(tmp_path / "m.jsonl", *rows)
    assert cli.main(["views-to", "lgm", manifest, str(tmp_path / "d")]) == 0
    err = capsys.readouterr().err
    assert err.count("the angle of view is 50.00 degrees, and LGM takes 49.1 for granted; set its option fovy") == 1
    assert err.count("17 views, and LGM reads 100") == 1


def test_a_root_of_other_things_is_left_alone(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine").write_text("x")
    assert cli.main(["views-to", "zero123", str(sources / "flat"), str(tmp_path / "d")]) == 1
    assert "not empty, and no data in layout zero123" in capsys.readouterr().err
    assert files(tmp_path / "d") == {"mine": b"x"}
    assert cli.main(["views-to", "zero123", str(sources / "flat"), str(tmp_path / "z")]) == 0
    before = files(tmp_path / "z")
    assert cli.main(["views-to", "lgm", str(sources / "flat"), str(tmp_path / "z")]) == 1
    assert "names another layout than lgm" in capsys.readouterr().err
    assert files(tmp_path / "z") == before
    (tmp_path / "file").touch()
    assert cli.main(["views-to", "lgm", str(sources / "flat"), str(tmp_path / "file")]) == 1
    assert "a file, expected a folder" in capsys.readouterr().err


def test_objects_are_added_and_those_that_are_there_are_kept(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dest = tmp_path / "d"
    for uid in ("b", "a", "b"):
        assert cli.main(["views-to", "zero123", str(sources / "flat"), str(dest), "--uid", uid]) == 0
    assert "0 of 1 objects written" in (out := capsys.readouterr().out)
    assert "1 were there" in out
    assert json.loads((dest / "valid_paths.json").read_text()) == ["a", "b"]
    before = files(dest)
    assert cli.main(["views-to", "zero123", str(sources / "full"), str(dest), "--uid", "b"]) == 1
    assert f"{dest / 'b'}: there already, with other cameras, digest" in capsys.readouterr().err
    assert cli.main(["views-to", "zero123", str(sources / "flat"), str(dest), "--uid", "b", "--caption", "new"]) == 1
    assert "with other captions" in capsys.readouterr().err
    assert cli.main(["views-to", "zero123", str(sources / "flat"), str(dest), "--uid", "a", "--points", "fps:9"]) == 1
    assert "with other points" in capsys.readouterr().err
    assert files(dest) == before


def test_a_killed_run_goes_on_and_gives_the_same_bytes(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"uid": uid, "views": str(sources / "full")} for uid in "abc"]
    manifest = write_manifest(tmp_path / "m.jsonl", *rows)
    assert cli.main(["views-to", "ganything", manifest, str(tmp_path / "whole")]) == 0
    calls = []

    def fail(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write_chunk(*args)

    write_chunk = ganything._write_chunk
    monkeypatch.setattr(ganything, "_write_chunk", fail)
    assert cli.main(["views-to", "ganything", manifest, str(tmp_path / "d")]) == 130
    assert (tmp_path / "d" / "none" / "0" / "a" / "rig.json").exists()
    assert not (tmp_path / "d" / "none" / "0" / "b").exists()
    (tmp_path / "d" / f"{root._PARTIAL}left" / "object").mkdir(parents=True)  # as a SIGKILL leaves it
    (tmp_path / "d" / f"{root._PARTIAL}left" / "object" / "half").touch()
    assert cli.main(["views-to", "ganything", manifest, str(tmp_path / "d")]) == 0
    assert files(tmp_path / "d") == files(tmp_path / "whole")


def test_bad_arguments_are_refused_before_anything_is_written(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    views = str(sources / "flat")
    for argv, fault in (
        (["nerf", views], "unknown layout 'nerf'; expected one of gobjaverse, transforms"),
        (["lgm", views, "--uid", "a b"], "uid 'a b': only A-Z a-z 0-9 _ - are allowed, at least one; give another"),
        (["lgm", views, "--caption", "bell \a"], "'caption' has characters that are not printable"),
        (["lgm", views, "--size", "0"], "size 0: expected a positive number"),
        (["lgm", views, "--points", "fps"], "points 'fps': expected fps:N or surface:N"),
        (["lgm", views, "--points", "fps:0"], "points 'fps:0'"),
        (["lgm", views, "--voxels", "0"], "--voxels 0: expected 1 to 1024 a side"),
        (["lgm", str(tmp_path / "no.jsonl")], "cannot be read"),
    ):
        assert cli.main(["views-to", *argv[:2], str(tmp_path / "d"), *argv[2:]]) == 1
        assert fault in capsys.readouterr().err
        assert not (tmp_path / "d").exists()
    assert cli.main(["views-to", "lgm", str(tmp_path / "gone"), str(tmp_path / "d")]) == 1
    assert "no such file or folder" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "d")


def test_points_lie_beside_the_views_and_on_the_surface(sources: Path, tmp_path: Path) -> None:
    import trimesh

    argv = ["views-to", "transforms", str(sources / "full"), str(tmp_path / "d"), "--points", "fps:100"]
    assert cli.main(argv) == 0
    points = np.asarray(trimesh.load(tmp_path / "d" / "full" / "fps-100.ply").vertices, np.float64)
    assert points.shape == (100, 3)
    assert two_spheres.off_surface(points).max() < 1e-3
    # each point is the farthest of all pixels from those before it
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    reach = [apart[k, :k].min() for k in range(1, len(points))]
    assert (np.diff(reach) <= 1e-6).all()
    assert reach[-1] > 0.02


def test_points_of_the_mesh_are_of_fresh_renders(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in (["--points", "surface:9"], ["--voxels", "8"]):
        assert cli.main(["views-to", "transforms", str(sources / "flat"), str(tmp_path / "d"), *option]) == 1
        assert "only a fresh render knows the mesh: gaussianverse render" in capsys.readouterr().err
        assert not (tmp_path / "d" / "flat").exists()
    few = ["views-to", "transforms", str(sources / "full"), str(tmp_path / "d"), "--points", "fps:1000000"]
    assert cli.main(few) == 1
    assert "pixels with depth on the object; render larger ones" in capsys.readouterr().err


def test_what_is_to_be_installed_is_said(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["views-to", "ganything", str(sources / "full"), str(tmp_path / "d")]
    for module in ("fpsample", "OpenEXR"):
        monkeypatch.setitem(sys.modules, module, None)
        assert cli.main(argv) == 1
        err = capsys.readouterr().err
        assert module in err
        assert "pip install 'gaussianverse[" in err


def test_sizes_shrink_and_cameras_with_them(sources: Path, tmp_path: Path) -> None:
    assert cli.main(["views-to", "transforms", str(sources / "full"), str(tmp_path / "d"), "--size", "32"]) == 0
    table = json.loads((tmp_path / "d" / "full" / "transforms.json").read_text())
    with Image.open(tmp_path / "d" / "full" / table["frames"][0]["file_path"]) as image:
        assert image.size == (32, 32)
    np.testing.assert_allclose(table["camera_angle_x"], np.radians(50), rtol=1e-9)


def test_a_camera_that_an_angle_cannot_say_is_refused_by_layouts_of_angles(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "v"
    shutil.copytree(sources / "full" / "00000", source)
    frame = {"file_path": "00000.png", "transform_matrix": np.eye(4).tolist()}
    lens = {"fl_x": 60.0, "fl_y": 60.0, "cx": 30.0, "cy": 32.0, "w": 64, "h": 64}
    (source / "transforms.json").write_text(json.dumps({**lens, "frames": [frame]}))
    assert cli.main(["views-to", "zero123", str(source), str(tmp_path / "z")]) == 1
    assert "principal point off the middle" in capsys.readouterr().err
    assert cli.main(["views-to", "transforms", str(source), str(tmp_path / "t")]) == 0
    (written,) = json.loads((tmp_path / "t" / "v" / "transforms.json").read_text())["frames"]
    assert {key: written[key] for key in lens} == lens
