"""Real spherical harmonics against gsplat's, and against what defines them."""

import numpy as np
import pytest

from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians, canonical_quats
from gaussianverse.atlas.interchange.harmonics import SH_C0, ViewDependent, basis


def directions(count: int, seed: int = 0) -> np.ndarray:
    rays = np.random.default_rng(seed).normal(size=(count, 3))
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def seen(count: int = 40, degree: int = 3, seed: int = 0) -> ViewDependent:
    rng = np.random.default_rng(seed)
    harmonics = rng.normal(size=(count, (degree + 1) ** 2, 3)) * 0.6
    return ViewDependent(
        Gaussians(
            rng.normal(size=(count, 3)), rng.uniform(0.01, 0.1, (count, 3)),
            canonical_quats(rng.normal(size=(count, 4))), rng.uniform(0.1, 1, count),
            np.clip(0.5 + SH_C0 * harmonics[:, 0], 0, 1),
        ),
        harmonics,
    )  # fmt: skip


def test_harmonics_are_orthonormal() -> None:
    # the mean over the sphere times its area, 4 pi; midpoints in z and azimuth integrate degree 6 to 1e-4
    z, azimuth = (np.arange(200) + 0.5) / 100 - 1, (np.arange(64) + 0.5) * np.pi / 32
    z, azimuth = (a.ravel() for a in np.meshgrid(z, azimuth))
    ring = np.sqrt(1 - z * z)
    values = basis(np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), z], -1), 3)
    np.testing.assert_allclose(4 * np.pi * values.T @ values / len(z), np.eye(16), atol=1e-3)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_colours_are_those_of_gsplat(degree: int) -> None:
    torch = pytest.importorskip("torch")
    oracle = pytest.importorskip("gsplat.cuda._torch_impl")._spherical_harmonics
    object_, eye = seen(degree=degree, seed=degree), np.array([1.5, -2, 0.7])
    rays = torch.from_numpy(object_.gaussians.means.astype(np.float64) - eye)
    expected = oracle(degree, rays, torch.from_numpy(object_.harmonics)).numpy() + 0.5
    assert (expected < 0).any() or degree == 0
    np.testing.assert_allclose(object_.colors_from(eye), np.maximum(expected, 0), atol=1e-12)


def test_the_degree_is_that_of_the_highest_coefficient() -> None:
    for degree in range(4):
        narrow, wide = seen(degree=degree), np.zeros((40, 16, 3))
        wide[:, : (degree + 1) ** 2] = narrow.harmonics
        wider = ViewDependent(narrow.gaussians, wide)
        assert wider.degree == narrow.degree == degree
        np.testing.assert_array_equal(wider.colors_from([3, 0, 0]), narrow.colors_from([3, 0, 0]))
    assert ViewDependent(seen().gaussians, np.zeros((40, 16, 3))).plain
    assert not ViewDependent(seen().gaussians, np.full((40, 1, 3), 2.0)).plain


def test_red_and_blue_change_places_in_every_direction() -> None:
    swapped = seen().swap_red_blue()
    np.testing.assert_array_equal(swapped.colors_from([0, 2, 1]), seen().colors_from([0, 2, 1])[:, ::-1])
    np.testing.assert_array_equal(swapped.gaussians.colors, seen().gaussians.colors[:, ::-1])


def test_a_camera_inside_a_gaussian_sees_a_finite_colour() -> None:
    assert np.isfinite(seen().colors_from(seen().gaussians.means[0])).all()


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(AtlasError, match=r"shape \(40, 5, 3\), expected \[40, K, 3\]"):
        ViewDependent(seen().gaussians, np.zeros((40, 5, 3)))
    broken = seen().harmonics.copy()
    broken[7, 3, 1] = np.inf
    with pytest.raises(AtlasError, match="row 7 are not finite"):
        ViewDependent(seen().gaussians, broken)
    with pytest.raises(AtlasError, match="degree of spherical harmonics is 4"):
        basis(directions(3), 4)
