"""Columns normal_agreement and mask_agreement, against their definitions written out pixel by pixel."""

import io
import json
import logging
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
from analytic import ball_geometry, ball_views
from numpy.typing import NDArray
from PIL import Image

from gaussianverse.fitter.config import FitConfig, load_fit_config
from gaussianverse.fitter.prepare import load_to_fit, prepare
from gaussianverse.fitter.surface import SurfaceAgreement
from gaussianverse.fitter.views import Views, load_views, resize, silhouette


def measured(views: Views, depths: NDArray[np.float32], normals: NDArray[np.float32]) -> SurfaceAgreement:
    found = SurfaceAgreement()
    for image, depth, normal, c2w, K in zip(views.images, depths, normals, views.c2w, views.Ks, strict=True):
        found.add(silhouette(image), depth, normal, c2w, K)
    return found


def by_definition(views: Views, depths: NDArray[np.float32], normals: NDArray[np.float32]) -> tuple[float, float]:
    """Both columns, one pixel at a time."""
    cosines, both, either = list[float](), 0, 0
    for image, depth, normal, c2w, K in zip(views.images, depths, normals, views.c2w, views.Ks, strict=True):
        mask, drawn = silhouette(image), np.isfinite(normal).all(-1)
        both, either = both + (mask & drawn).sum(), either + (mask | drawn).sum()
        counts = mask & drawn & np.isfinite(depth)

        def point(
            i: int, j: int, depth: NDArray[np.float32] = depth, K: NDArray[np.float64] = K
        ) -> NDArray[np.float64]:
            return float(depth[i, j]) * np.linalg.solve(K, [j + 0.5, i + 0.5, 1])

        H, W = mask.shape
        for i in range(1, H - 1):
            for j in range(1, W - 1):
                if not counts[i - 1 : i + 2, j - 1 : j + 2].all():
                    continue
                weights = {-1: 1, 0: 2, 1: 1}
                right = sum(w * (point(i + k, j + 1) - point(i + k, j - 1)) for k, w in weights.items())
                down = sum(w * (point(i + 1, j + k) - point(i - 1, j + k)) for k, w in weights.items())
                placed = np.cross(down, right)
                placed = placed / np.linalg.norm(placed)
                here = point(i, j)
                if -placed @ here / np.linalg.norm(here) < np.cos(np.radians(80)):
                    continue
                n = normal[i, j].astype(np.float64)
                cosines.append(float(n @ (c2w[:3, :3] @ placed) / np.linalg.norm(n)))
    return float(np.mean(cosines)), both / either


@pytest.mark.parametrize("seed", range(4))
def test_columns_are_as_defined(seed: int) -> None:
    rng = np.random.default_rng(seed)
    views = ball_views(count=3, size=20)
    depths, normals = ball_geometry(views)
    depths = (depths + rng.normal(0, 0.01, depths.shape)).astype(np.float32)
    normals = (normals * rng.uniform(0.5, 2) + rng.normal(0, 0.3, normals.shape)).astype(np.float32)
    normals[rng.random(depths.shape) < 0.02] = np.nan
    depths[rng.random(depths.shape) < 0.01] = np.nan
    found = measured(views, depths, normals)
    assert (found.normals, found.masks) == pytest.approx(by_definition(views, depths, normals), abs=1e-9)
    assert found.pixels > 50


def test_a_right_ball_agrees_and_a_flipped_one_is_known_to_contradict() -> None:
    views = ball_views(count=4, size=48)
    depths, normals = ball_geometry(views)
    right = measured(views, depths, normals)
    assert right.normals > 0.999
    assert right.masks > 0.97
    flipped = measured(views, depths, -normals)
    assert flipped.normals == pytest.approx(-right.normals, abs=1e-4)
    plane = np.ones((1, 8, 8), np.float32), np.tile(views.c2w[0, :3, 2].astype(np.float32), (1, 8, 8, 1))
    full = Views(np.full((1, 8, 8, 4), 255, np.uint8), views.c2w[:1], views.Ks[:1], ("a",))
    assert measured(full, *plane).normals == -0.9999, "-1 would mean unknown"
    half = measured(views, depths, np.where(np.arange(48)[:, None] < 24, normals, np.nan))
    assert half.masks == pytest.approx(0.5, abs=0.05)


def test_a_jump_of_depth_is_no_surface() -> None:
    views = ball_views(count=1, size=24)
    facing = np.tile(-views.c2w[0, :3, 2].astype(np.float32), (1, 24, 24, 1))
    full = Views(np.full((1, 24, 24, 4), 255, np.uint8), views.c2w, views.Ks, ("a",))
    depth = np.where(np.arange(24) < 12, 1.0, 1.6).astype(np.float32) * np.ones((1, 24, 1), np.float32)
    found = measured(full, depth, facing)
    assert found.normals > 0.9999
    assert found.pixels == 22 * 20, "all inner pixels but the two columns at the jump"


def test_without_a_surface_nothing_is_known() -> None:
    views = ball_views(count=2, size=16)
    nothing = np.full((2, 16, 16), np.nan, np.float32), np.full((2, 16, 16, 3), np.nan, np.float32)
    assert (SurfaceAgreement().normals, SurfaceAgreement().masks) == (-1, -1)
    found = measured(views, *nothing)
    assert (found.normals, found.masks) == (-1, 0)


def write_gobjaverse(root: Path, views: Views, *, flipped: Collection[int] = ()) -> Path:
    """Renders in GObjaverse's layout, with `_nd.exr`."""
    openexr = pytest.importorskip("OpenEXR")
    depths, normals = ball_geometry(views)
    for i, name in enumerate(views.names):
        folder = root / name
        folder.mkdir(parents=True)
        Image.fromarray(views.images[i]).save(folder / f"{name}.png")
        c2w, fov = views.c2w[i], 2 * float(np.arctan(views.width / 2 / views.Ks[i, 0, 0]))
        axes = dict(zip(("x", "y", "z", "origin"), c2w[:3].T.tolist(), strict=True))
        (folder / f"{name}.json").write_text(json.dumps({**axes, "x_fov": fov, "y_fov": fov}))
        x, y, z = -normals[i].transpose(2, 0, 1) if i in flipped else normals[i].transpose(2, 0, 1)
        channels = dict(zip("RGBA", map(np.ascontiguousarray, (-x, z, -y, depths[i])), strict=True))
        out = io.BytesIO()
        openexr.File({"compression": openexr.ZIP_COMPRESSION}, channels).write(out)
        (folder / f"{name}_nd.exr").write_bytes(out.getvalue())
    return root


def test_views_are_compared_as_they_are_read(tmp_path: Path) -> None:
    views = ball_views(count=12, size=48)
    path = write_gobjaverse(tmp_path / "a", views, flipped={0, 3, 6, 9})
    assert load_views(path).normal_agreement == -1, "nobody asked"
    four = load_views(path, compared_views=4, size=24)
    assert four.depths is None
    assert four.normal_agreement < -0.999, "views 0, 3, 6 and 9 of twelve"
    assert four.mask_agreement > 0.97
    every = load_views(path, compared_views=50, with_depth=True)
    assert every.normals is None
    assert every.depths is not None
    assert 0.2 < every.normal_agreement < 0.45, "a third is flipped"
    assert resize(every, 24).normal_agreement == every[np.arange(3)].normal_agreement == every.normal_agreement
    hashes = {load_views(path, compared_views=n).input_sha256 for n in (0, 4, 12)}
    assert len(hashes) == 1, "what is only compared is no input"
    assert every.input_sha256 not in hashes, "depth that is asked for is one"


def test_a_broken_exr_costs_its_view_only_where_depth_is_needed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_gobjaverse(tmp_path / "a", ball_views(count=6, size=24))
    (path / "00003" / "00003_nd.exr").write_bytes(b"not an exr")
    with caplog.at_level(logging.WARNING):
        found = load_views(path, compared_views=2)
    assert len(found) == 6
    assert found.normal_agreement > 0.99
    assert "view 00003: the EXR cannot be decoded" in caplog.text
    assert len(load_views(path, compared_views=2, with_depth=True)) == 5


def test_profiles_measure_them_and_old_configurations_do_not(tmp_path: Path) -> None:
    path = write_gobjaverse(tmp_path / "a", ball_views(count=12, size=32))
    config = load_fit_config("test")
    stats = prepare(load_to_fit(path, "gobjaverse", config), config).stats
    assert stats["normal_agreement"] > 0.99  # type: ignore[operator]
    assert stats["mask_agreement"] > 0.9  # type: ignore[operator]
    assert stats["view_hash"] != ""
    assert FitConfig().compared_views == 0
