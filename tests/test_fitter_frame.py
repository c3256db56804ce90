"""Frames: an object is fitted as well wherever it lies and however large it is, and can be put back there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analytic import RADIUS, ball_views

from gaussianverse.atlas.configuration import ConfigError, from_table
from gaussianverse.fitter.config import FitConfig, load_profile
from gaussianverse.fitter.errors import BadInput
from gaussianverse.fitter.fit import Fit, fit_object
from gaussianverse.fitter.frame import Frame, frame_of, published_frame, reach_of
from gaussianverse.fitter.prepare import prepare
from gaussianverse.fitter.views import Views

CAMERAS = Path(__file__).resolve().parents[2] / "shared" / "data" / "gobjaverse_cameras"
UTM = (5e5, 5e6, 120.0)


def config(**changes: Any) -> FitConfig:
    tables = load_profile("test")["fit"]
    return from_table(FitConfig, {**tables, "size": 48, "start_size": 0, "heldout_every": 6, "steps": 40, **changes})


def placed(views: Views, unit: float, shift: tuple[float, float, float] = (0, 0, 0)) -> Views:
    """Views of the same object in a world where it is `unit` times as large, then moved by `shift`."""
    c2w = views.c2w.copy()
    c2w[:, :3, 3] = unit * c2w[:, :3, 3] + shift
    depths = None if views.depths is None else np.float32(unit) * views.depths
    return dataclasses.replace(views, c2w=c2w, depths=depths)


def world(fit: Fit) -> np.ndarray:
    """Means in float64, put back by the columns of the tables."""
    s = fit.stats
    return np.array([s[f"center_{a}"] for a in "xyz"]) + s["unit"] * fit.gaussians.means.astype(np.float64)


@pytest.mark.parametrize(
    ("unit", "shift", "init"),
    [
        (1.0, UTM, "hull"),
        (1000.0, (0, 0, 0), "hull"),
        (0.001, (0, 0, 0), "hull"),
        (1e-5, (0, 0, 0), "random"),
        (0.01, UTM, "depth"),
        (1000.0, UTM, "depth"),
    ],
)
def test_an_object_anywhere_is_fitted_as_at_the_origin(
    unit: float, shift: tuple[float, float, float], init: str
) -> None:
    views = dataclasses.replace(ball_views(8), depths=np.full((8, 48, 48), 1.25, np.float32))
    here, there = (fit_object(v, config(init=init), seed=0) for v in (views, placed(views, unit, shift)))
    # cameras that are rounded to float32 before they are moved lose 5 dB and more in the UTM world
    assert there.stats["psnr"] == pytest.approx(here.stats["psnr"], abs=0.1)
    np.testing.assert_allclose((world(there) - shift) / unit, world(here), atol=2e-3)
    assert np.abs(there.gaussians.means).max() < 1.5  # about the sphere of the atlas
    low = [there.stats[f"bbox_min_{a}"] for a in "xyz"]
    np.testing.assert_array_equal(low, there.gaussians.means.min(0))
    assert (there.gaussians.scales > 0).all()


def test_a_world_like_gobjaverses_is_kept_and_others_are_not() -> None:
    views = ball_views(12)
    assert reach_of(views) == pytest.approx(RADIUS, abs=0.02)
    kept, moved = {"center_x": 0.0, "center_y": 0.0, "center_z": 0.0, "unit": 1.0}, frame_of(views).stats
    for unit, shift, expected in [
        (1.0, (0, 0, 0), kept),
        (2.4, (0, 0, 0), kept),  # reaches 0.96
        (2.6, (0, 0, 0), None),
        (1.0, (0.5, 0, 0), kept),
        (1.0, (0.7, 0, 0), None),  # as large as GObjaverse's, but beyond the unit ball
        (0.3, (0, 0, 0), kept),
        (0.2, (0, 0, 0), None),
    ]:
        found = prepare(placed(views, unit, shift), config()).placed.stats
        assert (found == kept) == (expected is kept), (unit, shift)
    assert prepare(views, config(normalise="always")).placed.stats == pytest.approx(moved, abs=1e-6)
    assert prepare(placed(views, 1000), config(normalise="never")).placed.stats == kept


@pytest.mark.skipif(not CAMERAS.is_dir(), reason="shared sample data is absent")
@pytest.mark.parametrize("inst", ["9350303", "9351401", "9351417"])
def test_gobjaverses_own_cameras_keep_positions_whatever_they_show(inst: str) -> None:
    poses = []
    for file in sorted((CAMERAS / inst).glob("*/*/*.json")):
        camera = json.loads(file.read_text())
        poses.append([*np.stack([camera[key] for key in ("x", "y", "z", "origin")], 1).tolist(), [0, 0, 0, 1]])
    focal = 16 / np.tan(0.6911503 / 2)
    K = [[focal, 0, 16], [0, focal, 16], [0, 0, 1]]
    images = np.full((len(poses), 32, 32, 4), 255, np.uint8)  # opaque to the corners, the farthest that can be seen
    views = Views(images, np.array(poses), np.array([K] * len(poses)), tuple(map(str, range(len(poses)))))
    assert 0.6 < reach_of(views) < 0.9
    assert published_frame(views, frame_of(views), "auto").unit == 1.0


def test_what_float32_cannot_hold_is_refused_where_positions_must_be_kept() -> None:
    views = ball_views(8)
    # steps of 7.6e-6 and 1.5e-5; the cube in view is 1.2 wide
    prepare(placed(views, 1, (0, -100.0, 0)), config(normalise="never"))
    with pytest.raises(BadInput, match="normalise = 'auto'"):
        prepare(placed(views, 1, (0, -200.0, 0)), config(normalise="never"))
    with pytest.raises(BadInput, match=r"lies 5e\+06 from the origin.*0\.5 apart.*normalise = 'auto'"):
        prepare(placed(views, 1, UTM), config(normalise="never"))
    prepare(placed(views, 1e6, UTM), config(normalise="never"))  # so large that a step is small beside it


def test_a_bad_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="normalise is 'yes', expected one of auto, never, always"):
        config(normalise="yes")


def test_the_reach_is_that_of_the_pixel_farthest_out() -> None:
    views = ball_views(6)
    images = np.zeros_like(views.images)
    images[2, 40, 7] = 255
    views = dataclasses.replace(views, images=images)
    K, c2w = views.Ks[2], views.c2w[2]
    ray = c2w[:3, :3] @ [(7.5 - K[0, 2]) / K[0, 0], (40.5 - K[1, 2]) / K[1, 1], 1]
    along = c2w[:3, 3] - (c2w[:3, 3] @ ray) / (ray @ ray) * ray  # the ray's point nearest to the origin
    assert reach_of(views) == pytest.approx(np.linalg.norm(along))
    assert published_frame(views, Frame(np.ones(3), 7.0), "auto").unit == 1.0
