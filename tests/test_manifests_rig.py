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
from gaussianverse.manifests.rendering import rig

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "gobjaverse_cameras"


def test_forty_views_of_which_38_are_distinct() -> None:
    poses = rig.camera_to_world(1.7)
    assert poses.shape == (40, 4, 4)
    assert len(np.unique(poses.reshape(40, 16), axis=0)) == 38
    np.testing.assert_array_equal(poses[24], poses[0])
    np.testing.assert_array_equal(poses[39], poses[27])


def test_rings_and_poles() -> None:
    directions = rig.directions()
    elevation = np.degrees(np.arcsin(directions[:, 2]))
    azimuth = np.degrees(np.unwrap(np.arctan2(directions[:, 1], directions[:, 0])))
    assert ((elevation[:24] >= 5) & (elevation[:24] <= 30)).all()
    np.testing.assert_allclose(np.diff(azimuth[:24]), 15)
    np.testing.assert_allclose(elevation[25:27], [90, -90])
    assert ((elevation[27:39] >= -5) & (elevation[27:39] <= 5)).all()
    np.testing.assert_allclose(np.diff(azimuth[27:39]), 30)


def test_cameras_are_right_handed_upright_and_look_at_the_origin() -> None:
    poses = rig.camera_to_world(2.0)
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
        np.testing.assert_allclose(rig.rotations()[ours], pose[:3, :3], atol=1e-6)
    first = _camera_to_world(json_object((folder / "00000/00000.json").read_bytes(), BadInput), "")
    np.testing.assert_allclose(rig.rotations()[0], first[:3, :3], atol=0.01)


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 20), st.just(3)), elements=st.floats(-0.45, 0.45)))
def test_every_point_is_in_every_frame_at_the_fitting_radius(points: np.ndarray) -> None:
    radius = rig.fitting_radius(points)
    assert 1.5 <= radius < 2.6
    viewmats = np.linalg.inv(rig.camera_to_world(radius))
    seen = np.einsum("vij,nj->vni", viewmats, np.c_[points, np.ones(len(points))])
    assert (np.abs(seen[..., :2] / seen[..., 2:3]) <= np.tan(rig.FOV / 2)).all()


def test_radius_is_the_smallest_that_fits() -> None:
    corners = np.stack(np.meshgrid([-0.45, 0.45], [-0.45, 0.45], [-0.45, 0.45]), -1).reshape(-1, 3)
    radius = rig.fitting_radius(corners)
    assert radius > 1.5
    viewmats = np.linalg.inv(rig.camera_to_world(radius))
    seen = np.einsum("vij,nj->vni", viewmats, np.c_[corners, np.ones(8)])
    assert np.abs(seen[..., :2] / seen[..., 2:3]).max() == pytest.approx(0.95 * np.tan(rig.FOV / 2))
