import numpy as np
import pytest
from atlas_objects import SHAPES, cloud, gaussians
from scipy.optimize import linear_sum_assignment

from gaussianverse.atlas.errors import AtlasError, TransportFailed
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.padding import place, prune
from gaussianverse.atlas.sphere import fibonacci_sphere

PADS = ("transport", "nearest", "before")
SPHERE = fibonacci_sphere(256)


def smallest_first(g: Gaussians) -> np.ndarray:
    return np.argsort(g.scales.astype(np.float64).mean(axis=1), kind="stable")


def with_scales(count: int, scales: np.ndarray) -> Gaussians:
    g = gaussians(cloud("volume", count))
    return Gaussians(g.means, np.repeat(scales[:, None], 3, axis=1), g.quats, g.opacities, g.colors)


def test_prune_drops_the_smallest_mean_scale() -> None:
    scales = np.array([3.0, 1.0, 4.0, 1.5, 5.0, 9.0, 2.0, 6.0])
    np.testing.assert_array_equal(prune(with_scales(8, scales), 5), [0, 2, 4, 5, 7])
    np.testing.assert_array_equal(prune(with_scales(8, scales), 8), np.arange(8))
    np.testing.assert_array_equal(prune(with_scales(8, scales), 99), np.arange(8))


def test_prune_keeps_the_first_of_equals() -> None:
    np.testing.assert_array_equal(prune(with_scales(6, np.array([1.0, 2.0, 1.0, 1.0, 2.0, 1.0])), 4), [0, 1, 2, 4])
    np.testing.assert_array_equal(prune(with_scales(6, np.ones(6)), 4), [0, 1, 2, 3])
    # many ties, which an unstable sort would shuffle
    scales = np.random.default_rng(0).integers(1, 4, 3000).astype(np.float64)
    expected = sorted(range(3000), key=lambda row: (-scales[row], row))[:1700]
    np.testing.assert_array_equal(prune(with_scales(3000, scales), 1700), sorted(expected))


def test_prune_goes_by_the_mean_not_the_largest() -> None:
    g = gaussians(cloud("volume", 3))
    scales = np.array([[0.9, 0.0001, 0.0001], [0.4, 0.4, 0.4], [0.31, 0.31, 0.31]])
    np.testing.assert_array_equal(prune(Gaussians(g.means, scales, g.quats, g.opacities, g.colors), 2), [1, 2])


@pytest.mark.parametrize("pad", PADS)
@pytest.mark.parametrize("count", [1, 8, 100, 128, 200, 255, 256])
def test_every_gaussian_is_live_once_and_the_rest_are_duplicates(pad: str, count: int) -> None:
    g = gaussians(cloud("volume", count))
    placement = place(g, SPHERE, pad)
    assert placement.source.shape == placement.live.shape == (256,)
    np.testing.assert_array_equal(np.sort(placement.source[placement.live]), np.arange(count))
    used = np.bincount(placement.source, minlength=count) - 1
    assert used.sum() == 256 - count
    if pad != "nearest":
        # from the smallest upwards, and again from the start: counts differ by at most one
        expected = np.zeros(count, np.int64)
        np.add.at(expected, np.resize(smallest_first(g), 256 - count), 1)
        np.testing.assert_array_equal(used, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_gaussians_transport_is_optimal_and_comes_first(shape: str) -> None:
    g = gaussians(cloud(shape, 100))
    cost = ((g.means.astype(np.float64)[:, None] - SPHERE) ** 2).sum(axis=2)
    best = cost[linear_sum_assignment(cost)].sum()
    for pad in ("transport", "nearest"):
        placement = place(g, SPHERE, pad)
        points = np.flatnonzero(placement.live)
        np.testing.assert_allclose(cost[placement.source[points], points].sum(), best, rtol=1e-12)
        np.testing.assert_allclose(placement.transport.primal, best, rtol=1e-12)


def test_pad_transport_is_a_second_optimal_transport() -> None:
    g = gaussians(cloud("plate", 90))
    placement = place(g, SPHERE, "transport")
    vacant = np.flatnonzero(~placement.live)
    duplicates = np.resize(smallest_first(g), len(vacant))
    cost = ((g.means[duplicates].astype(np.float64)[:, None] - SPHERE[vacant]) ** 2).sum(axis=2)
    best = cost[linear_sum_assignment(cost)].sum()
    chosen = ((g.means[placement.source[vacant]].astype(np.float64) - SPHERE[vacant]) ** 2).sum()
    np.testing.assert_allclose(chosen, best, rtol=1e-12)


def test_pad_nearest_copies_the_nearest_occupied_point() -> None:
    placement = place(gaussians(cloud("shell", 90)), SPHERE, "nearest")
    occupied = np.flatnonzero(placement.live)
    for point in np.flatnonzero(~placement.live):
        nearest = occupied[((SPHERE[occupied] - SPHERE[point]) ** 2).sum(axis=1).argmin()]
        assert placement.source[point] == placement.source[nearest]


def test_pad_before_is_one_square_transport() -> None:
    g = gaussians(cloud("volume", 200))
    placement = place(g, SPHERE, "before")
    everyone = np.concatenate([np.arange(200), smallest_first(g)[:56]])
    cost = ((g.means[everyone].astype(np.float64)[:, None] - SPHERE) ** 2).sum(axis=2)
    best = cost[linear_sum_assignment(cost)].sum()
    np.testing.assert_allclose(((g.means[placement.source] - SPHERE) ** 2).sum(), best, rtol=1e-12)
    assert len(placement.transport.indices) == 256


@pytest.mark.parametrize("pad", PADS)
def test_a_full_sphere_needs_no_padding_and_all_ways_agree(pad: str) -> None:
    g = gaussians(cloud("volume", 256))
    placement = place(g, SPHERE, pad)
    assert placement.live.all()
    np.testing.assert_array_equal(placement.source, place(g, SPHERE, "transport").source)


def test_faults() -> None:
    g = gaussians(cloud("volume", 257))
    with pytest.raises(TransportFailed, match="257 points do not fit on 256 sites"):
        place(g, SPHERE, "transport")
    with pytest.raises(AtlasError, match="pad is 'middle', expected transport, nearest or before"):
        place(g[:10], SPHERE, "middle")
