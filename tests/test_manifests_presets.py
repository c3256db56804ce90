"""Presets: counts, angles, radii, fields of view and inputs as their sources state them."""

import numpy as np
import pytest

from gaussianverse.manifests.errors import RenderError
from gaussianverse.manifests.rendering import presets
from gaussianverse.manifests.rendering.presets import PRESETS, Options, Plan
from gaussianverse.manifests.rendering.rig import Rig

CORNERS = np.stack(np.meshgrid([-0.5, 0.5], [-0.5, 0.5], [-0.5, 0.5]), -1).reshape(-1, 3)
KEYS = [f"object {n}" for n in range(40)]


def made(preset: str, key: str = "", points: np.ndarray = CORNERS, **options: object) -> Rig:
    chosen = Options(**options)  # type: ignore[arg-type]
    return presets.build(preset, presets.plan(preset, chosen, key), chosen.seed, points)


def degrees(rig: Rig | Plan) -> tuple[np.ndarray, np.ndarray]:
    """Azimuths in [0, 360) and elevations."""
    at = rig.toward if isinstance(rig, Plan) else np.stack([camera.c2w[:3, 3] for camera in rig.cameras])
    at = at / np.linalg.norm(at, axis=1, keepdims=True)
    return np.degrees(np.arctan2(at[:, 1], at[:, 0])) % 360, np.degrees(np.arcsin(at[:, 2].clip(-1, 1)))


def radii(rig: Rig) -> np.ndarray:
    return np.array([np.linalg.norm(camera.c2w[:3, 3]) for camera in rig.cameras])


def fovs(rig: Rig) -> np.ndarray:
    return np.array([np.degrees(2 * np.arctan(camera.width / 2 / camera.K[0, 0])) for camera in rig.cameras])


@pytest.mark.parametrize(
    ("preset", "views", "size", "extent", "fov", "radius", "inputs"),
    [
        ("gobjaverse", 40, 512, 0.9, 39.6, None, 0),
        ("gsv3d", 84, 512, 0.9, 39.6, None, 16),
        ("orbit21", 21, 576, 0.9, 39.6, None, 1),
        ("gen3d", 132, 512, 0.9, 49.1, 1.5, 4),
        ("lgm", 100, 512, 0.9, 49.1, 1.5, 37),
        ("trellis", 150, 512, 1.0, 40.0, 2.0, 0),
        ("trellis-cond", 24, 1024, 1.0, None, None, 24),
        ("zero123", 12, 512, 1.0, 49.13, None, 0),
        ("zero123plus", 7, 320, 2.0, 30.0, 4.0, 1),
        ("instantmesh", 32, 512, 2.0, 50.0, 2.5, 32),
        ("srn", 50, 128, 1.0, 51.989, 1.3, 0),
        ("srn-test", 251, 128, 1.0, 51.989, 1.3, 1),
    ],
)
def test_numbers_of_the_sources(
    preset: str, views: int, size: int, extent: float, fov: float | None, radius: float | None, inputs: int
) -> None:
    plan = presets.plan(preset, Options(), "any")
    rig = presets.build(preset, plan, 0, 0.2 * CORNERS)
    assert len(rig.cameras) == views
    assert {(camera.width, camera.height) for camera in rig.cameras} == {(size, size)}
    assert plan.extent == extent
    assert len(rig.inputs) == inputs
    assert all(0 <= view < views for view in rig.inputs)
    if fov is not None:
        np.testing.assert_allclose(fovs(rig), fov, atol=5e-3)
    if radius is not None:
        np.testing.assert_allclose(radii(rig), radius)
    for camera in rig.cameras:
        R = camera.c2w[:3, :3]
        np.testing.assert_allclose(R.T @ R, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(np.cross(R[:, 0], R[:, 1]), R[:, 2], atol=1e-12)
        np.testing.assert_allclose(camera.c2w[:3, 3], -np.linalg.norm(camera.c2w[:3, 3]) * R[:, 2], atol=1e-9)
        assert R[2, 1] < 1e-9  # down is down
        np.testing.assert_array_equal(camera.K[:2, 2], [size / 2, size / 2])


def test_all_presets_are_tested() -> None:
    (marks,) = (mark for mark in test_numbers_of_the_sources.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    assert {case[0] for case in marks.args[1]} == set(PRESETS)


def test_gobjaverse_has_two_rings_two_poles_and_two_repeats() -> None:
    rig = made("gobjaverse")
    poses = np.stack([camera.c2w for camera in rig.cameras])
    assert len(np.unique(poses.reshape(40, 16), axis=0)) == 38
    np.testing.assert_array_equal(poses[24], poses[0])
    np.testing.assert_array_equal(poses[39], poses[27])
    azimuth, elevation = degrees(rig)
    np.testing.assert_allclose(elevation[:24], 25)
    np.testing.assert_allclose(np.diff(azimuth[:24]), 15)
    np.testing.assert_allclose(elevation[25:27], [90, -90])
    np.testing.assert_allclose(elevation[27:39], -3)
    np.testing.assert_allclose(np.diff(azimuth[27:39]), 30)


@pytest.mark.parametrize(
    ("preset", "views", "options"),
    [
        ("gobjaverse", slice(0, 24), {"vary_elevation": True}),
        ("gsv3d", slice(0, 84), {}),
        ("orbit21", slice(0, 21), {"condition": "last"}),
    ],
)
def test_elevations_are_drawn_per_object_within_their_range(
    preset: str, views: slice, options: dict[str, object]
) -> None:
    drawn = []
    for key in KEYS:
        elevation = degrees(made(preset, key, **options))[1][views]
        np.testing.assert_allclose(elevation, elevation[0])
        drawn.append(elevation[0])
    low = 5 if preset == "gobjaverse" else -5
    assert low <= min(drawn) < low + 4
    assert 26 < max(drawn) <= 30
    assert len(set(drawn)) == len(KEYS)


def test_the_upper_ring_of_gobjaverse_alone_varies() -> None:
    _, elevation = degrees(made("gobjaverse", "a", vary_elevation=True))
    np.testing.assert_allclose(elevation[25:27], [90, -90])
    np.testing.assert_allclose(elevation[27:], -3)


def test_gsv3d_names_sixteen_regular_inputs_and_begins_with_the_condition() -> None:
    rig = made("gsv3d")
    assert rig.inputs == (0, 5, 10, 15, 21, 26, 31, 36, 42, 47, 52, 57, 63, 68, 73, 78)
    np.testing.assert_allclose(degrees(rig)[0], 360 / 84 * np.arange(84), atol=1e-9)


def test_an_orbit_begins_or_ends_at_its_condition() -> None:
    first, last = made("orbit21", "a"), made("orbit21", "a", condition="last")
    assert (first.inputs, last.inputs) == ((0,), (20,))
    np.testing.assert_allclose(degrees(first)[0], 360 / 21 * np.arange(21), atol=1e-9)
    expected = np.linspace(0, 360, 22)[1:] % 360  # SV3D's own expression
    np.testing.assert_allclose((degrees(last)[0] - expected + 180) % 360, 180, atol=1e-9)
    np.testing.assert_array_equal(first.cameras[0].c2w, last.cameras[20].c2w)


def test_gen3d_has_the_poses_that_it_ships() -> None:
    """Rows of 132_0_RT.txt, 132_40_RT.txt and 132_40_K.txt: OpenGL camera-to-world, and K for 1,024 px."""
    rig = made("gen3d", size=1024)
    shipped = {
        0: [[1, 0, 0, 0], [0, -0.8660254037844386, -0.5, -0.75], [0, 0.5, -0.8660254037844386, -1.299038105676658]],
        40: [
            [0.9819286972627066, 0.03934754620433754, 0.18511565060702284, 0.27767347591053432],
            [0.18925124436041055, -0.20415445571036719, -0.96047119931918834, -1.4407067989787827],
            [0.0, 0.97814760073380613, -0.20791169081775740, -0.31186753622663616],
        ],
    }
    for view, rows in shipped.items():
        opengl = rig.cameras[view].c2w @ np.diag([1, -1, -1, 1])
        np.testing.assert_allclose(opengl[:3], rows, atol=1e-6)
    np.testing.assert_allclose(rig.cameras[40].K, [[1120.88831, 0, 512], [0, 1120.88831, 512], [0, 0, 1]], atol=0.01)
    azimuth, elevation = degrees(rig)
    np.testing.assert_allclose(azimuth[[*rig.inputs]], [0, 90, 180, 270], atol=1e-9)
    np.testing.assert_allclose(elevation[100:], 0, atol=1e-9)
    np.testing.assert_allclose(elevation[[0, 99]], [-60, 58.8])


def test_lgm_is_the_spiral_of_gen3d_with_inputs_near_the_horizon() -> None:
    ours, theirs = made("lgm"), made("gen3d")
    for a, b in zip(ours.cameras, theirs.cameras, strict=False):
        np.testing.assert_array_equal(a.c2w, b.c2w)
    elevation = degrees(ours)[1][[*ours.inputs]]
    np.testing.assert_allclose([elevation.min(), elevation.max()], [-16.8, 26.4])


def test_trellis_covers_the_sphere_as_its_sequence_does() -> None:
    """A quarter of the set below the horizon, three quarters above, evenly round, for any offset."""
    for key in KEYS[:5]:
        azimuth, elevation = degrees(made("trellis", key))
        heights = np.sin(np.radians(elevation))
        assert (heights < 0).sum() in (37, 38)
        # density along the height is 1/4 per unit below and 3/4 above
        np.testing.assert_allclose(
            np.sort(heights)[37::28], -1 + 2 * (0.5 + (np.arange(37, 150, 28) - 37.5) / 225), atol=0.02
        )
        assert np.ptp(np.histogram(azimuth, 6, (0, 360))[0]) <= 4
    assert len({degrees(made("trellis", key))[0][0] for key in KEYS}) == len(KEYS)


def test_trellis_condition_views_touch_the_sphere_around_the_cube() -> None:
    fields: list[float] = []
    for key in KEYS:
        rig = made("trellis-cond", key)
        np.testing.assert_allclose(np.sin(np.radians(fovs(rig) / 2)) * radii(rig), np.sqrt(3) / 2)
        fields += list(fovs(rig))
    assert 10 <= min(fields) < 15
    assert 68 < max(fields) <= 70
    inverse = (np.sin(np.radians(np.array(fields) / 2)) / (np.sqrt(3) / 2)) ** 2
    low, high = inverse.min(), inverse.max()
    shares = np.histogram(inverse, 4, (low, high))[0] / len(inverse)
    np.testing.assert_allclose(shares, 0.25, atol=0.06)  # 960 draws: four standard deviations
    fixed = made("trellis-cond", "a", fov=30.0)
    np.testing.assert_allclose(fovs(fixed), 30)
    np.testing.assert_allclose(radii(fixed), np.sqrt(3) / 2 / np.sin(np.radians(15)))


def test_zero123_draws_radii_and_directions() -> None:
    drawn = np.concatenate([radii(made("zero123", key)) for key in KEYS])
    assert 1.5 <= drawn.min() < 1.51
    assert 2.19 < drawn.max() <= 2.2
    elevation = np.concatenate([degrees(made("zero123", key))[1] for key in KEYS])
    assert elevation.min() < -60
    assert elevation.max() > 60


def test_zero123plus_targets_stand_relative_to_the_condition() -> None:
    for key in KEYS[:5]:
        azimuth, elevation = degrees(made("zero123plus", key))
        np.testing.assert_allclose((azimuth[1:] - azimuth[0]) % 360, [30, 90, 150, 210, 270, 330], atol=1e-9)
        np.testing.assert_allclose(elevation[1:], [20, -10, 20, -10, 20, -10])
        assert -5 <= elevation[0] <= 30


def test_random_views_of_srn_and_instantmesh_are_uniform_on_the_sphere() -> None:
    for preset in ("srn", "instantmesh"):
        toward = np.concatenate([presets.plan(preset, Options(), key).toward for key in KEYS])
        np.testing.assert_allclose(toward.mean(0), 0, atol=0.06)
        np.testing.assert_allclose(toward.T @ toward / len(toward), np.eye(3) / 3, atol=0.04)


def test_srn_test_views_rise_on_a_spiral() -> None:
    elevation = degrees(made("srn-test"))[1]
    np.testing.assert_allclose(elevation, np.linspace(0, 90, 251), atol=1e-5)
    azimuth = np.radians(degrees(made("srn-test"))[0][:250])
    np.testing.assert_allclose(np.ptp(np.unwrap(azimuth)), 0.08 * 249)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_draws_are_a_function_of_seed_and_object(preset: str) -> None:
    def bits(**options: object) -> bytes:
        return np.stack([camera.c2w for camera in made(preset, **options).cameras]).tobytes()  # type: ignore[arg-type]

    drawn = preset not in ("gobjaverse", "gen3d", "lgm", "srn-test")
    assert bits(key="a") == bits(key="a")
    assert (bits(key="a") != bits(key="b")) == drawn
    assert (bits(key="a") != bits(key="a", seed=1)) == drawn


def test_choices_override_the_preset() -> None:
    rig = made("zero123", fov=60.0, radius=3.0, size=40)
    np.testing.assert_allclose(fovs(rig), 60)
    np.testing.assert_allclose(radii(rig), 3)
    assert (rig.cameras[0].width, rig.cameras[0].height) == (40, 40)
    assert presets.plan("srn", Options(extent=0.7), "").extent == 0.7
    assert presets.plan("srn", Options(extent=0.7), "").measure == "longest side"


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_fitted_radius_crops_nothing_and_a_smaller_one_is_warned_of(preset: str) -> None:
    fitted = Options(radius="fit")
    plan = presets.plan(preset, fitted, "a")
    points = plan.extent * CORNERS if plan.measure == "longest side" else plan.extent / np.sqrt(3) * CORNERS
    rig = presets.build(preset, plan, 0, points)
    assert presets.crop_warning(rig, plan, points) is None
    radius = radii(rig)[0]
    np.testing.assert_allclose(radii(rig), radius)
    near = presets.plan(preset, Options(radius=0.8 * radius), "a")
    warning = presets.crop_warning(presets.build(preset, near, 0, points), near, points)
    assert warning is not None
    assert f"--radius {np.ceil(100 * radius) / 100:.2f} keeps it in all" in warning


def test_the_radius_that_a_warning_names_crops_nothing() -> None:
    plan = presets.plan("lgm", Options(), "a")
    warning = presets.crop_warning(presets.build("lgm", plan, 0, CORNERS), plan, CORNERS)
    assert warning is not None
    named = float(warning.split("--radius ")[1].split()[0])
    plan = presets.plan("lgm", Options(radius=named), "a")
    assert presets.crop_warning(presets.build("lgm", plan, 0, CORNERS), plan, CORNERS) is None


@pytest.mark.parametrize(
    ("preset", "options", "message"),
    [
        ("nerf", {}, "unknown preset 'nerf'; there are gobjaverse, gsv3d, orbit21"),
        ("lgm", {"size": 0}, "--size 0: expected 1 to 4096"),
        ("lgm", {"size": 100_000}, "--size 100000: expected 1 to 4096"),
        ("lgm", {"fov": 0.0}, "--fov 0: expected 1 to 150 degrees"),
        ("lgm", {"fov": float("nan")}, "--fov nan"),
        ("lgm", {"radius": 0.0}, "--radius 0: expected"),
        ("lgm", {"radius": float("inf")}, "--radius inf: expected"),
        ("lgm", {"extent": -1.0}, "--extent -1: expected"),
        ("lgm", {"vary_elevation": True}, "--vary-elevation is for the preset gobjaverse, not for lgm"),
        ("lgm", {"condition": "last"}, "--condition is for the preset orbit21, not for lgm"),
    ],
)
def test_choices_out_of_range(preset: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(RenderError, match=message):
        presets.plan(preset, Options(**options), "")  # type: ignore[arg-type]
