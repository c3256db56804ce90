"""Views that were made or exported wrongly: each fault by its name, mended or refused, and no right view blamed."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analytic import ball_views, write_views
from PIL import Image, ImageOps
from test_fitter_sources_gobjaverse import camera, png, write_folder

from gaussianverse.atlas.configuration import ConfigError, from_table
from gaussianverse.fitter.alpha import RimColors, straight
from gaussianverse.fitter.config import FitConfig, InputsConfig
from gaussianverse.fitter.errors import BadInput
from gaussianverse.fitter.inputs import check_inputs, same_picture, without_mask
from gaussianverse.fitter.prepare import prepare
from gaussianverse.fitter.views import Views, load_views

SAMPLES = sorted((Path(__file__).parents[1] / "manifests" / "sample").glob("*/00000"))
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def premultiplied(images: np.ndarray) -> np.ndarray:
    """Images with straight alpha, multiplied by it."""
    colors = np.rint(images[..., :3] * (images[..., 3:] / 255))
    return np.concatenate([colors.astype(np.uint8), images[..., 3:]], -1)


def seen(images: np.ndarray) -> RimColors:
    found = RimColors()
    for image in images:
        found.add(image)
    return found


def drawn(folder: Path) -> np.ndarray:
    return np.stack([np.array(Image.open(file)) for file in sorted(folder.glob("000[0-3][05]/?????.png"))])


@pytest.mark.parametrize("folder", [s.parent for s in SAMPLES], ids=lambda p: p.name)
@pytest.mark.parametrize("lossy", [False, True])
def test_premultiplied_colours_are_told_from_straight_ones(folder: Path, lossy: bool) -> None:
    images = drawn(folder)
    assert len(images) == 8
    for given, expected in ((images, False), (premultiplied(images), True)):
        if lossy:
            files = [io.BytesIO() for _ in given]
            for image, file in zip(given, files, strict=True):
                Image.fromarray(image).save(file, "WEBP", quality=80)
            given = np.stack([np.array(Image.open(file).convert("RGBA")) for file in files])
        found = seen(given)
        assert found.premultiplied == expected, found
        # measured on 48 objects: -0.08 to 0.38, and 0.89 to 1.26
        assert abs(found.slope - expected) < 0.45


@pytest.mark.skipif(not (DATA / "nerf_synthetic_mic_800").is_dir(), reason="shared sample data is absent")
def test_blenders_images_are_straight() -> None:
    files = sorted((DATA / "nerf_synthetic_mic_800" / "train").glob("*.png"))[:3]
    images = np.stack([np.array(Image.open(file)) for file in files])
    assert not seen(images).premultiplied
    assert seen(premultiplied(images)).premultiplied


def test_dark_objects_outlines_and_glass_are_not_called_premultiplied() -> None:
    rng = np.random.default_rng(0)
    images = ball_views(6, 48).images
    dark = images.copy()
    dark[..., :3] //= 20
    assert not seen(premultiplied(dark)).premultiplied  # cannot be told, and dividing would change little
    outlined = images.copy()
    outlined[(images[..., 3] < 255) & (images[..., 3] > 0), :3] = 0
    assert not seen(outlined).premultiplied
    glass = images.copy()
    glass[..., 3] = np.where(images[..., 3] > 0, rng.integers(40, 200, images.shape[:3]), 0)
    assert not seen(glass).premultiplied
    assert not seen(images[:, :1, :1]).premultiplied
    white = images.copy()  # a white matte that was cut out badly
    rim = (images[..., 3] < 255) & (images[..., 3] > 0)
    white[rim, :3] = 255
    assert not seen(white).premultiplied


def test_rims_that_premultiplication_does_not_explain_are_no_sign_of_it() -> None:
    drop2 = 3.0 * 1000 * 20**2
    for factor, brighter, expected in (
        (1.5, 0, True),
        (4.0, 0, True),
        (20.0, 0, False),
        (1.5, 90, True),
        (1.5, 300, False),
    ):
        found = RimColors(1000, 1000, brighter, drop2=drop2, both=drop2, lost2=factor * drop2)
        assert found.premultiplied == expected, (factor, brighter)


def test_colours_are_divided_by_alpha() -> None:
    image = np.array([[(20, 0, 10, 40), (255, 7, 0, 255), (0, 0, 0, 0), (9, 0, 0, 8)]], np.uint8)
    expected = [[(128, 0, 64, 40), (255, 7, 0, 255), (0, 0, 0, 0), (255, 0, 0, 8)]]
    np.testing.assert_array_equal(straight(image), expected)


@pytest.mark.parametrize("size", [None, 16])
def test_premultiplied_views_are_read_as_their_straight_ones(size: int | None, tmp_path: Path) -> None:
    views = ball_views(6)
    right = load_views(write_views(views, tmp_path / "a"), size=size)
    folder = write_views(dataclasses.replace(views, images=premultiplied(views.images)), tmp_path / "b")
    mended = load_views(folder, size=size)
    partial = right.images[..., 3] > 60
    difference = np.abs(mended.images.astype(int) - right.images)
    assert difference[partial].max() <= 4
    kept = load_views(folder, size=size, inputs=InputsConfig(premultiplied="keep"))
    assert np.abs(kept.images.astype(int) - right.images)[partial].max() > 20
    with pytest.raises(BadInput, match=r"colours are premultiplied by alpha.*'mend' or 'keep'"):
        load_views(folder, size=size, inputs=InputsConfig(premultiplied="refuse"))


def test_alpha_without_a_background_is_refused_unless_it_is_meant() -> None:
    views = ball_views(6, 16)
    images = views.images.copy()
    images[..., 3] = 255
    opaque = dataclasses.replace(views, images=images)
    with pytest.raises(BadInput, match=r"alpha is 255 in every pixel of every view.*inputs.opaque = 'keep'"):
        prepare(opaque, FitConfig())
    assert len(prepare(opaque, from_table(FitConfig, {"inputs": {"opaque": "keep"}})).train) == 6
    images[3, 0, 0, 3] = 254
    check_inputs(dataclasses.replace(views, images=images), InputsConfig())


def test_inverted_alpha_is_refused_and_close_ups_are_not() -> None:
    views = ball_views(6, 16)
    images = views.images.copy()
    images[..., 3] = 255 - images[..., 3]
    inverted = dataclasses.replace(views, images=images)
    with pytest.raises(BadInput, match=r"seems to be inverted.*fit.inputs.opaque = 'keep'"):
        prepare(inverted, FitConfig())
    check_inputs(inverted, InputsConfig(opaque="keep"))
    for change in ((4, slice(0, 1), slice(0, 1), 0), (5, slice(None), slice(None), 255)):
        close = images.copy()
        close[change[:3]] = (9, 9, 9, change[3])  # a corner that is clear; a view that is filled
        check_inputs(dataclasses.replace(views, images=close), InputsConfig())


@pytest.mark.parametrize("distance", [1.6, 1600.0])
def test_views_without_a_mask_are_left_out_and_close_ups_are_not(distance: float) -> None:
    views = ball_views(12, 48)
    images = views.images.copy()
    images[[2, 7], ..., 3] = 255
    c2w, Ks = views.c2w.copy(), views.Ks.copy()
    Ks[7, [0, 1], [0, 1]] *= 8  # a tele lens, for which the ball fills the frame
    c2w[:, :3, 3] *= distance / 1.6
    mixed = dataclasses.replace(views, images=images, c2w=c2w, Ks=Ks)
    assert without_mask(mixed).tolist() == [2]
    prepared = prepare(mixed, from_table(FitConfig, {"size": 48}))
    assert prepared.stats["views_skipped"].split("; ") == [  # type: ignore[union-attr]
        "00002: alpha is 255 everywhere, and other views show background there"
    ]
    assert (prepared.stats["n_views_used"], "00007" in prepared.train.names) == (11, True)
    kept = from_table(FitConfig, {"size": 48, "pose_gate": "off", "inputs": {"opaque": "keep"}})
    assert prepare(mixed, kept).stats["n_views_used"] == 12
    images[:4, ..., 3] = 255
    with pytest.raises(BadInput, match=r"view 00000: alpha is 255 everywhere.*as in 4 of 12 views"):
        prepare(dataclasses.replace(mixed, images=images), from_table(FitConfig, {"size": 48}))


def test_cameras_that_were_rounded_far_out_are_refused_and_others_are_not() -> None:
    views = ball_views(12, 16)
    for shift, wrong in (((0, 0, 0), False), ((200.0, 0, 0), False), ((5e5, 5e6, 0), True), ((0, 0, 3e4), True)):
        c2w = views.c2w.copy()
        c2w[:, :3, 3] += shift
        check_inputs(dataclasses.replace(views, c2w=c2w), InputsConfig())
        rounded = dataclasses.replace(views, c2w=c2w.astype(np.float32).astype(np.float64))
        if wrong:
            with pytest.raises(BadInput, match=r"positions were rounded to float32.*inputs.rounded = 'keep'"):
                check_inputs(rounded, InputsConfig())
        else:
            check_inputs(rounded, InputsConfig())
        check_inputs(rounded, InputsConfig(rounded="keep"))
    check_inputs(views[np.zeros(3, np.intp)], InputsConfig())  # one place has no spread


def oriented(image: np.ndarray, orientation: int, format: str) -> bytes:
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(image).save(out, format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
    return out.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_orientations_are_refused_applied_or_kept(orientation: int, format: str, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(1, 256, (6, 8, 4), np.uint8)
    data = oriented(image, orientation, format)
    found = {f"{i:05d}/{i:05d}.json": camera(i) for i in range(2)}
    write_folder(tmp_path, found | {f"{i:05d}/{i:05d}.png": data for i in range(2)})
    keep, apply = (InputsConfig(orientation=o, sizes="keep") for o in ("keep", "apply"))
    np.testing.assert_array_equal(load_views(tmp_path, inputs=keep).images[0], image)
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGBA"))
    np.testing.assert_array_equal(load_views(tmp_path, inputs=apply).images[1], expected)
    if orientation > 1:
        with pytest.raises(BadInput, match=f"2 of 2 views .*EXIF orientation {orientation}.*'apply' or 'keep'"):
            load_views(tmp_path)


def test_an_exif_that_cannot_be_read_is_no_fault(tmp_path: Path) -> None:
    data = oriented(np.full((6, 8, 4), 9, np.uint8), 6, "PNG")
    at = data.index(b"eXIf") + 4
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).save(out, "PNG", exif=b"Exif\0\0" + data[at : at + 6] + b"\xff" * 9)
    write_folder(tmp_path, {"00000/00000.png": out.getvalue(), "00000/00000.json": camera(0)})
    assert len(load_views(tmp_path)) == 1


def wide(tmp_path: Path, **shared: Any) -> Path:
    frames = [{"file_path": f"{i}.png", "transform_matrix": np.eye(4).tolist()} for i in range(3)]
    for frame in frames:
        (tmp_path / str(frame["file_path"])).write_bytes(png((1, 2, 3, 200), (64, 48)))
    (tmp_path / "transforms.json").write_text(json.dumps({**shared, "frames": frames}))
    return tmp_path


@pytest.mark.parametrize(
    "shared", [{"w": 48, "h": 64}, {"w": 480, "h": 640}, {"w": 64, "h": 64}, {"w": 1024, "h": 1000}]
)
def test_sizes_that_disagree_with_the_image_are_refused(shared: dict[str, int], tmp_path: Path) -> None:
    swapped = ", swapped" if shared["w"] < shared["h"] else ""
    with pytest.raises(BadInput, match=rf"given for {shared['w']} x {shared['h']} pixels{swapped}, and the image"):
        load_views(wide(tmp_path, fl_x=50.0, **shared))
    views = load_views(tmp_path, inputs=InputsConfig(sizes="keep"))
    assert views.Ks[0, 0, 0] == pytest.approx(50 * 64 / shared["w"])
    assert views.Ks[0, 1, 1] == pytest.approx(50 * 48 / shared["h"])


@pytest.mark.parametrize(
    "size", [(64, 48), (640, 480), (4032, 3024), (63.9, 47.6), (129, 97), (1000, 747), (1008, 756)]
)
def test_sizes_of_a_plain_scale_are_read(size: tuple[float, float], tmp_path: Path) -> None:
    views = load_views(wide(tmp_path, fl_x=50.0, w=size[0], h=size[1]))
    assert views.Ks[0, 0, 0] == pytest.approx(50 * 64 / size[0])


@pytest.mark.parametrize("kind", ["gobjaverse", "transforms"])
def test_angles_of_the_swapped_image_are_refused(kind: str, tmp_path: Path) -> None:
    x, y = (float(2 * np.arctan(side / 2 / 60)) for side in (64, 48))

    def write(across: float, upright: float) -> Path:
        if kind == "transforms":
            return wide(tmp_path, camera_angle_x=across, camera_angle_y=upright)
        camera_, image = camera(0, x_fov=across, y_fov=upright), png((1, 2, 3, 200), (64, 48))
        return write_folder(tmp_path, {"00000/00000.json": camera_, "00000/00000.png": image})

    np.testing.assert_allclose(load_views(write(x, y)).Ks[0, [0, 1], [0, 1]], 60)
    assert len(load_views(write(x, 0.8 * y))) > 0  # pixels that are no squares either way
    with pytest.raises(BadInput, match="angles of view are those of an image of 48 x 64 pixels"):
        load_views(write(y, x))
    assert len(load_views(tmp_path, inputs=InputsConfig(sizes="keep"))) > 0


@pytest.mark.parametrize(
    ("camera_", "message"),
    [
        ({"camera_angle_x": 5e-324}, "NaN or infinity"),
        ({"camera_angle_x": 1e-310}, "NaN or infinity"),
        ({"camera_angle_x": 1e-9}, "6.4e.10 pixels, which is no lens for an image of 64 x 48"),
        ({"camera_angle_x": 3.1415926}, "which is no lens"),
        ({"fl_x": 1e30}, "beyond 1e.12"),
        ({"fl_x": 1e-30}, "which is no lens"),
        ({"fl_x": 50, "w": 5e-324, "h": 48}, "64 x 48|nearly 0"),
        ({"fl_x": 50, "w": 1e30, "h": 1e30}, "given for 1e.30 x 1e.30"),
        ({"fl_x": 50, "cx": 1e30}, "beyond 1e.12"),
        ({"fl_x": 50, "cx": 1e400}, "finite"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_numbers_of_no_camera_are_named(camera_: dict[str, float], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        load_views(wide(tmp_path, **camera_))
    if "w" in camera_:
        with pytest.raises(BadInput, match=r"which is no lens|nearly 0|infinity"):
            load_views(tmp_path, inputs=InputsConfig(sizes="keep"))


@pytest.mark.parametrize("key", ["skew", "b1", "b2"])
def test_skewed_pixels_are_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"pixels are skewed .{key} = 0.1"):
        load_views(wide(tmp_path, fl_x=50.0, **{key: 0.1}))
    assert len(load_views(wide(tmp_path, fl_x=50.0, **{key: 0}))) == 3


def test_one_picture_under_many_poses_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    views = ball_views(12)
    assert same_picture(views) == 1
    assert not caplog.text
    repeated = views.images[np.array([0, 1, 2, 3, 0, 0, 6, 7, 0, 0, 0, 0])]
    noise = np.random.default_rng(0).integers(0, 2, repeated.shape, np.uint8) * (repeated > 0) * (repeated < 255)
    found = dataclasses.replace(views, images=repeated + noise.astype(np.uint8))
    assert same_picture(found) == 7
    assert "7 of 12 views show one picture" in caplog.text
    assert same_picture(views[np.zeros(0, np.intp)]) == 0
    stats = prepare(found, from_table(FitConfig, {"pose_gate": "warn", "size": 24})).stats
    assert stats["n_same_picture"] == 7


def test_repeated_poses_are_no_repeated_pictures() -> None:
    views: Views = ball_views(6)[np.array([0, 1, 2, 3, 4, 5, 0, 1])]
    assert prepare(views, FitConfig()).stats["n_same_picture"] == 1


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("opaque", "refuse, keep"),
        ("premultiplied", "refuse, mend, keep"),
        ("orientation", "refuse, apply, keep"),
        ("sizes", "refuse, keep"),
        ("rounded", "refuse, keep"),
    ],
)
def test_every_switch_is_checked(name: str, allowed: str) -> None:
    with pytest.raises(ConfigError, match=f"inputs.{name} is 'yes', expected one of {allowed}"):
        from_table(FitConfig, {"inputs": {name: "yes"}})
