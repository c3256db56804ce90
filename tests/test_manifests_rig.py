"""Camera rig: GObjaverse's poses, proper rotations, the whole object in frame."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gaussianverse.atlas.canonical_json import json_object
from gaussianverse.fitter.errors import BadInput
from gaussianverse.fitter.sources.gobjaverse import _camera_to_world
from gaussianverse.manifests.errors import RenderError
from gaussianverse.manifests.rendering import presets, rig
from gaussianverse.manifests.rendering.presets import Options

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "gobjaverse_cameras"


TOWARD = presets.plan("gobjaverse", Options(), "").toward
FOV = presets.GOBJAVERSE_FOV


def test_cameras_are_right_handed_upright_and_look_at_the_origin() -> None:
    poses = rig.poses(TOWARD, 2.0)
    R = poses[:, :3, :3]
    np.testing.assert_allclose(R.transpose(0, 2, 1) @ R, np.tile(np.eye(3), (40, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(R), 1)
    np.testing.assert_allclose(poses[:, :3, 3], -2.0 * R[:, :, 2], atol=1e-12)
    sides = np.r_[0:25, 27:40]
    assert (R[sides, 2, 1] < 0).all()  # down is down
    np.testing.assert_allclose(R[sides, 2, 0], 0, atol=1e-12)  # the horizon is level


@pytest.mark.skipif(not DATA.is_dir(), reason="shared sample data is absent")
def test_poles_and_first_view_are_turned_as_in_real_rigs() -> None:
    """In GObjaverse's rigs of 51 views, 0 starts the ring, 37 looks down and 38 looks up."""
    folder = DATA / "9350303" / "campos_512_v1"
    for real, ours in ((37, 25), (38, 26)):
        name = f"{real:05d}/{real:05d}.json"
        pose = _camera_to_world(json_object((folder / name).read_bytes(), BadInput), name)
        np.testing.assert_allclose(rig.rotations(TOWARD)[ours], pose[:3, :3], atol=1e-6)
    first = _camera_to_world(json_object((folder / "00000/00000.json").read_bytes(), BadInput), "")
    np.testing.assert_allclose(rig.rotations(TOWARD)[0], first[:3, :3], atol=0.01)


def extremes(points: np.ndarray, radius: float, fov: float) -> np.ndarray:
    """Largest tangent of every point in every view at a distance, as a share of that of the frame."""
    viewmats = np.linalg.inv(rig.poses(TOWARD, radius))
    seen = np.einsum("vij,nj->vni", viewmats, np.c_[points, np.ones(len(points))])
    return np.asarray(np.abs(seen[..., :2] / seen[..., 2:3]) / np.tan(fov / 2))


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 20), st.just(3)), elements=st.floats(-0.45, 0.45)))
def test_every_point_is_in_every_frame_at_the_fitting_radius(points: np.ndarray) -> None:
    radius = rig.fitting_radius(points, TOWARD, np.full(40, FOV), least=1.5)
    assert 1.5 <= radius < 2.6
    assert (extremes(points, radius, FOV) <= 1).all()
    assert (
        rig.cropped(points, [rig.Camera(c2w, rig.intrinsics(FOV, 8, 8), 8, 8) for c2w in rig.poses(TOWARD, radius)])
        == []
    )


CORNERS = np.stack(np.meshgrid([-0.45, 0.45], [-0.45, 0.45], [-0.45, 0.45]), -1).reshape(-1, 3)


@pytest.mark.parametrize("degrees", [20.0, 39.6, 90.0])
def test_radius_is_the_smallest_that_fits(degrees: float) -> None:
    fov = np.radians(degrees)
    radius = rig.fitting_radius(CORNERS, TOWARD, np.full(40, fov))
    assert extremes(CORNERS, radius, fov).max() == pytest.approx(0.95)


def test_cropping_views_are_found_also_where_points_lie_behind_the_camera() -> None:
    K = rig.intrinsics(np.radians(60), 40, 20)
    near, far, inside = (rig.poses(np.array([[1.0, 0, 0]]), r)[0] for r in (1.6, 3.0, 0.2))
    cameras = [rig.Camera(c2w, K, 40, 20) for c2w in (near, far, inside)]
    assert rig.cropped(CORNERS, cameras) == [0, 2]
    aside = rig.Camera(far, K + np.array([[0, 0, 18.0], [0, 0, 0], [0, 0, 0]]), 40, 20)
    assert rig.cropped(CORNERS, [aside]) == [0]


def test_fields_of_view_are_those_that_were_asked_for() -> None:
    for fov in (FOV, *np.radians([10, 49.1, 51.989, 120])):
        for size in (1, 128, 333, 512):
            camera = rig.Camera(np.eye(4), rig.intrinsics(fov, size, size), size, size)
            assert rig.fields_of_view(camera) == (round(fov, 12), round(fov, 12))
    wide = rig.Camera(np.eye(4), rig.intrinsics(np.pi / 2, 200, 100), 200, 100)
    assert rig.fields_of_view(wide) == (round(np.pi / 2, 12), round(2 * np.arctan(0.5), 12))


def test_a_rig_reads_back_as_it_was_written(tmp_path: Path) -> None:
    cameras = tuple(rig.Camera(c2w, rig.intrinsics(0.7, 30, 20), 30, 20) for c2w in rig.poses(TOWARD, np.pi))
    written = rig.Rig("mine", 3, 7, cameras, (1, 5))
    (tmp_path / rig.FILE).write_text(rig.dumps(written, {"units": "metres", "depth": "z"}))
    read, facts = rig.read(tmp_path)
    assert (read.preset, read.version, read.seed, read.inputs) == ("mine", 3, 7, (1, 5))
    assert facts == {"units": "metres", "depth": "z"}
    for ours, theirs in zip(written.cameras, read.cameras, strict=True):
        assert (theirs.width, theirs.height) == (30, 20)
        np.testing.assert_array_equal(ours.c2w, theirs.c2w)
        np.testing.assert_array_equal(ours.K, theirs.K)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"cameras": [{"c2w": [1]}]}', '{"cameras": [], "convention": "opengl"}']
)
def test_a_broken_rig_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(RenderError, match=r"rig\.json: no such file; `gaussianverse render` writes one"):
        rig.read(tmp_path)
    (tmp_path / rig.FILE).write_text(text)
    with pytest.raises(RenderError, match=r"rig\.json: cannot be read as a rig"):
        rig.read(tmp_path)
