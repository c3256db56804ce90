import hashlib
from pathlib import Path

import numpy as np
import pytest

import atlas.plane as plane
from atlas.errors import AtlasError
from atlas.plane import SHIPPED, SHIPPED_SHA256, plane_indices, solve_plane_indices, unroll
from atlas.sphere import fibonacci_sphere

PUBLISHED = (
    Path(__file__).resolve().parents[2] / "shared" / "data" / "gaussianverse_official" / "sphere2plane.npy"
)


def cells_of(indices: np.ndarray, size: int) -> np.ndarray:
    """Where the unrolling would have each sphere point, less the cell that it got, [size^2, 2] in cells."""
    exact = unroll(fibonacci_sphere(size * size), size)[indices]
    return exact - np.stack(np.divmod(np.arange(size * size), size), axis=1)


def test_shipped_file_is_what_the_solver_gives_again() -> None:
    solved = solve_plane_indices(128)
    np.testing.assert_array_equal(solved, plane_indices(128))
    assert hashlib.sha256(SHIPPED.read_bytes()).hexdigest() == SHIPPED_SHA256
    stored = np.load(SHIPPED, allow_pickle=False)
    assert (stored == solved).all()


@pytest.mark.parametrize("size", [8, 16, 31, 128])
def test_indices_are_a_permutation_near_the_unrolling(size: int) -> None:
    indices = plane_indices(size)
    np.testing.assert_array_equal(np.sort(indices), np.arange(size * size))
    moved = np.linalg.norm(cells_of(indices, size), axis=1)
    assert moved.mean() < 1.0
    assert moved.max() < 5.0


def test_row_is_longitude_and_column_is_sine_of_latitude() -> None:
    points = fibonacci_sphere(128 * 128)[plane_indices(128)].reshape(128, 128, 3)
    row_of = lambda x, y: points[..., 0] * x + points[..., 1] * y  # noqa: E731
    # -180 degrees at the top, then -90, 0, +90
    for row, (x, y) in {0: (-1, 0), 32: (0, -1), 64: (1, 0), 96: (0, 1)}.items():
        equator = points[row, 60:68]
        assert (row_of(x, y)[row, 60:68] > 0.99).all(), equator
    assert (points[:, :3, 2] > 0.9).all()
    assert (points[:, -3:, 2] < -0.9).all()
    assert np.abs(points[:, 64, 2]).max() < 0.1


def test_unroll_puts_the_corners_of_the_sphere_where_they_belong() -> None:
    found = unroll(np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0, 0, -1.0]]), 100)
    np.testing.assert_allclose(found[0], [49.5, 49.5])
    np.testing.assert_allclose(found[1], [74.5, 49.5])
    assert found[2, 1] == -0.5
    assert found[3, 1] == 99.5


def test_published_indices_are_the_same_orientation() -> None:
    if not PUBLISHED.exists():
        pytest.skip(f"{PUBLISHED} is not at hand")
    published = np.load(PUBLISHED, allow_pickle=False).ravel().astype(np.int64)
    ours = plane_indices(128)
    # cell of each sphere point in both
    cell = np.empty((2, 128 * 128), np.int64)
    cell[0, ours] = cell[1, published] = np.arange(128 * 128)
    rows, columns = np.divmod(cell, 128)
    # the first and the last row are neighbours: both are +-180 degrees
    apart = np.abs(rows[0] - rows[1])
    assert np.minimum(apart, 128 - apart).mean() <= 1.0
    assert np.abs(columns[0] - columns[1]).mean() <= 1.0


def test_result_is_kept_and_read_only() -> None:
    assert plane_indices(16) is plane_indices(16)
    with pytest.raises(ValueError, match="read-only"):
        plane_indices(16)[0] = 1


@pytest.mark.parametrize("fault", ["missing", "changed"])
def test_a_spoilt_file_is_named_with_the_mend(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = tmp_path / "plane.npy"
    if fault == "changed":
        indices = np.load(SHIPPED)
        indices[:2] = indices[1::-1]
        np.save(spoilt, indices)
    monkeypatch.setattr(plane, "SHIPPED", spoilt)
    with pytest.raises(
        AtlasError, match=r"plane\.npy (is missing|has SHA-256 .*, expected).*python -m atlas plane"
    ):
        plane_indices.__wrapped__(128)
