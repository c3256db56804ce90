"""Meshes drawn straight into layouts: the same bytes as from renders that exist, and what only a mesh can give."""

import json
from pathlib import Path

import layout_readers
import numpy as np
import pytest
from glb import Glb, box

from gaussianverse.fitter.views import load_views
from gaussianverse.manifests import jsonl
from gaussianverse.manifests.rendering import fresh
from gaussianverse.manifests.rendering.meshes import load_mesh
from gaussianverse.pipeline import cli


@pytest.fixture(scope="module")
def mesh(egl: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two boxes of different sizes, which no mirroring maps to themselves."""
    path = tmp_path_factory.mktemp("mesh") / "two boxes.glb"
    vertices, faces = box()
    small = 0.3 * np.asarray(vertices) + [1.0, 0.5, -0.7]
    glb = Glb().add(vertices, faces, factor=(1, 0, 0, 1)).add(small, faces, factor=(0, 0, 1, 1))
    path.write_bytes(bytes(glb))
    return path


def files(folder: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: data for name, data in found.items() if not name.endswith("rig.json")}


@pytest.mark.parametrize("layout", ["lgm", "ganything"])
def test_renders_that_exist_and_fresh_ones_give_the_same_bytes(mesh: Path, tmp_path: Path, layout: str) -> None:
    options = ["--size", "48", "--preset", "gobjaverse"]
    assert cli.main(["render", str(mesh), str(tmp_path / "two_boxes"), *options]) == 0
    assert cli.main(["views-to", layout, str(tmp_path / "two_boxes"), str(tmp_path / "a"), "--points", "fps:9"]) == 0
    fresh = ["render", str(mesh), str(tmp_path / "b"), *options, "--layout", layout, "--points", "fps:9"]
    assert cli.main(fresh) == 0
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert len(files(tmp_path / "a")) > 20


def test_trellis_gets_the_mesh_in_the_world_of_its_cameras(
    mesh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import trimesh

    argv = ["render", str(mesh), str(tmp_path / "d"), "--layout", "trellis", "--preset", "trellis", "--size", "64"]
    assert cli.main(argv) == 0
    assert "mesh.ply" not in capsys.readouterr().err
    cond = ["--layout", "trellis", "--preset", "trellis-cond", "--size", "64"]
    assert cli.main(["render", str(mesh), str(tmp_path / "d"), *cond]) == 0
    assert (tmp_path / "d" / "metadata.csv").read_text().splitlines()[1].split(",")[4:6] == ["True", "True"]
    (folder,) = (tmp_path / "d" / "renders").iterdir()
    assert (tmp_path / "d" / "renders_cond" / folder.name / "023.png").exists()
    written = trimesh.load(folder / "mesh.ply", process=False)
    assert written.faces.shape == (24, 3)
    assert np.ptp(written.vertices, axis=0).max() == pytest.approx(1, abs=1e-6)
    expected = load_mesh(mesh, extent=1.0).points
    np.testing.assert_allclose(np.sort(written.vertices, axis=0), np.sort(expected, axis=0), atol=1e-6)
    seen = layout_readers.trellis(tmp_path / "d")
    assert len(seen) == 150
    for view in seen[::10]:
        w2c = np.linalg.inv(view.c2w)
        x, y, w = view.K @ (written.vertices @ w2c[:3, :3].T + w2c[:3, 3]).T
        rows, columns = (np.flatnonzero((view.alpha > 0.5).any(axis=axis)) for axis in (1, 0))
        edges = [columns[0], columns[-1] + 1, rows[0], rows[-1] + 1]
        ends = [(x / w).min(), (x / w).max(), (y / w).min(), (y / w).max()]
        np.testing.assert_allclose(edges, np.clip(ends, 0, 64), atol=1)
    centres = np.asarray(trimesh.load(tmp_path / "d" / "voxels" / f"{folder.name}.ply").vertices)
    _, away, _ = trimesh.proximity.closest_point_naive(written, centres[::20])
    assert away.max() < 3**0.5 / 128
    assert (tmp_path / "d" / "metadata.csv").read_text().splitlines()[1].split(",")[6:8] == [
        "True",
        str(len(centres)),
    ]
    transforms = json.loads((folder / "transforms.json").read_text())
    assert transforms["scale"] == pytest.approx(load_mesh(mesh, extent=1.0).scale)


def test_points_of_the_surface_lie_on_the_mesh_in_the_world_of_its_views(mesh: Path, tmp_path: Path) -> None:
    import trimesh

    argv = ["render", str(mesh), str(tmp_path / "d"), "--layout", "transforms", "--size", "32", "--uid", "u"]
    assert cli.main([*argv, "--points", "surface:500", "--points", "fps:200", "--voxels", "16"]) == 0
    loaded = load_mesh(mesh)
    triangles = np.concatenate([part.vertices[part.faces] for part in loaded.parts])
    whole = trimesh.Trimesh(**trimesh.triangles.to_kwargs(triangles))
    for name, count in (("surface-500", 500), ("fps-200", 200)):
        points = layout_readers.ply_points(tmp_path / "d" / "u" / f"{name}.ply")
        assert len(points) == count
        assert trimesh.proximity.closest_point_naive(whole, points)[1].max() < 1e-3
    assert (tmp_path / "d" / "u" / "voxels-16.ply").exists()


def test_a_list_goes_on_and_one_wish_of_a_loader_is_said_once(
    mesh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "list.csv"
    bad = tmp_path / "bad.glb"
    bad.write_bytes(b"no mesh")
    listed.write_text(f"mesh,uid,category\n{mesh},a,Food\n{mesh},b,\n{bad},c,\n")
    argv = ["render", "--list", str(listed), str(tmp_path / "d"), "--layout", "lgm", "--size", "16", "--jobs", "2"]
    assert cli.main(argv) == 1
    printed = capsys.readouterr()
    assert printed.err.count("LGM takes 49.1 for granted") == 1
    assert f"failed: {bad}" in printed.err
    assert "2 drawn, 0 there before, 1 failed; root:" in printed.out
    before = files(tmp_path / "d")
    assert cli.main(argv) == 1
    assert "0 drawn, 2 there before, 1 failed" in capsys.readouterr().out
    assert files(tmp_path / "d") == before
    assert (tmp_path / "d" / "objects.txt").read_text() == "a\nb\n"
    other = [*argv[:-2], "--albedo", "--jobs", "1"]
    assert cli.main(other) == 1
    assert "there already, with other shading" in capsys.readouterr().err


def test_layouts_that_fits_read_get_a_manifest(mesh: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"{mesh}\n")
    many = ["render", "--list", str(listed), str(tmp_path / "d"), "--layout", "transforms", "--size", "16"]
    assert cli.main([*many, "--jobs", "1"]) == 0
    one = ["render", str(mesh), str(tmp_path / "e"), "--layout", "gobjaverse", "--size", "16", "--uid", "other"]
    assert cli.main([*one, "--manifest", str(tmp_path / "d" / "objects.jsonl")]) == 0
    rows = jsonl.read(tmp_path / "d" / "objects.jsonl")
    assert [(row.uid, row.format) for row in rows] == [("two_boxes", "transforms"), ("other", "gobjaverse")]
    for row in jsonl.resolve_views(rows, tmp_path / "d"):
        assert len(load_views(row.views, row.format)) == 40


def test_options_that_do_not_go_together_are_refused(
    mesh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["render", str(mesh), str(tmp_path / "d")]
    assert cli.main([*argv, "--points", "fps:9"]) == 2
    assert "--points and --voxels are for --layout" in capsys.readouterr().err
    assert cli.main([*argv, "--layout", "lgm", "--manifest", str(tmp_path / "m.jsonl")]) == 1
    assert "fits do not read layout lgm; those that they read are gobjaverse, transforms" in capsys.readouterr().err
    assert cli.main([*argv, "--layout", "nerf"]) == 1
    assert "unknown layout 'nerf'" in capsys.readouterr().err
    assert cli.main([*argv, "--layout", "lgm", "--size", "0"]) == 1
    assert not (tmp_path / "d").exists()
    assert (
        cli.main([*argv, "--layout", "instantmesh", "--preset", "instantmesh", "--size", "9", "--no-geometry"]) == 1
    )
    assert "32 of 32 views have no depths" in capsys.readouterr().err


def test_an_object_of_other_settings_is_not_taken_for_finished(
    mesh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["render", str(mesh), str(tmp_path / "d"), "--layout", "transforms", "--preset", "lgm", "--size", "8"]
    assert cli.main([*argv, "--no-geometry"]) == 0
    before = files(tmp_path / "d")
    for option, named in (
        (["--extent", "0.5"], "depth, offset, scale, units"),
        ([], "depth"),
        (["--no-geometry"], ""),
    ):
        assert cli.main([*argv, *option]) == (1 if named else 0)
        found = capsys.readouterr()
        assert all(f"{name}" in found.err.partition("there already")[2] for name in named.split(", "))
        assert "which were there" in found.out or named
    (tmp_path / "d" / "two_boxes" / "rig.json").write_text("{")
    assert cli.main([*argv, "--no-geometry"]) == 1
    assert f"{tmp_path / 'd' / 'two_boxes' / 'rig.json'}: damaged; remove its folder" in capsys.readouterr().err
    (tmp_path / "d" / "two_boxes" / "rig.json").unlink()
    assert {name for name in files(tmp_path / "d") if name not in before} == set()


def test_cameras_that_a_layout_cannot_hold_are_refused_before_drawing(
    mesh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(*_: object, **__: object) -> None:
        raise AssertionError("drawn")

    monkeypatch.setattr(fresh, "Renderer", drawn)
    for layout, options, message in (
        ("gen3d", [], "40 views, and Gen-3Diffusion reads 132; render with --preset gen3d"),
        ("srn", ["--preset", "lgm"], "render with --fov 51.9895"),
        ("ganything", ["--no-geometry"], "40 of 40 views have no depths"),
    ):
        assert cli.main(["render", str(mesh), str(tmp_path / layout), "--layout", layout, *options]) == 1
        assert message in capsys.readouterr().err


def test_farthest_points_of_an_object_that_leaves_their_cube_are_refused(
    mesh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["render", str(mesh), "--layout", "instantmesh", "--preset", "instantmesh", "--size", "24"]
    assert cli.main([*argv, str(tmp_path / "d"), "--points", "fps:50"]) == 1
    assert "of the pixels lie out of the cube +-0.45" in capsys.readouterr().err
    assert cli.main([*argv, str(tmp_path / "e"), "--points", "fps:50", "--extent", "0.9"]) == 0
    points = layout_readers.ply_points(tmp_path / "e" / "rendering_random_32views" / "two_boxes" / "fps-50.ply")
    np.testing.assert_allclose(np.abs(points).max(), 0.45, atol=0.02)
