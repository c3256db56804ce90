from pathlib import Path

import numpy as np
import pytest
from atlas_objects import cloud, gaussians
from hypothesis import given, settings
from hypothesis import strategies as st

from gaussianverse.atlas import AtlasConfig, Gaussians, pack, unpack
from gaussianverse.atlas.errors import AtlasError, RoughAtlas
from gaussianverse.atlas.gaussians import canonical_quats
from gaussianverse.atlas.interchange.ply import SH_C0, read_ply, read_view_dependent
from gaussianverse.atlas.interchange.published import atlas_of, find_order, read_point_cloud, visible, write_pair
from gaussianverse.atlas.sphere import fibonacci_sphere
from gaussianverse.atlas.transport.solver import assign

SMALL = AtlasConfig(size=32)
SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "data" / "gaussianverse_samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="shared/data/gaussianverse_samples is not there")


def readings(g: Gaussians) -> dict[tuple[bool, bool], np.ndarray]:
    """Sphere indices of one transport in the four possible conventions, by (inverted, sorted)."""
    of_gaussian = assign(g.means, fibonacci_sphere(len(g))).indices
    by_position = np.lexsort(g.means.T[::-1])
    return {
        (True, False): of_gaussian,
        (False, False): np.argsort(of_gaussian),
        (True, True): of_gaussian[by_position],
        (False, True): np.argsort(of_gaussian[by_position]),
    }


def test_columns_are_where_the_published_loader_has_them() -> None:
    g = Gaussians([[1, 2, 3]] * 64, [[0.5, 1, 2]] * 64, [[1, 0, 0, 0]] * 64, [0.75] * 64, [[0.5, 0, 1]] * 64)  # type: ignore[list-item, arg-type]
    point_cloud, gs2sphere = write_pair(pack(g, AtlasConfig(size=8)).array, AtlasConfig(size=8))
    assert (point_cloud.dtype, point_cloud.shape, gs2sphere.dtype) == (np.float32, (64, 59), np.int32)
    row = point_cloud[17]
    np.testing.assert_allclose(row[:4], [1, 2, 3, np.log(3)], rtol=1e-6)
    harmonics = row[4:52].reshape(3, 16)
    np.testing.assert_allclose(harmonics[:, 0], [0, -0.5 / SH_C0, 0.5 / SH_C0], rtol=1e-6)
    assert (harmonics[:, 1:] == 0).all()
    np.testing.assert_allclose(row[52:], [np.log(0.5), 0, np.log(2), 1, 0, 0, 0], atol=1e-6)


def test_rows_are_in_the_order_of_the_sphere_so_that_both_readings_are_right() -> None:
    g = gaussians(cloud("shell", 1024))
    atlas = pack(g, SMALL)
    point_cloud, gs2sphere = write_pair(atlas.array, SMALL)
    np.testing.assert_array_equal(gs2sphere, np.argsort(gs2sphere))
    offsets = point_cloud[gs2sphere, :3] - fibonacci_sphere(1024)
    assert (offsets**2).sum() == pytest.approx(float(atlas.stats["transport_cost"]), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(200, 1024), seed=st.integers(0, 99))
def test_there_and_back(count: int, seed: int) -> None:
    g = gaussians(cloud("shell", count, seed), seed)
    atlas = pack(g, SMALL)
    point_cloud, gs2sphere = write_pair(atlas.array, SMALL)
    read = read_point_cloud(point_cloud)
    assert visible(read).sum() == count
    back = atlas_of(read, find_order(read, gs2sphere, SMALL), SMALL)
    np.testing.assert_allclose(back, atlas.array, atol=2e-6)
    assert (back[..., 3] > 0).sum() == count
    np.testing.assert_allclose(unpack(back, SMALL).means, unpack(atlas.array, SMALL).means, atol=1e-6)


def test_another_layout_has_no_published_form() -> None:
    ring = AtlasConfig(size=32, layout="ring")
    with pytest.raises(AtlasError, match="this atlas has layout ring"):
        write_pair(pack(gaussians(cloud("shell", 900)), ring).array, ring)


def test_the_least_opacity_is_not_taken_for_padding() -> None:
    g = gaussians(cloud("shell", 60))
    opacities = g.opacities.copy()
    opacities[:3] = 1e-38, 1e-20, 1e-12
    faint = Gaussians(g.means, g.scales, g.quats, opacities, g.colors)
    point_cloud, _ = write_pair(pack(faint, AtlasConfig(size=8)).array, AtlasConfig(size=8))
    assert visible(read_point_cloud(point_cloud)).sum() == 60
    assert np.isfinite(point_cloud).all()


@pytest.mark.parametrize("reading", [(False, False), (False, True), (True, False), (True, True)])
def test_every_way_to_write_the_indices_is_found(reading: tuple[bool, bool]) -> None:
    g = gaussians(cloud("shell", 1024))
    order = find_order(g, readings(g)[reading], SMALL)
    assert (order.inverted, order.sorted) == reading
    np.testing.assert_array_equal(atlas_of(g, order, SMALL), pack(g, SMALL).array)
    assert order.smoothness == pytest.approx(float(pack(g, SMALL).stats["smoothness"]))


def test_indices_of_another_object_are_refused_with_the_number() -> None:
    g, other = gaussians(cloud("shell", 1024)), gaussians(cloud("shell", 1024, seed=1))
    with pytest.raises(RoughAtlas, match=r"smoothness is at most -?0\.\d+, expected at least 0\.90"):
        find_order(g, readings(other)[False, False], SMALL)


@pytest.mark.parametrize(
    ("indices", "fault"),
    [
        (np.arange(1023), r"needs 1024 Gaussians and 1024 integer sphere indices, got 1024 and int64 \(1023,\)"),
        (np.arange(1024.0), "got 1024 and float64"),
        (np.arange(1024).reshape(32, 32), r"\(32, 32\)"),
        (np.zeros(1024, int), "not a permutation of 0 to 1023"),
        (np.arange(1024) - 1, "not a permutation"),
    ],
)
def test_indices_that_are_none(indices: np.ndarray, fault: str) -> None:
    with pytest.raises(AtlasError, match=fault):
        find_order(gaussians(cloud("shell", 1024)), indices, SMALL)


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        (np.zeros((5, 58), np.float32), "has shape \\[N, 59\\] of floats, got float32 \\(5, 58\\)"),
        (np.zeros((5, 59), int), "got int64"),
        (np.full((5, 59), np.nan), "means row 0 is not finite"),
    ],
)
def test_point_clouds_that_are_none(table: np.ndarray, fault: str) -> None:
    with pytest.raises(AtlasError, match=fault):
        read_point_cloud(table)


def test_values_of_any_fit_are_made_canonical() -> None:
    table = np.zeros((2, 59), np.float32)
    table[:, 55:] = [[-2, 0, 0, 0.1], [0.3, 0.3, 0, 0]]
    table[0, 4], table[1, 36] = 9, -9
    g = read_point_cloud(table)
    np.testing.assert_array_equal(g.quats, canonical_quats(table[:, 55:]))
    np.testing.assert_array_equal(g.colors, np.float32([[1, 0.5, 0.5], [0.5, 0.5, 0]]))


@needs_samples
@pytest.mark.parametrize("uid", ["9350303", "9351401"])
def test_published_fits_go_through_all_four_readings(uid: str) -> None:
    g = read_ply((SAMPLES / uid / "point_cloud.ply").read_bytes())
    for reading, indices in readings(g).items():
        order = find_order(g, indices)
        assert (order.inverted, order.sorted) == reading
        assert 0.97 < order.smoothness < 0.99


def mean_color(g: Gaussians) -> np.ndarray:
    """Mean colour weighted by area and opacity."""
    area = np.sort(g.scales, axis=1)[:, 1:].prod(axis=1) * g.opacities
    return np.asarray((area[:, None] * g.colors).sum(axis=0) / area.sum())


@needs_samples
@pytest.mark.parametrize("uid", ["9350303", "9351401"])
def test_terracotta_and_wood_are_red_only_with_red_and_blue_swapped(uid: str) -> None:
    fit = read_view_dependent((SAMPLES / uid / "point_cloud.ply").read_bytes())
    red, green, blue = mean_color(fit.gaussians)
    assert blue > green > red
    red, green, blue = mean_color(fit.swap_red_blue().gaussians)
    assert red > green > blue
