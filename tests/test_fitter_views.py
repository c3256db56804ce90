"""Views: validation, duplicates, hold-out, shrinking."""

import dataclasses
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from analytic import ball_views
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gaussianverse.fitter import resample
from gaussianverse.fitter.config import FitConfig
from gaussianverse.fitter.errors import BadInput, MissingViews
from gaussianverse.fitter.prepare import prepare
from gaussianverse.fitter.resample import area_mean, shrink_depth, shrink_rgba
from gaussianverse.fitter.views import Views, drop_duplicate_poses, resize, split_heldout, split_test


def look_at_origin(azimuth: float, elevation: float, radius: float) -> np.ndarray:
    """OpenCV camera-to-world matrix from its definition: z towards the origin, y down."""
    eye = radius * np.array(
        [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    )
    z = -eye / radius
    x = np.cross(z, [0, 0, 1])
    x /= np.linalg.norm(x)
    c2w = np.eye(4)
    c2w[:3] = np.stack([x, np.cross(z, x), z, eye], axis=1)
    return c2w


def ring(n: int, H: int = 6, W: int = 8) -> Views:
    rng = np.random.default_rng(0)
    K = np.array([[9.0, 0, W / 2], [0, 9.0, H / 2], [0, 0, 1]])
    return Views(
        images=rng.integers(0, 256, (n, H, W, 4), np.uint8),
        c2w=np.stack([look_at_origin(2 * np.pi * i / n, 0.3, 2) for i in range(n)]),
        Ks=np.tile(K, (n, 1, 1)),
        names=tuple(f"v{i}" for i in range(n)),
    )


def test_viewmats_take_the_camera_to_its_origin_and_the_centre_before_it() -> None:
    views = ring(5)
    eyes = np.einsum("vij,vj->vi", views.viewmats, views.c2w[:, :, 3])
    np.testing.assert_allclose(eyes, [[0, 0, 0, 1]] * 5, atol=1e-12)
    centre = views.viewmats @ [0, 0, 0, 1]
    np.testing.assert_allclose(centre, [[0, 0, 2, 1]] * 5, atol=1e-12)
    assert (len(views), views.height, views.width) == (5, 6, 8)


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"), [(2, 4, [1, 4], [0, 1, 2, 3]), (3, 2, [1, 3, 5], [1, 3])]
)
def test_a_smaller_depth_map_is_sampled_under_its_pixels_centres(
    height: int, width: int, rows: list[int], columns: list[int]
) -> None:
    depth = np.arange(6 * 4, dtype=np.float32).reshape(6, 4)
    np.testing.assert_array_equal(shrink_depth(depth, height, width), depth[np.ix_(rows, columns)])


def with_pose(entry: tuple[int, ...], value: float) -> Views:
    views = ring(3)
    c2w = views.c2w.copy()
    c2w[(1, *entry)] = value
    return dataclasses.replace(views, c2w=c2w)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pose_that_is_not_finite_names_its_view(value: float) -> None:
    with pytest.raises(BadInput, match=r"view v1: .*NaN"):
        with_pose((0, 3), value)


def test_scaled_mirrored_and_projective_poses_are_refused() -> None:
    views = ring(3)
    for change in (np.diag([1.01, 1.01, 1.01, 1]), np.diag([1.0, 1, -1, 1])):
        c2w = views.c2w.copy()
        c2w[1] = c2w[1] @ change
        with pytest.raises(BadInput, match=r"view v1: .*right-handed"):
            dataclasses.replace(views, c2w=c2w)
    with pytest.raises(BadInput, match=r"view v1: .*last row"):
        with_pose((3, 0), 0.5)


def test_rotation_within_tolerance_is_accepted() -> None:
    views = ring(3)
    assert len(dataclasses.replace(views, c2w=views.c2w + 1e-5 * (np.arange(4) < 3)[:, None])) == 3


def test_focal_length_must_be_positive() -> None:
    views = ring(3)
    Ks = views.Ks.copy()
    Ks[2, 0, 0] = 0
    with pytest.raises(BadInput, match=r"view v2: .*focal"):
        dataclasses.replace(views, Ks=Ks)


@pytest.mark.parametrize("entry", [(0, 1), (1, 0)])
def test_skew_is_refused(entry: tuple[int, int]) -> None:
    views = ring(3)
    Ks = views.Ks.copy()
    Ks[(1, *entry)] = 0.5
    with pytest.raises(BadInput, match=r"view v1: .*skew 0"):
        dataclasses.replace(views, Ks=Ks)


def test_numbers_that_float32_cannot_multiply_are_refused() -> None:
    views = ring(3)
    Ks = views.Ks.copy()
    Ks[2, 0, 0] = 1e300
    with pytest.raises(BadInput, match=r"view v2: .*beyond 1e\+12"):
        dataclasses.replace(views, Ks=Ks)
    with pytest.raises(BadInput, match=r"view v1: .*beyond 1e\+12"):
        with_pose((0, 3), 1e200)


@pytest.mark.parametrize(
    "change",
    [
        {"images": np.zeros((3, 6, 8, 3), np.uint8)},
        {"images": np.zeros((3, 6, 8, 4), np.float32)},
        {"c2w": np.zeros((3, 3, 4))},
        {"Ks": np.ones((2, 3, 3))},
        {"depths": np.zeros((3, 6, 7), np.float32)},
        {"names": ("a", "b")},
    ],
)
def test_shapes_and_types_are_checked(change: dict[str, object]) -> None:
    with pytest.raises(BadInput, match="expected"):
        dataclasses.replace(ring(3), **change)


def test_duplicates_keep_the_first_and_near_poses_stay() -> None:
    views = ring(4)[np.array([0, 1, 2, 0, 3, 1])]
    nudged = views.c2w.copy()
    nudged[3, 0, 3] += 5e-7  # the same pose, re-serialised
    nudged[5, 0, 3] += 5e-6  # another pose
    distinct = drop_duplicate_poses(dataclasses.replace(views, c2w=nudged, names=tuple("abcdef")))
    assert distinct.names == ("a", "b", "c", "e", "f")


@pytest.mark.parametrize(("unit", "shift"), [(1e-4, 0), (1e4, 0), (1, 5e6)])
def test_duplicates_are_the_same_in_any_unit_and_at_any_place(unit: float, shift: float) -> None:
    views = ring(6)[np.array([0, 1, 2, 0, 3, 1])]
    c2w = views.c2w.copy()
    c2w[3, 0, 3] += 5e-7
    c2w[5, 0, 3] += 2e-5
    c2w[2, :3, :3] = c2w[0, :3, :3]
    c2w[2, :3, 3] = c2w[0, :3, 3] + 1e-3  # moved aside a little, without a turn
    c2w[:, :3, 3] = unit * c2w[:, :3, 3] + shift
    distinct = drop_duplicate_poses(dataclasses.replace(views, c2w=c2w, names=tuple("abcdef")))
    assert distinct.names == ("a", "b", "c", "e", "f")


def test_duplicates_are_found_whatever_the_order_and_among_thousands() -> None:
    rng = np.random.default_rng(0)
    single = ring(1, 1, 1)
    c2w = np.repeat(single.c2w, 6000, 0)
    c2w[:, :3, 3] = rng.uniform(-1, 1, (6000, 3))
    c2w[3000:] = c2w[rng.permutation(3000)]
    c2w[3000:, :3, 3] += rng.uniform(-2e-7, 2e-7, (3000, 3))
    images, Ks = np.repeat(single.images, 6000, 0), np.repeat(single.Ks, 6000, 0)
    distinct = drop_duplicate_poses(Views(images, c2w, Ks, tuple(map(str, range(6000)))))
    assert distinct.names == tuple(map(str, range(3000)))


@given(n=st.integers(1, 30), every=st.integers(2, 12), repeats=st.integers(0, 5))
def test_split_never_leaks_nor_leaves_training_empty(n: int, every: int, repeats: int) -> None:
    index = np.concatenate([np.arange(n), np.arange(repeats) % n])
    train, heldout = split_heldout(ring(n)[index], every)
    assert len(train) >= 1
    assert len(heldout) == n // every
    assert len(train) + len(heldout) == n
    assert not set(train.names) & set(heldout.names)


def test_split_zero_holds_out_nothing_and_one_is_refused() -> None:
    train, heldout = split_heldout(ring(5), 0)
    assert (len(train), len(heldout)) == (5, 0)
    for every in (1, -2):
        with pytest.raises(ValueError, match="every"):
            split_heldout(ring(5), every)


@given(n=st.integers(1, 40), m=st.integers(1, 40), axis=st.integers(0, 1), seed=st.integers(0, 9))
def test_area_mean_weighs_each_cell_by_its_overlap(n: int, m: int, axis: int, seed: int) -> None:
    n, m = max(n, m), min(n, m)
    cells = np.random.default_rng(seed).uniform(size=(n, 3) if axis == 0 else (3, n))
    i, k = np.arange(n), np.arange(m)[:, None]
    overlap = np.minimum((k + 1) * n / m, i + 1) - np.maximum(k * n / m, i)
    weights = overlap.clip(min=0) * m / n
    expected = weights @ cells if axis == 0 else cells @ weights.T
    np.testing.assert_allclose(area_mean(cells, m, axis), expected, rtol=1e-10, atol=1e-12)


def test_halving_is_the_mean_of_blocks_and_hidden_colour_does_not_bleed() -> None:
    image = np.zeros((2, 2, 4), np.uint8)
    image[0, 0] = (200, 100, 40, 255)
    image[0, 1] = (100, 100, 40, 53)
    image[1] = (255, 0, 255, 0)  # a bright colour, hidden
    np.testing.assert_array_equal(shrink_rgba(image, 1, 1)[0, 0], [183, 100, 40, 77])
    # red: (200 * 255 + 100 * 53) / 308; alpha: 308 / 4


def test_shrinking_keeps_a_constant_at_any_ratio() -> None:
    image = np.full((13, 17, 4), (10, 90, 250, 128), np.uint8)
    assert (shrink_rgba(image, 5, 7) == (10, 90, 250, 128)).all()


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    new=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    strip=st.integers(1, 500),
    seed=st.integers(0, 9),
)
def test_strips_give_what_the_whole_gives(size: tuple[int, int], new: tuple[int, int], strip: int, seed: int) -> None:
    height, width = np.minimum(size, new)
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, 4), np.uint8) * (rng.random((*size, 1)) < 0.6)
    rgba = image.astype(np.float64)
    rgba[..., :3] *= rgba[..., 3:] / 255
    mean = area_mean(area_mean(rgba, height, 0), width, 1)
    alpha = mean[..., 3:]
    mean[..., :3] *= np.divide(255, alpha, out=np.zeros_like(alpha), where=alpha > 1e-6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "_STRIP_PIXELS", strip)
        shrunk = shrink_rgba(image.astype(np.uint8), height, width)
    np.testing.assert_array_equal(shrunk, np.rint(mean).clip(0, 255))


def test_shrinking_a_large_image_takes_little_memory() -> None:
    image = np.full((4096, 2048, 4), 200, np.uint8)
    tracemalloc.start()
    shrink_rgba(image, 64, 32)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # the image in float64 is 268 MB


def test_an_objects_images_are_in_memory_once(tmp_path: Path) -> None:
    """Besides numpy's arrays, the allocator may keep what was freed, so what counts is the process's memory."""
    rgba = np.full((512, 512, 4), 200, np.uint8)
    rgba[..., 3] = 255 * (np.hypot(*np.mgrid[-256:256, -256:256]) < 200)
    image, frames = Image.fromarray(rgba), []
    for k, pose in enumerate(ring(100, H=4, W=4).c2w @ np.diag([1.0, -1, -1, 1])):
        image.save(tmp_path / f"{k}.png", compress_level=1)
        frames.append({"file_path": f"{k}.png", "transform_matrix": pose.tolist()})
    (tmp_path / "transforms.json").write_text(json.dumps({"fl_x": 400.0, "frames": frames}))
    program = """
import sys
from gaussianverse.fitter.memory import peak_mb, reset_peak
from gaussianverse.fitter.views import load_views
def now():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) / 1024
before = now()
views = load_views(sys.argv[1])
print(views.images.nbytes / 2**20, now() - before, peak_mb() - before)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    images, kept, peak = map(float, done.stdout.split())
    assert images == 100
    assert kept < 1.2 * images + 40
    assert peak < 1.2 * images + 80


def test_depth_is_sampled_and_not_averaged() -> None:
    depth = np.where(np.arange(6) < 3, np.float32(1), np.float32(5))[None].repeat(6, 0)
    assert set(np.unique(shrink_depth(depth, 4, 4))) == {1, 5}


def test_resize_scales_K_so_that_a_point_stays_at_its_place_in_the_picture() -> None:
    views = ring(3, H=96, W=128)
    small = resize(views, 32)
    assert small.images.shape == (3, 24, 32, 4)
    point = np.array([0.2, -0.1, 0.3, 1])

    def project(v: Views) -> np.ndarray:
        uvw = np.einsum("vij,vj->vi", v.Ks, (v.viewmats @ point)[:, :3])
        return uvw[:, :2] / uvw[:, 2:] / (v.width, v.height)

    np.testing.assert_allclose(project(small), project(views), rtol=1e-12)


def test_resize_moves_a_drawn_dot_to_where_K_projects_it() -> None:
    views = ring(1, H=120, W=120)
    images = np.zeros_like(views.images)
    images[0, 30:36, 60:66] = 255  # its centre is (63, 33) in pixels
    small = resize(dataclasses.replace(views, images=images), 40)
    alpha = small.images[0, ..., 3].astype(float)
    rows, cols = np.indices(alpha.shape) + 0.5
    scale = small.Ks[0, 0, 2] / views.Ks[0, 0, 2]
    assert (alpha * cols).sum() / alpha.sum() == pytest.approx(63 * scale)
    assert (alpha * rows).sum() / alpha.sum() == pytest.approx(33 * scale)


def test_resize_leaves_smaller_views_alone() -> None:
    views = ring(2)
    assert resize(views, 100).images.shape == views.images.shape


def test_the_test_split_is_held_out_whatever_its_order_and_its_repeated_poses_are_trained_on() -> None:
    views = ring(6)
    marked = dataclasses.replace(views, test=np.array([True, False, True, False, False, True]))
    train, heldout = split_test(marked)
    assert (train.names, heldout.names) == (
        tuple(views.names[k] for k in (1, 3, 4)),
        tuple(views.names[k] for k in (0, 2, 5)),
    )
    c2w = views.c2w.copy()
    c2w[2] = c2w[3]
    train, heldout = split_test(dataclasses.replace(marked, c2w=c2w))
    assert (train.names, heldout.names) == (("v1", "v3", "v4"), ("v0", "v5"))
    assert len(split_test(views)[1]) == 0
    with pytest.raises(BadInput, match="test"):
        dataclasses.replace(views, test=np.zeros(5, bool))


def test_without_a_view_of_the_test_split_there_is_no_fit() -> None:
    config = FitConfig(size=24, heldout="test", heldout_every=3)
    views = ball_views(6, 24)
    with pytest.raises(MissingViews, match="no view of the test split"):
        prepare(views, config)
    prepared = prepare(dataclasses.replace(views, test=np.arange(6) > 3), config)
    assert (prepared.train.names, prepared.heldout.names) == (views.names[:4], views.names[4:])
    every = prepare(dataclasses.replace(views, test=None), FitConfig(size=24, heldout_every=3))
    assert len(every.heldout) == 2
