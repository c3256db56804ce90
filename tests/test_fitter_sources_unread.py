"""Views that cannot be used: how many an object survives, and what is said of them."""

from __future__ import annotations

import errno
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analytic import ball_views, write_views
from test_fitter_sources_gobjaverse import camera, members, png, write_folder, write_tar

from gaussianverse.atlas.configuration import ConfigError, from_table
from gaussianverse.fitter.config import FitConfig
from gaussianverse.fitter.errors import BadInput, DecodeError, FitError, MissingViews
from gaussianverse.fitter.prepare import prepare
from gaussianverse.fitter.sources import exr, image
from gaussianverse.fitter.views import load_views

BROKEN: dict[str, tuple[bytes, bytes]] = {
    "image cut short": (png()[:60], camera(0)),
    "image empty": (b"", camera(0)),
    "image without alpha": (png(mode="RGB"), camera(0)),
    "image of another size": (png(size=(8, 9)), camera(0)),
    "JSON cut short": (png(), camera(0)[:30]),
    "camera without a pose": (png(), camera(0, origin=None)),
    "camera mirrored": (png(), camera(0, z=[1, 0, 0])),
    "camera not finite": (png(), camera(0, origin=[float("inf"), 0, 0])),
    "field of view of 0": (png(), camera(0, x_fov=0)),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("pack", [write_folder, lambda d, m: write_tar(d / "o.tar.gz", m)])
def test_an_object_survives_a_quarter_of_its_views_and_no_more(
    kind: str, pack: Callable[..., Path], tmp_path: Path
) -> None:
    for n_bad in (1, 3, 4):
        found = members(12)
        for i in range(n_bad):
            found[f"{2 * i:05d}/{2 * i:05d}.png"], found[f"{2 * i:05d}/{2 * i:05d}.json"] = BROKEN[kind]
        (tmp_path / str(n_bad)).mkdir()
        path = pack(tmp_path / str(n_bad), found)
        if n_bad <= 3:
            views = load_views(path)
            assert len(views) == 12 - n_bad
            assert [s[:7] for s in views.skipped] == ["00000: ", "00002: ", "00004: "][:n_bad]
            assert load_views(path, size=7).skipped == views.skipped
            continue
        with pytest.raises(
            FitError, match=r": 4 of 12 views cannot be used \(fit.max_bad_views is 0.25\): view 00000: "
        ):
            load_views(path)
        with pytest.raises(FitError, match=r"00000.*; 00002: .*; 00004: .*; and 1 more$"):
            load_views(path)
        assert len(load_views(path, max_bad_views=0.34)) == 8


def test_views_whose_files_are_absent_are_common_and_only_counted(tmp_path: Path) -> None:
    found = members(12)
    for i in range(8):
        del found[f"{i:05d}/{i:05d}.{('png', 'json')[i % 2]}"]
    write_folder(tmp_path, found)
    assert len(load_views(tmp_path, min_views=4)) == 4
    with pytest.raises(MissingViews, match=r"4 complete views, expected at least 5 .*render or fetch"):
        load_views(tmp_path, min_views=5)


def test_absent_views_make_no_room_for_broken_ones(tmp_path: Path) -> None:
    found = members(12) | {f"{i:05d}/{i:05d}.png": b"" for i in range(3)}
    for i in range(4, 8):
        del found[f"{i:05d}/{i:05d}.png"]
    with pytest.raises(DecodeError, match="3 of 8 views cannot be used"):
        load_views(write_folder(tmp_path, found))


def test_the_error_is_that_of_the_first_broken_view(tmp_path: Path) -> None:
    found = members(4) | {"00001/00001.png": b"", "00002/00002.json": b"{"}
    with pytest.raises(DecodeError, match=r"2 of 4 .*view 00001.*; 00002: invalid JSON"):
        load_views(write_folder(tmp_path, found))


def test_the_row_names_the_views_in_closed_sentences(tmp_path: Path) -> None:
    found = members(12) | {"00003/00003.png": b"x", "00007/00007.json": camera(7, x_fov=9)}
    del found["00005/00005.png"]
    views = load_views(write_folder(tmp_path, found))
    text = prepare(views, from_table(FitConfig, {"heldout_every": 5, "inputs": {"opaque": "keep"}})).stats
    assert text["views_skipped"] == (
        "00003: the image cannot be decoded, it is no PNG or WebP; 00005: no PNG; "
        "00007: x_fov is 9.0, expected radians in (0, pi)"
    )
    assert text["n_views_used"] == 9
    whole = load_views(write_folder(tmp_path, members(12)))
    assert prepare(whole, from_table(FitConfig, {"inputs": {"opaque": "keep"}})).stats["views_skipped"] == ""


def test_a_frame_that_cannot_be_used_is_named_by_its_file(tmp_path: Path) -> None:
    folder = write_views(ball_views(12, 16), tmp_path / "o")
    shared = json.loads((folder / "transforms.json").read_text())
    shared["frames"][2]["transform_matrix"][3][3] = 2
    shared["frames"][4]["file_path"] = "a;b\x1b[2J\n.png"
    del shared["frames"][5]["file_path"]
    (folder / "transforms.json").write_text(json.dumps(shared))
    (folder / "00007.png").write_bytes(b"")
    views = load_views(folder, max_bad_views=0.3)
    assert len(views) == 8
    assert [s.partition(":")[0] for s in views.skipped] == [
        "00002", "a;b\\x1b[2J\\n.png", "frame 5", "00007.png",
    ]  # fmt: skip
    with pytest.raises(BadInput, match=r"3 of 11 views .*: view 00002: .*; frame 5: no 'file_path'; 00007.png"):
        load_views(folder, max_bad_views=0)


def test_thousands_of_absent_images_make_no_long_text(tmp_path: Path) -> None:
    frames: list[dict[str, Any]] = [
        {"file_path": f"{i}/" * 99, "transform_matrix": np.eye(4).tolist()} for i in range(999)
    ]
    frames.append({"file_path": "r.png", "transform_matrix": np.eye(4).tolist()})
    (tmp_path / "transforms.json").write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames}))
    (tmp_path / "r.png").write_bytes(png())
    views = load_views(tmp_path)
    assert len(views.skipped) == 41
    assert views.skipped[-1] == "and 959 more"
    assert len("; ".join(views.skipped)) < 8000


HOSTILE: dict[str, dict[str, bytes]] = {
    "no image decodes": {f"{i:05d}/{i:05d}.png": b"\x89PNG\r\n\x1a\nxx" for i in range(4)},
    "no depth decodes": {f"{i:05d}/{i:05d}_nd.exr": b"xx" for i in range(4)},
    "a JSON is too large": {"00001/00001.json": b" " * (33 << 20)},
    "same number": {"1/1.png": png(), "1/1.json": camera(1)},
    "no view": {},
    "not json": {f"{i:05d}/{i:05d}.json": b"{" for i in range(4)},
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("packed", [False, True])
def test_errors_name_no_place_and_no_address(kind: str, packed: bool, tmp_path: Path) -> None:
    found = {} if kind == "no view" else members() | HOSTILE[kind]
    root = tmp_path / "deep" / "o"
    root.mkdir(parents=True)
    path = write_tar(root / "o.tar", found) if packed else write_folder(root, found)
    texts = []
    for given in (path, path.with_name("absent")):
        with pytest.raises(FitError) as caught:
            load_views(given, "gobjaverse", with_depth=True, max_bad_views=0)
        assert str(caught.value).startswith(f"{given}: ")
        texts.append(str(caught.value).removeprefix(f"{given}: "))
    for text in texts:
        assert str(tmp_path) not in text
        assert not re.search(r"0x[0-9a-f]+|object at", text)
        assert "\n" not in text
    if "decodes" in kind:
        assert "cannot be decoded" in texts[0]


@pytest.mark.parametrize("decode", ["image", "exr"])
def test_an_error_of_the_machine_is_no_broken_view(
    decode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    import OpenEXR

    monkeypatch.setattr(*{"image": (image.Image, "open"), "exr": (OpenEXR, "File")}[decode], fails)
    call = {"image": image.decode_rgba, "exr": exr.read_depth}[decode]
    with pytest.raises(OSError, match="Input/output"):
        call(png(), "x")


def test_a_share_is_checked() -> None:
    for share in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match=r"max_bad_views is .*, expected a fraction"):
            FitConfig(max_bad_views=share)


def test_views_that_are_left_out_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_views(write_folder(tmp_path, members(8) | {"00001/00001.png": b""}))
    assert "view 00001 skipped: the image cannot be decoded, it is empty; render or fetch it again" in caplog.text
