import pickle
from pathlib import Path

import numpy as np
import pytest
from atlas_objects import cloud, gaussians
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians, canonical_quats

FIELDS = ("means", "scales", "quats", "opacities", "colors")


def test_file_round_trip_is_exact_and_the_same_bytes(tmp_path: Path) -> None:
    g = gaussians(cloud("volume", 50))
    g.save(tmp_path / "a.npz")
    back = Gaussians.load(tmp_path / "a.npz")
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(g, field), getattr(back, field))
        assert getattr(back, field).dtype == np.float32
    assert back.to_bytes() == g.to_bytes() == (tmp_path / "a.npz").read_bytes()


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named_with_its_row(field: str, value: float) -> None:
    g = gaussians(cloud("volume", 10))
    fields = {name: getattr(g, name).copy() for name in FIELDS}
    fields[field][7] = value
    with pytest.raises(AtlasError, match=f"Gaussians.{field} row 7 is not finite"):
        Gaussians(**fields)


@pytest.mark.parametrize("field", FIELDS)
def test_a_wrong_shape_is_named(field: str) -> None:
    g = gaussians(cloud("volume", 10))
    fields = {name: getattr(g, name) for name in FIELDS}
    fields[field] = fields[field][:9] if field != "means" else fields[field][:, :2]
    with pytest.raises(AtlasError, match=rf"Gaussians.{field} has shape .*, expected"):
        Gaussians(**fields)


def test_float64_beyond_float32_is_not_finite() -> None:
    g = gaussians(cloud("volume", 4))
    with np.errstate(over="ignore"), pytest.raises(AtlasError, match="means row 0 is not finite"):
        Gaussians(g.means.astype(np.float64) + 1e300, g.scales, g.quats, g.opacities, g.colors)


@pytest.mark.parametrize("data", [b"", b"not a file", b"PK\x03\x04 half a zip"])
def test_bytes_that_are_no_file(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match=r"not an \.npz file of Gaussians"):
        Gaussians.from_bytes(data)
    (tmp_path / "bad.npz").write_bytes(data)
    with pytest.raises(AtlasError, match=r"bad\.npz: not an \.npz file of Gaussians"):
        Gaussians.load(tmp_path / "bad.npz")


def test_a_cut_or_foreign_file(tmp_path: Path) -> None:
    data = gaussians(cloud("volume", 50)).to_bytes()
    with pytest.raises(AtlasError):
        Gaussians.from_bytes(data[: len(data) // 2])
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(AtlasError, match="means"):
        Gaussians.load(tmp_path / "other.npz")


def test_pickles_are_not_read() -> None:
    with pytest.raises(AtlasError):
        Gaussians.from_bytes(pickle.dumps({"means": 1}))


def test_rows_are_chosen_together() -> None:
    g = gaussians(cloud("volume", 10))
    chosen = g[np.array([3, 1])]
    assert len(chosen) == 2
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(chosen, field), getattr(g, field)[[3, 1]])
    assert len(g[g.opacities > 2]) == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-30, 1.0, 1e30]))
def test_canonical_quats_are_the_same_rotation_with_one_sign(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    q = scale * rng.normal(size=(20, 4))
    q[rng.random((20, 4)) < 0.2] = 0.0
    q = q[np.abs(q).max(axis=1) > 0]
    found = canonical_quats(q)
    np.testing.assert_allclose(np.linalg.norm(found.astype(np.float64), axis=1), 1.0, atol=2e-7)
    np.testing.assert_array_equal(found, canonical_quats(-q))
    assert (found[:, 0] >= 0).all()
    assert not np.signbit(found[:, 0]).any()
    same = Rotation.from_quat(q, scalar_first=True).inv() * Rotation.from_quat(found, scalar_first=True)
    assert np.abs(same.magnitude()).max(initial=0.0) < 1e-6


def test_canonical_quats_where_w_is_zero() -> None:
    found = canonical_quats([[0, -1, 2, 0], [0, 0, 0, -3], [-0.0, 1, 0, 0], [0, 0, 0, 0], [-2, 0, 0, 0]])
    r = 1 / np.sqrt(5)
    np.testing.assert_allclose(
        found, [[0, r, -2 * r, 0], [0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]], atol=1e-7
    )
