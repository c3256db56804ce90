import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.moments import Moments


def atlases(count: int, size: int = 4, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, size, size, 16)) * np.logspace(-4, 1, 16) + 0.3).astype(np.float32)


def gathered(arrays: np.ndarray, size: int = 4) -> Moments:
    moments = Moments(size)
    for array in arrays:
        moments.add(array)
    return moments


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 2**31))
def test_any_division_gives_numpys_answer(parts: list[int], seed: int) -> None:
    everything = atlases(sum(parts) + 1, seed=seed)
    total, start = gathered(everything[:1]), 1
    for part in parts:
        total.merge(gathered(everything[start : start + part]))
        start += part
    exact = everything.astype(np.float64)
    assert total.count == len(everything)
    np.testing.assert_allclose(total.mean(), exact.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(total.std(), exact.std(axis=0), rtol=1e-11, atol=1e-12)
    assert np.array_equal(total.lowest, exact.min(axis=(0, 1, 2)))
    assert np.array_equal(total.highest, exact.max(axis=(0, 1, 2)))
    assert np.array_equal(total.histogram, gathered(everything).histogram)


def test_a_far_mean_does_not_eat_the_deviation() -> None:
    arrays = 1e6 + atlases(50).astype(np.float64)
    np.testing.assert_allclose(gathered(arrays).std(), arrays.std(axis=0), rtol=1e-5)


def test_quantiles_are_right_to_a_64th() -> None:
    arrays = atlases(40)
    fractions = [0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0]
    found = gathered(arrays).quantiles(fractions)
    exact = np.quantile(arrays.reshape(-1, 16).astype(np.float64), fractions, axis=0, method="lower").T
    np.testing.assert_allclose(found, exact, rtol=1 / 64, atol=1e-7)


def test_quantiles_around_zero_keep_their_order() -> None:
    moments = Moments(2)
    moments.add(np.array([-2.0, -1e-5, 0.0, 3.0]).reshape(2, 2, 1).repeat(16, axis=2))
    found = moments.quantiles([0, 0.34, 0.67, 1])[0]
    assert found[0] == -2.0
    assert found[3] == pytest.approx(3.0, rel=1 / 64)
    assert -2e-5 < found[1] <= found[2] < 1e-6


def test_the_floor_holds_where_nothing_varies() -> None:
    moments = Moments(4)
    for _ in range(3):
        moments.add(np.zeros((4, 4, 16), np.float32))
    assert (moments.std(1e-6) == 1e-6).all()
    assert (moments.std() == 0).all()


def test_there_and_back_and_the_same_bytes() -> None:
    before = gathered(atlases(3))
    after = Moments.from_bytes(before.to_bytes())
    assert after.to_bytes() == before.to_bytes()
    after.merge(gathered(atlases(2, seed=1)))
    before.merge(gathered(atlases(2, seed=1)))
    assert np.array_equal(after.std(), before.std())


def test_merging_nothing_with_nothing_is_nothing() -> None:
    empty = Moments(4)
    empty.merge(Moments(4))
    assert empty.count == 0
    with pytest.raises(AtlasError, match="statistics of 0 atlases"):
        empty.mean()


def test_faults_are_named() -> None:
    with pytest.raises(AtlasError, match=r"cannot include \(8, 8, 16\)"):
        Moments(4).add(np.zeros((8, 8, 16)))
    for value in (np.nan, np.inf, -np.inf):
        atlas = np.zeros((4, 4, 16))
        atlas[3, 2, 15] = value
        with pytest.raises(AtlasError, match="not finite"):
            Moments(4).add(atlas)
    with pytest.raises(AtlasError, match="cannot include"):
        Moments(4).merge(Moments(8))
    good = gathered(atlases(1)).to_bytes()
    for bad in (b"", b"PK", good[:-100], good[:1000], b"\x93NUMPY"):
        with pytest.raises(AtlasError, match=r"not an \.npz file of moments"):
            Moments.from_bytes(bad)


def test_counts_below_nothing_are_named() -> None:
    good = gathered(atlases(1))
    for spoil in (lambda m: setattr(m, "count", -5), lambda m: m.histogram.__isub__(2**40)):
        bad = Moments.from_bytes(good.to_bytes())
        spoil(bad)
        with pytest.raises(AtlasError, match="expected no negative number"):
            Moments.from_bytes(bad.to_bytes())
