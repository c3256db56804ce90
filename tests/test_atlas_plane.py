import hashlib
from pathlib import Path

import numpy as np
import pytest
from atlas_objects import cloud, gaussians

from gaussianverse.atlas import plane
from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.packing import pack, unpack
from gaussianverse.atlas.plane import (
    SHIPPED_SHA256,
    pinned,
    plane_indices,
    plane_of,
    points_of,
    shipped_file,
    solve_plane_indices,
    unroll,
)
from gaussianverse.atlas.smoothness import unrolled
from gaussianverse.atlas.sphere import fibonacci_sphere, ring_sphere
from gaussianverse.atlas.transport.solver import assign

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "data" / "gaussianverse_official" / "sphere2plane.npy"


def cells_of(indices: np.ndarray, size: int) -> np.ndarray:
    """Unrolled position of each sphere point less its cell, [size^2, 2], in cells."""
    exact = unroll(fibonacci_sphere(size * size), size)[indices]
    return exact - np.stack(np.divmod(np.arange(size * size), size), axis=1)


@pytest.mark.parametrize("size", SHIPPED_SHA256)
def test_shipped_files_are_what_the_solver_gives_again(size: int) -> None:
    solved = solve_plane_indices(size)
    np.testing.assert_array_equal(solved, plane_indices(size))
    assert hashlib.sha256(shipped_file(size).read_bytes()).hexdigest() == SHIPPED_SHA256[size]
    stored = np.load(shipped_file(size), allow_pickle=False)
    assert (stored == solved).all()


@pytest.mark.parametrize("size", [8, 16, 31, 128, 192])
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
        pytest.skip(f"{PUBLISHED} is absent")
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


@pytest.mark.parametrize("size", SHIPPED_SHA256)
@pytest.mark.parametrize("fault", ["missing", "changed"])
def test_a_spoilt_file_is_named_with_the_mend(
    fault: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "changed":
        indices = np.load(shipped_file(size))
        indices[:2] = indices[1::-1]
        np.save(tmp_path / shipped_file(size).name, indices)
    monkeypatch.setattr(plane, "SHIPPED", tmp_path)
    mend = rf"python -m gaussianverse.atlas plane .*{size}\.npy --size {size}"
    with pytest.raises(AtlasError, match=rf"{size}\.npy (is missing|has SHA-256 .*, expected).*{mend}"):
        plane_indices.__wrapped__(size)


@pytest.mark.parametrize("size", [8, 31, 64])
def test_the_ring_is_its_own_plane(size: int) -> None:
    """The transport of the unrolled ring sphere onto the grid is the identity and costs 0."""
    cells = np.stack(np.divmod(np.arange(size * size), size), axis=1).astype(np.float64)
    flat = np.zeros((size * size, 1))
    solved = assign(np.hstack([unroll(ring_sphere(size), size), flat]), np.hstack([cells, flat]))
    np.testing.assert_array_equal(solved.indices, np.arange(size * size))
    assert solved.primal < 1e-20
    np.testing.assert_array_equal(plane_of(AtlasConfig(size=size, layout="ring")), np.arange(size * size))


def test_the_ring_is_smoother() -> None:
    by_layout = [
        unrolled(points_of(AtlasConfig(size=32, layout=layout)).reshape(32, 32, 3))
        for layout in ("fibonacci", "ring")
    ]
    assert by_layout[1] > by_layout[0] + 0.005
    g = gaussians(cloud("shell", 700))
    config = AtlasConfig(size=32, layout="ring")
    atlas = pack(g, config)
    assert atlas.stats["layout"] == "ring"
    rows = atlas.source[atlas.source >= 0]
    np.testing.assert_allclose(unpack(atlas.array, config).means, g.means[rows], atol=1e-6)
    assert np.abs(unpack(atlas.array, AtlasConfig(size=32)).means - g.means[rows]).max() > 0.1


def turned(size: int) -> np.ndarray:
    """Plane indices with another zero meridian: a different and valid file."""
    return np.roll(plane_indices(size).reshape(size, size), size // 4, axis=0)


def test_another_file_of_indices_is_used_in_any_shape(tmp_path: Path) -> None:
    np.save(tmp_path / "grid.npy", turned(16).astype(np.int32))
    np.save(tmp_path / "flat.npy", turned(16).ravel())
    configs = [AtlasConfig(size=16, plane_indices=str(tmp_path / f"{n}.npy")) for n in ("grid", "flat")]
    g = gaussians(cloud("ball", 200))
    first, second = (pack(g, config) for config in configs)
    assert (first.array == second.array).all()
    assert (np.roll(pack(g, AtlasConfig(size=16)).array, 4, axis=0) == first.array).all()
    np.testing.assert_allclose(
        np.sort(unpack(first.array, configs[0]).means, axis=0), np.sort(g.means, axis=0), atol=1e-6
    )


def test_published_indices_are_taken_in_place_of_ours() -> None:
    if not PUBLISHED.exists():
        pytest.skip(f"{PUBLISHED} is absent")
    config = pinned(AtlasConfig(plane_indices=str(PUBLISHED)))
    assert config.plane_sha256 == hashlib.sha256(PUBLISHED.read_bytes()).hexdigest()
    atlas = pack(gaussians(cloud("shell", 3000)), config)
    assert 0.97 < float(atlas.stats["smoothness_unrolled"]) < 0.99


def test_a_recorded_configuration_names_the_indices_by_hash(tmp_path: Path) -> None:
    path = tmp_path / "p.npy"
    np.save(path, turned(8))
    given = AtlasConfig(size=8, plane_indices=str(path))
    recorded = pinned(given)
    assert recorded.plane_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert pinned(recorded) == recorded
    assert pinned(AtlasConfig(size=8)) == AtlasConfig(size=8)
    np.save(path, turned(8)[::-1])
    with pytest.raises(AtlasError, match=r"p\.npy has SHA-256 .*, expected"):
        plane_of(recorded)
    assert pinned(given) != recorded


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (np.arange(63), "63 indices, expected each of 0 to 63 once"),
        (np.r_[np.arange(63), 0], "64 indices, expected each"),
        (np.arange(64) + 1, "64 indices, expected each"),
        (np.arange(64.0), "expected integers"),
        (b"text", "not a .npy file"),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_is_wrong_with_a_file_of_indices_is_named(
    content: np.ndarray | bytes | None, fault: str, tmp_path: Path
) -> None:
    path = tmp_path / "p.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(AtlasError, match=fault):
        plane_of(AtlasConfig(size=8, plane_indices=str(path)))
