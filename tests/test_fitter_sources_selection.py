"""What is fetched of an object is what the loader reads: from these files alone it gives the same views or error."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gaussianverse.fitter.config import FitConfig
from gaussianverse.fitter.errors import FitError
from gaussianverse.fitter.prepare import files_to_fit, load_to_fit
from gaussianverse.fitter.sources.selection import Selection
from gaussianverse.fitter.views import Views

CONFIG = FitConfig(size=8, min_views=1, compared_views=2)


def png(value: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGBA", (8, 8), (value, 2, 3, 255)).save(out, "PNG")
    return out.getvalue()


def camera(i: int) -> bytes:
    axes = {"x": [0, 1, 0], "y": [0, 0, -1], "z": [-1, 0, 0], "origin": [1.5 + i / 10, 0, 0]}
    return json.dumps({**axes, "x_fov": 0.7, "y_fov": 0.7}).encode()


def transforms(*paths: str) -> bytes:
    matrix = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]
    frames = [{"file_path": path, "transform_matrix": matrix} for path in paths]
    return json.dumps({"camera_angle_x": 0.7, "frames": frames}).encode()


def write(root: Path, files: dict[str, bytes], names: list[str]) -> Path:
    root.mkdir()
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(files[name])
    return root


def result(root: Path, format: str, config: FitConfig) -> Views | tuple[type[FitError], str]:
    try:
        return load_to_fit(root, format, config)
    except FitError as error:
        return type(error), str(error).replace(str(root), "o")


def assert_same(place: Path, files: dict[str, bytes], format: str, config: FitConfig = CONFIG) -> list[str]:
    """The chosen files, which give what all files give."""
    chosen = files_to_fit(format, config).among(list(files), files.__getitem__)
    whole = result(write(place / "whole", files, list(files)), format, config)
    found = result(write(place / "chosen", files, chosen), format, config)
    if isinstance(whole, tuple):
        assert found == whole
    else:
        assert isinstance(found, Views)
        assert (found.names, found.skipped, found.input_sha256) == (whole.names, whole.skipped, whole.input_sha256)
        np.testing.assert_array_equal(found.images, whole.images)
    return chosen


def test_of_gobjaverse_cameras_and_images_are_read_and_of_maps_only_those_that_are_compared(tmp_path: Path) -> None:
    files = {}
    for i in range(6):
        stem = f"campos_512_v4/{i:05d}/{i:05d}"
        files |= {f"{stem}.json": camera(i), f"{stem}.png": png(i), f"{stem}.webp": b"never", f"{stem}_nd.exr": b"x"}
        files |= {f"{stem}_albedo.png": b"never", f"{stem}_mr.png": b"never"}
    chosen = assert_same(tmp_path, files, "auto")
    deep = [name for name in chosen if name.endswith(".exr")]
    assert deep == [f"campos_512_v4/{i:05d}/{i:05d}_nd.exr" for i in (0, 3)]
    assert len(chosen) == 14
    with_depth = Selection("gobjaverse", with_depth=True).among(list(files), files.__getitem__)
    assert len(with_depth) == 18


def test_of_transforms_the_images_of_the_split_that_is_fitted_are_read(tmp_path: Path) -> None:
    files = {
        "transforms_train.json": transforms("./train/r_0", "./train/r_1", "./train/gone"),
        "transforms_test.json": transforms("./test/r_0"),
        **{f"train/r_{i}.png": png(i) for i in range(3)},
        "test/r_0.png": png(9),
        "test/r_0_depth_0001.png": b"never",
    }
    chosen = assert_same(tmp_path, files, "auto", FitConfig(size=8, min_views=1, max_bad_views=0.5))
    assert chosen == ["transforms_train.json", "train/r_0.png", "train/r_1.png"]
    both = Selection("auto", with_test=True).among(list(files), files.__getitem__)
    assert set(both) == {*chosen, "transforms_test.json", "test/r_0.png"}


def test_names_are_known_without_a_list_only_where_the_camera_file_leaves_no_choice() -> None:
    def known(data: bytes | None, **options: bool) -> list[str] | None:
        return Selection("transforms", **options).known(lambda name: data if name == "transforms.json" else None)

    assert known(transforms("./a.png", "b/c.webp", "a.png")) == ["transforms.json", "a.png", "b/c.webp"]
    for lacking in (transforms("a"), transforms("b\\a.png"), transforms("../a.png"), transforms(), b"{", None):
        assert known(lacking) is None
    assert known(transforms("a.png"), with_test=True) is None
    assert Selection("auto").known(lambda name: transforms("a.png")) is None


BROKEN: dict[str, Callable[[], dict[str, bytes]]] = {
    "two sets": lambda: {"00000/00000.png": png(1), "campos_1/00000/00000.json": camera(0)},
    "one number twice": lambda: {f"{v}/{v}.json": camera(0) for v in ("1", "01")},
    "nothing of any kind": lambda: {"readme.txt": b"", "a/b.png": png(1)},
    "only a test split": lambda: {"transforms_test.json": transforms("a.png"), "a.png": png(1)},
    "cameras that are no JSON": lambda: {"transforms.json": b"{", "a.png": png(1)},
    "frames that are no list": lambda: {"transforms.json": b'{"frames": 3}'},
    "a name that leads outside": lambda: {"transforms.json": transforms("../a.png", "a.png"), "a.png": png(1)},
}  # fmt: skip


@pytest.mark.parametrize("format", ["auto", "gobjaverse", "transforms"])
@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_wrong_with_all_files_is_wrong_with_those_that_are_read(
    broken: str, format: str, tmp_path: Path
) -> None:
    assert_same(tmp_path, BROKEN[broken](), format)


NAMES = st.sampled_from(
    [f"{level}{v}/{v}{kind}" for level in ("", "campos_1/") for v in ("0", "7", "00007", "12")
     for kind in (".json", ".png", ".webp", "", "_nd.exr", "_mr.png")]
    + ["transforms.json", "transforms_train.json", "transforms_val.json", "a.png", "b/c.webp", "a.webp", "x/0/0.png"]
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.sets(NAMES, max_size=14), st.sampled_from(["auto", "gobjaverse", "transforms"]))
def test_any_mixture_of_files_gives_what_all_of_them_give(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], format: str
) -> None:
    def data(name: str) -> bytes:
        if name.startswith("transforms"):
            return transforms("a", "b\\c", "gone.png", "0/0.png")
        return camera(len(name)) if name.endswith(".json") else b"no EXR" if name.endswith(".exr") else png(len(name))

    assert_same(tmp_path_factory.mktemp("mixture"), {name: data(name) for name in sorted(names)}, format)
