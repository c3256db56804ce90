"""Layouts read back by independent readers: poses, depth and normals fit a scene that is known exactly."""

import json
from collections.abc import Callable
from pathlib import Path

import layout_readers
import numpy as np
import pytest
import two_spheres
from layout_readers import Seen

from gaussianverse.manifests.errors import LayoutError
from gaussianverse.manifests.rendering import presets, rig
from gaussianverse.manifests.rendering.layouts import ganything
from gaussianverse.manifests.rendering.layouts.names import LAYOUTS, layout_of
from gaussianverse.manifests.rendering.layouts.posed import PosedView
from gaussianverse.pipeline import cli

SIZE = 72
VIEWS = {"lgm": (100, 49.1), "gen3d": (132, 49.1), "srn": (20, 51.98948897809546), "instantmesh": (32, 50.0)}
"""Numbers of views and angles that loaders count on; the others take what there is."""


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, float], Path]:
    """Views of the two spheres, made once for each number and angle."""
    root, made = tmp_path_factory.mktemp("views"), dict[tuple[int, float], Path]()

    def get(count: int, fov: float) -> Path:
        if (count, fov) not in made:
            folder = root / f"spheres_{count}_{int(fov)}"
            made[count, fov] = two_spheres.write_views(folder, two_spheres.poses(count), fov, SIZE)
        return made[count, fov]

    return get


def check(seen: list[Seen], count: int, *, depth: float | None = None, normals: bool = False) -> None:
    """Projected vertices fill the silhouettes to a pixel; depth is exact to the fraction `depth`."""
    assert len(seen) == count
    vertices = two_spheres.vertices()
    for view in seen[:: max(1, count // 7)]:
        mask = view.alpha > 0.5
        w2c = np.linalg.inv(view.c2w)
        x, y, w = view.K @ (vertices @ w2c[:3, :3].T + w2c[:3, 3]).T
        u, v = x / w, y / w
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        edges = [columns[0], columns[-1] + 1, rows[0], rows[-1] + 1]
        np.testing.assert_allclose(edges, [u.min(), u.max(), v.min(), v.max()], atol=1)
        grown = np.pad(mask, 2)
        grown = np.any([np.roll(grown, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)], axis=0)
        assert grown[np.floor(v).astype(int) + 2, np.floor(u).astype(int) + 2].all()
        # colours are those of the normals, so an image that is mirrored or of another view differs
        hit, exact, normal = two_spheres.cast(view.c2w, view.K[0, 0], len(mask))
        inside = hit & (view.alpha > 0.99)
        assert inside.sum() > 100
        shown = view.rgb[inside] * 2 - 1
        assert np.median(np.abs(shown - normal[inside])) < 0.03
        if depth is not None:
            assert view.depth is not None
            np.testing.assert_allclose(view.depth[inside], exact[inside], rtol=depth)
            assert not view.depth[~hit].any()
        if normals:
            assert view.normal is not None
            assert (view.normal[inside] * normal[inside]).sum(-1).min() > 0.99
            assert cosines_with_depth(view, inside) > 0.99


def cosines_with_depth(view: Seen, inside: np.ndarray) -> float:
    """Median cosine of the normals with those of the depth's gradient, where all four neighbours are inside."""
    assert view.depth is not None
    assert view.normal is not None
    size = len(inside)
    u, v = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(view.K).T
    points = (rays * view.depth[..., None]) @ view.c2w[:3, :3].T + view.c2w[:3, 3]
    right, down = np.roll(points, -1, 1) - np.roll(points, 1, 1), np.roll(points, -1, 0) - np.roll(points, 1, 0)
    facing = np.cross(down, right)
    facing /= np.maximum(np.linalg.norm(facing, axis=-1, keepdims=True), 1e-12)
    whole = inside & np.all([np.roll(inside, step, axis) for step in (-1, 1) for axis in (0, 1)], axis=0)
    return float(np.median((facing * view.normal).sum(-1)[whole]))


def write(layout: str, source: Path, root: Path, *options: str) -> None:
    assert cli.main(["views-to", layout, str(source), str(root), *options]) == 0


def test_gobjaverse(views: Callable[[int, float], Path], tmp_path: Path) -> None:
    source = views(20, 40.0)
    write("gobjaverse", source, tmp_path / "d")
    check(layout_readers.gobjaverse(tmp_path / "d", source.name), 20, depth=1e-3, normals=True)


def test_transforms(views: Callable[[int, float], Path], tmp_path: Path) -> None:
    source = views(20, 40.0)
    write("transforms", source, tmp_path / "d")
    check(layout_readers.transforms(tmp_path / "d", source.name), 20, depth=1e-3)


def test_trellis(views: Callable[[int, float], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("trellis", views(20, 40.0), tmp_path / "d", "--caption", "two balls")
    check(layout_readers.trellis(tmp_path / "d"), 20)
    err = capsys.readouterr().err
    assert "no mesh.ply and voxels, which only a fresh render knows" in err
    assert "no aesthetic_score, and TRELLIS leaves out objects below its min_aesthetic_score" in err


def test_lgm(views: Callable[[int, float], Path], tmp_path: Path) -> None:
    write("lgm", views(*VIEWS["lgm"]), tmp_path / "d")
    check(layout_readers.lgm(tmp_path / "d"), 100)


def test_gen3d(views: Callable[[int, float], Path], tmp_path: Path) -> None:
    write("gen3d", views(*VIEWS["gen3d"]), tmp_path / "d")
    check(layout_readers.gen3d(tmp_path / "d"), 132)


def test_srn(views: Callable[[int, float], Path], tmp_path: Path) -> None:
    write("srn", views(*VIEWS["srn"]), tmp_path / "d", "--category", "balls", "--split", "test")
    check(layout_readers.srn(tmp_path / "d", "balls", "test"), 20)


def test_zero123(views: Callable[[int, float], Path], tmp_path: Path) -> None:
    write("zero123", views(20, 40.0), tmp_path / "d")
    check(layout_readers.zero123(tmp_path / "d", 40.0), 12)


def test_instantmesh(views: Callable[[int, float], Path], tmp_path: Path) -> None:
    write("instantmesh", views(*VIEWS["instantmesh"]), tmp_path / "d")
    seen = layout_readers.instantmesh(tmp_path / "d")
    check(seen, 32, depth=6 / 255 / 2 / 1.3)  # 8 bits of 6 units, at a distance of more than 1.3
    for view in seen[::5]:
        hit, _, normal = two_spheres.cast(view.c2w, view.K[0, 0], SIZE)
        assert view.normal is not None
        inside = hit & (view.alpha > 0.99)
        assert (view.normal[inside] * normal[inside]).sum(-1).min() > 0.99


def test_ganything(views: Callable[[int, float], Path], tmp_path: Path) -> None:
    write("ganything", views(*VIEWS["instantmesh"]), tmp_path / "d", "--uid", "balls", "--caption", "two balls")
    chunks = layout_readers.ganything(tmp_path / "d")
    assert list(chunks) == ["none/0/balls/1", "none/0/balls/2"]
    for name, seen in chunks.items():
        check(seen, 16, depth=1e-3, normals=True)
        assert (tmp_path / "d" / name / "caption.txt").read_text() == "two balls"
        assert (tmp_path / "d" / name / "ins.txt").read_text() == "none/0/balls"
    points = layout_readers.ply_points(tmp_path / "d" / "pcd" / "none/0/balls" / "fps-4096.ply")
    assert points.shape == (4096, 3)
    assert two_spheres.off_surface(points).max() < 1e-3


def test_a_chunk_of_gobjaverses_rig_has_both_poles_and_both_rings() -> None:
    plan = presets.plan("gobjaverse", presets.Options(size=8), "")
    cameras = presets.build("gobjaverse", plan, 0, np.zeros((1, 3))).cameras
    blank = np.zeros((8, 8, 4), np.uint8)
    posed = [PosedView(str(k), blank, camera) for k, camera in enumerate(cameras)]
    chunks = ganything.order(posed)
    assert [len(chunk) for chunk in chunks] == [16] * 3
    for half in [chunk[start : start + 8] for chunk in chunks for start in (0, 8)]:
        elevations = np.degrees([posed[k].elevation for k in half])
        np.testing.assert_allclose(abs(elevations[0]), 90, atol=1e-6)
        np.testing.assert_allclose(elevations[1:5], 25, atol=1e-6)
        np.testing.assert_allclose(elevations[5:], -3, atol=1e-6)
        azimuths = np.degrees([posed[k].azimuth for k in half])
        np.testing.assert_allclose(np.diff(azimuths[1:5]) % 360, 105, atol=1e-6)
        np.testing.assert_allclose(np.diff(azimuths[5:]) % 360, 120, atol=1e-6)
    upper = [k for chunk in chunks for start in (1, 9) for k in chunk[start : start + 4]]
    assert sorted(upper) == list(range(24))


def test_rig_json_says_what_the_files_are(views: Callable[[int, float], Path], tmp_path: Path) -> None:
    source = views(20, 40.0)
    for name, place in (("transforms", source.name), ("zero123", source.name)):
        write(name, source, tmp_path / name)
        found, facts = rig.read(tmp_path / name / place)
        assert found.preset == "unknown"
        np.testing.assert_allclose([camera.c2w for camera in found.cameras], two_spheres.poses(20), atol=1e-12)
        assert facts["layout"] == name
        assert "OpenGL axes" in facts["layout_cameras"]
        assert facts["background"] == "transparent, straight alpha"
    assert "along the optical axis" in rig.read(tmp_path / "transforms" / source.name)[1]["depth"]


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_two_runs_give_the_same_bytes(views: Callable[[int, float], Path], tmp_path: Path, name: str) -> None:
    source = views(*VIEWS.get(name, (20, 40.0)))
    found = []
    for run in ("a", "b"):
        write(name, source, tmp_path / run)
        files = sorted(path for path in (tmp_path / run).rglob("*") if path.is_file())
        found.append({str(path.relative_to(tmp_path / run)): path.read_bytes() for path in files})
    assert found[0] == found[1]
    assert len(found[0]) > 8


def test_unknown_layout_names_the_near_one() -> None:
    with pytest.raises(LayoutError, match=r"unknown layout 'trelis' \(did you mean trellis\?\)"):
        layout_of("trelis")


def test_categories_become_safe_names_of_folders(views: Callable[[int, float], Path], tmp_path: Path) -> None:
    write("ganything", views(20, 40.0), tmp_path / "d", "--uid", "u", "--category", "../a b/ö&&c")
    assert list(json.loads((tmp_path / "d" / "dataset.json").read_text())) == ["_a_b__&&c"]
