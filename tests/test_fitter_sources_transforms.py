"""Reader of transforms.json: dialects, bad input, and agreement with the reader of GObjaverse."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_fitter_sources_gobjaverse import FOV, camera, png, write_folder, write_tar

from gaussianverse.atlas.configuration import from_table
from gaussianverse.fitter.config import FitConfig
from gaussianverse.fitter.errors import BadInput, DecodeError, MissingViews
from gaussianverse.fitter.prepare import prepare
from gaussianverse.fitter.views import load_views, resize

MIC = Path(__file__).resolve().parents[2] / "shared" / "data" / "nerf_synthetic_mic_800"

# A camera at +x in OpenGL's convention: right = +y, up = +z, backward = +x.
POSE = [[0, 0, 1, 1.5], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]


def write(root: Path, frames: list[dict[str, Any]], name: str = "transforms.json", **shared: Any) -> Path:
    for frame in frames:
        if "file_path" in frame and ".." not in frame["file_path"]:
            path = root / frame["file_path"]
            path = path if path.suffix else path.with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png())
    (root / name).write_text(json.dumps({**shared, "frames": frames}))
    return root


def frame(name: str = "images/0", **more: Any) -> dict[str, Any]:
    return {"file_path": name, "transform_matrix": POSE, **more}


def test_both_readers_see_the_same_camera(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    gl = load_views(write(tmp_path / "a", [frame("./r_0")], camera_angle_x=FOV))
    cv = load_views(write_folder(tmp_path / "b", {"00000/00000.json": camera(0), "00000/00000.png": png()}))
    np.testing.assert_array_equal(gl.c2w, cv.c2w)
    np.testing.assert_allclose(gl.Ks, cv.Ks, rtol=1e-12)
    np.testing.assert_array_equal(gl.images, cv.images)


@pytest.mark.parametrize(
    ("shared", "own"),
    [
        ({"camera_angle_x": FOV}, {}),
        ({}, {"camera_angle_x": FOV}),
        ({"camera_angle_x": 1.0}, {"camera_angle_x": FOV}),
        ({"fl_x": 22.221, "fl_y": 22.221, "cx": 8, "cy": 8, "w": 16, "h": 16}, {}),
        ({"fl_x": 11.1105, "camera_angle_x": 1.0}, {}),
        ({"fl_x": 99.0, "fl_y": 99.0}, {"camera_angle_x": FOV}),
        ({"camera_angle_x": 1.0, "camera_angle_y": 1.0}, {"fl_x": 11.1105, "fl_y": 11.1105}),
        ({"fl_x": 99.0, "fl_y": 11.1105}, {"fl_x": 11.1105}),
        ({"camera_angle_y": FOV}, {}),
        ({"fl_y": 22.221, "w": 16, "h": 16}, {}),
        ({"fl_x": 11.1105, "camera_model": "OPENCV", "k1": 0, "p2": 0.0, "distortion_params": [0, 0]}, {}),
        ({"fl_x": 11.1105, "camera_model": "PINHOLE", "is_fisheye": False}, {}),
    ],
)
def test_dialects_of_the_focal_length(shared: dict[str, Any], own: dict[str, Any], tmp_path: Path) -> None:
    views = load_views(write(tmp_path, [frame(**own)], **shared))
    np.testing.assert_allclose(views.Ks[0], [[11.1105, 0, 4], [0, 11.1105, 4], [0, 0, 1]], rtol=1e-4)


def test_extension_may_be_there_or_not_and_names_keep_their_folder(tmp_path: Path) -> None:
    views = load_views(write(tmp_path, [frame("./train/r_0"), frame("test/r_0.png")], camera_angle_x=1.0))
    assert views.names == ("train/r_0", "test/r_0")


@pytest.mark.parametrize("given", ["train/r_0", "train\\\\r_0", ".\\\\train\\\\r_0.webp", "train/r_0.webp"])
@pytest.mark.parametrize("packed", [False, True])
def test_images_may_be_webp_and_folders_separated_by_backslashes(given: str, packed: bool, tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("RGBA", (8, 8), (9, 8, 7, 200)).save(out, "WEBP", lossless=True)
    for name in ("train/r_0.webp", "train/r_1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(out.getvalue())
    text = json.dumps({"camera_angle_x": 1.0, "frames": [frame("@"), frame("train/r_1")]}).replace("@", given)
    (tmp_path / "transforms.json").write_text(text)
    found = {str(f.relative_to(tmp_path)): f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    views = load_views(write_tar(tmp_path / "o.tar", found) if packed else tmp_path)
    assert views.names == ("train/r_0", "train/r_1")
    assert (views.images == (9, 8, 7, 200)).all()


def test_splits_are_not_pooled_and_a_file_is_read_alone(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write(tmp_path, [frame(f"{split}/r_0")], f"transforms_{split}.json", camera_angle_x=1.0)
    views = load_views(tmp_path)
    assert (views.names, views.test) == (("train/r_0",), None)
    assert load_views(tmp_path / "transforms_val.json").names == ("val/r_0",)
    assert load_views(tmp_path / "transforms_test.json").names == ("test/r_0",)
    write(tmp_path, [frame("all/r_0")], camera_angle_x=1.0)
    assert load_views(tmp_path).names == ("all/r_0",)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("first", ["transforms.json", "transforms_train.json"])
def test_the_test_split_comes_after_what_is_fitted_and_is_marked(first: str, packed: bool, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    write(tmp_path / "o", [frame("test/r_0"), frame("test/r_1")], "transforms_test.json", camera_angle_x=1.0)
    write(tmp_path / "o", [frame("val/r_0")], "transforms_val.json", camera_angle_x=1.0)
    write(tmp_path / "o", [frame("train/r_0")], first, camera_angle_x=1.0)
    found = {str(f.relative_to(tmp_path / "o")): f.read_bytes() for f in (tmp_path / "o").rglob("*") if f.is_file()}
    place = write_tar(tmp_path / "o.tar", found) if packed else tmp_path / "o"
    views = load_views(place, with_test=True)
    assert views.names == ("train/r_0", "test/r_0", "test/r_1")
    assert views.test is not None
    assert views.test.tolist() == [False, True, True]
    assert views.input_sha256 != load_views(place).input_sha256
    smaller = resize(views, 4)[np.array([2, 0])]
    assert smaller.test is not None
    assert smaller.test.tolist() == [True, False]
    if not packed:
        assert load_views(place / first, with_test=True).names == views.names


def test_a_test_split_that_is_asked_for_and_lacks_images_is_named(tmp_path: Path) -> None:
    write(tmp_path, [frame("train/r_0")], "transforms_train.json", camera_angle_x=1.0)
    with pytest.raises(MissingViews, match=r"no transforms_test\.json, whose views fit\.heldout = 'test' holds out"):
        load_views(tmp_path, with_test=True)
    write(tmp_path, [frame("test/r_0"), frame("test/r_1")], "transforms_test.json", camera_angle_x=1.0)
    for file in (tmp_path / "test").iterdir():
        file.unlink()
    message = r"transforms_test\.json: none of the images of its 2 frames can be used.*test/r_0"
    with pytest.raises(MissingViews, match=message):
        load_views(tmp_path, with_test=True)
    (tmp_path / "test" / "r_1.png").write_bytes(png())
    assert load_views(tmp_path, with_test=True).names == ("train/r_0", "test/r_1")
    with pytest.raises(BadInput, match="this is the test split"):
        load_views(tmp_path / "transforms_test.json", with_test=True)
    write_folder(tmp_path / "g", {"00000/00000.json": camera(0), "00000/00000.png": png()})
    with pytest.raises(BadInput, match="no test split"):
        load_views(tmp_path / "g", with_test=True)


def test_splits_without_one_to_fit_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, [frame("test/r_0")], "transforms_test.json", camera_angle_x=1.0)
    with pytest.raises(MissingViews, match=r"no transforms\.json and no transforms_train\.json"):
        load_views(tmp_path)


@pytest.mark.skipif(not MIC.is_dir(), reason="shared sample data is absent")
def test_a_real_scene_is_fitted_to_its_training_split_and_measured_on_its_test_split() -> None:
    views = load_views(MIC, size=50, with_test=True)
    config = from_table(FitConfig, {"heldout": "test", "heldout_every": 8, "size": 50})
    prepared = prepare(views, config)
    assert load_views(MIC, size=50).names == prepared.train.names
    assert (len(prepared.train), len(prepared.heldout)) == (
        len(load_views(MIC / "transforms_train.json", size=50)),
        25,
    )
    assert all(name.startswith("test/") for name in prepared.heldout.names)
    assert all(name.startswith("train/") for name in prepared.train.names)
    assert (prepared.stats["n_heldout"], prepared.metrics_on) == (25, "heldout")


def test_frame_without_its_image_is_skipped_under_the_minimum_it_fails(tmp_path: Path) -> None:
    write(tmp_path, [frame("a"), frame("b")], camera_angle_x=1.0)
    (tmp_path / "b.png").unlink()
    assert load_views(tmp_path).names == ("a",)
    with pytest.raises(MissingViews, match="1 complete views, expected at least 2"):
        load_views(tmp_path, min_views=2)


@pytest.mark.parametrize(
    ("frames", "shared", "message"),
    [
        ([frame()], {}, "no focal length"),
        ([{"file_path": "a"}], {"camera_angle_x": 1.0}, "no 'transform_matrix'"),
        ([{"transform_matrix": POSE}], {"camera_angle_x": 1.0}, "no 'file_path'"),
        ([frame(transform_matrix=[[1]])], {"camera_angle_x": 1.0}, "expected 4 x 4 numbers"),
        ([frame(transform_matrix="x")], {"camera_angle_x": 1.0}, "expected 4 x 4 numbers"),
        ([frame(transform_matrix=[["1"] * 4] * 4)], {"camera_angle_x": 1.0}, 'has "1"'),
        ([frame(transform_matrix=np.diag([1.0, 1, np.nan, 1]).tolist())], {"camera_angle_x": 1.0}, "NaN"),
        ([frame()], {"camera_angle_x": 4.0}, "radians"),
        ([frame()], {"camera_angle_x": "wide"}, "finite number"),
        ([frame()], {"fl_x": -3}, "expected focal lengths > 0"),
        ([frame()], {"fl_x": 3, "w": 0}, "pixels > 0"),
        ([frame()], {"fl_x": 3, "k1": 0.1}, "undistort"),
        ([frame()], {"fl_x": 3, "k6": 0.1}, "undistort"),
        ([frame(p12=0.1)], {"fl_x": 3}, "undistort"),
        ([frame(distortion_params=[0, 0.1])], {"fl_x": 3}, "undistort"),
        ([frame()], {"fl_x": 3, "k1": None}, "'k1' has null"),
        ([frame()], {"fl_x": 3, "camera_model": "OPENCV_FISHEYE"}, "camera_model is 'OPENCV_FISHEYE'.*undistort"),
        ([frame()], {"fl_x": 3, "camera_model": "EQUIRECTANGULAR"}, "camera_model is 'EQUIRECTANGULAR'"),
        ([frame(camera_model=["PINHOLE"])], {"fl_x": 3}, "camera_model is .'PINHOLE'."),
        ([frame()], {"fl_x": 3, "is_fisheye": True}, "'is_fisheye' is not a pinhole"),
        ([frame()], {"fl_x": 3, "ftheta_p1": 0.4}, "'ftheta_p1' is not a pinhole"),
        ([frame(mask_path="masks/0.png")], {"fl_x": 3}, "'mask_path' is not read.*as alpha"),
        ([frame(fl_x=None)], {"fl_x": 3}, "'fl_x' has null"),
        ([frame("../outside")], {"camera_angle_x": 1.0}, "leads outside"),
        ([frame("/etc/hostname")], {"camera_angle_x": 1.0}, "leads outside"),
        ([frame("a\0b")], {"camera_angle_x": 1.0}, "not a usable file name"),
    ],
)
def test_faults_are_named(frames: list[dict[str, Any]], shared: dict[str, Any], message: str, tmp_path: Path) -> None:
    try:
        write(tmp_path, frames, **shared)
    except (ValueError, PermissionError):  # the test's own image cannot be written under such a name
        (tmp_path / "transforms.json").write_text(json.dumps({**shared, "frames": frames}))
    with pytest.raises(BadInput, match=message):
        load_views(tmp_path)


def test_frames_must_be_a_list(tmp_path: Path) -> None:
    (tmp_path / "transforms.json").write_text('{"frames": {}}')
    with pytest.raises(BadInput, match="no list 'frames'"):
        load_views(tmp_path)


def test_broken_image(tmp_path: Path) -> None:
    write(tmp_path, [frame("a")], camera_angle_x=1.0)
    (tmp_path / "a.png").write_bytes(png()[:50])
    with pytest.raises(DecodeError, match=r"frame 0 .*cannot be decoded"):
        load_views(tmp_path)


@pytest.mark.parametrize("level", ["", "./", "object/"])
@pytest.mark.parametrize("format", ["auto", "transforms"])
def test_an_archive_reads_as_its_folder_does(level: str, format: str, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    for split in ("test", "train"):
        write(tmp_path / "o", [frame(f"./{split}/r_0")], f"transforms_{split}.json", camera_angle_x=FOV)
    found = [file for file in (tmp_path / "o").rglob("*") if file.is_file()]
    named = {f"{level}{file.relative_to(tmp_path / 'o')}": file.read_bytes() for file in found}
    packed = write_tar(tmp_path / "o.tar.gz", named)
    folder, archive = load_views(tmp_path / "o", with_test=True), load_views(packed, format, with_test=True)
    assert archive.names == folder.names == ("train/r_0", "test/r_0")
    np.testing.assert_array_equal(archive.images, folder.images)
    np.testing.assert_array_equal(archive.c2w, folder.c2w)


def test_faults_of_an_archive_are_named(tmp_path: Path) -> None:
    cameras = json.dumps({"fl_x": 3, "frames": [frame("../0.png")]}).encode()
    path = write_tar(tmp_path / "o.tar", {"transforms.json": cameras})
    with pytest.raises(BadInput, match="leads outside"):
        load_views(path)
    path = write_tar(tmp_path / "o.tar", {"a/transforms.json": cameras, "b/transforms.json": cameras})
    with pytest.raises(BadInput, match=r"several sets of views \(a, b\)"):
        load_views(path)
    path = write_tar(tmp_path / "o.tar", {"notes.txt": b"x"})
    with pytest.raises(MissingViews, match=r"no transforms\.json"):
        load_views(path, "transforms")


@pytest.mark.skipif(not MIC.is_dir(), reason="shared sample data is absent")
def test_real_scene_carved_by_its_masks_fills_its_masks() -> None:
    """With a wrong axis, sign or inverse, no point would be inside every silhouette."""
    views = load_views(MIC / "transforms_test.json", size=100)
    assert len(views) == 25
    np.testing.assert_allclose(np.linalg.norm(views.c2w[:, :3, 3], axis=1), 4.031, atol=0.01)
    axis = np.linspace(-1.3, 1.3, 80)
    grid = np.stack(np.meshgrid(axis, axis, axis, [1.0], indexing="ij"), -1).reshape(-1, 4)
    masks = views.images[..., 3] > 0

    def pixels(view: int, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        uvw = views.Ks[view] @ (points @ views.viewmats[view].T)[:, :3].T
        return tuple((uvw[[1, 0]] / uvw[2]).astype(int).clip(0, 99))  # type: ignore[return-value]

    for view in range(25):
        grid = grid[masks[view][pixels(view, grid)]]
    for view in range(25):
        filled = np.zeros_like(masks[view])
        filled[pixels(view, grid)] = True
        assert filled[masks[view]].mean() > 0.75, views.names[view]
