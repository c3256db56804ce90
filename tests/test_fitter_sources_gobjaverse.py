"""Reader of GObjaverse: layouts, archives, missing and hostile members, camera convention."""

import dataclasses
import io
import json
import os
import re
import struct
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from PIL import Image

from gaussianverse.fitter import views as views_module
from gaussianverse.fitter.errors import BadInput, DecodeError, FitError, MissingViews
from gaussianverse.fitter.sources import files, image
from gaussianverse.fitter.sources.exr import read_depth
from gaussianverse.fitter.views import Views, drop_duplicate_poses, load_views

FOV = 0.6911503
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def png(color: tuple[int, ...] = (10, 20, 30, 255), size: tuple[int, int] = (8, 8), mode: str = "RGBA") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, color[: len(mode)]).save(out, "PNG")
    return out.getvalue()


def camera(i: int, **changes: object) -> bytes:
    """A camera at +x that looks along -x; y is down, so x (right) is +y of the world."""
    entries = {
        "x": [0, 1, 0],
        "y": [0, 0, -1],
        "z": [-1, 0, 0],
        "origin": [1.5 + i / 10, 0, 0],
        "x_fov": FOV,
        "y_fov": FOV,
        "bbox": [[-1, -1, -1], [1, 1, 1]],
    } | changes
    return json.dumps({k: v for k, v in entries.items() if v is not None}).encode()


def members(n: int = 4, level: str = "") -> dict[str, bytes]:
    found = {}
    for i in range(n):
        found[f"{level}{i:05d}/{i:05d}.json"] = camera(i)
        found[f"{level}{i:05d}/{i:05d}.png"] = png((i, 0, 0, 255))
        found[f"{level}{i:05d}/{i:05d}_albedo.png"] = b"not read"
    return found


def write_folder(root: Path, found: dict[str, bytes]) -> Path:
    for name, data in found.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_tar(path: Path, found: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in found.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda d: write_folder(d / "o", members()),
    "folder with campos_512_v4": lambda d: write_folder(d / "o", members(level="campos_512_v4/")),
    "tar from <inst>/": lambda d: write_tar(d / "o.tar", members(level="10010/")),
    "tar from ./<inst>/campos_512_v4/": lambda d: write_tar(d / "o.tar", members(level="./10010/campos_512_v4/")),
    "tar.gz from campos_512_v1/": lambda d: write_tar(d / "o.tar.gz", members(level="campos_512_v1/")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_views(layout: str, tmp_path: Path) -> None:
    views = load_views(LAYOUTS[layout](tmp_path))
    assert views.names == ("00000", "00001", "00002", "00003")
    np.testing.assert_array_equal(views.images[:, 0, 0], [[i, 0, 0, 255] for i in range(4)])
    np.testing.assert_allclose(views.c2w[2, :3, 3], [1.7, 0, 0])
    np.testing.assert_allclose(views.Ks[0], [[11.1105, 0, 4], [0, 11.1105, 4], [0, 0, 1]], rtol=1e-4)
    assert views.depths is None


@pytest.mark.parametrize("suffix", [".webp", "", ".png"])
@pytest.mark.parametrize("pack", [write_folder, lambda d, m: write_tar(d / "o.tar.gz", m)])
def test_images_are_read_by_what_they_are(suffix: str, pack: Callable[..., Path], tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(1, 256, (8, 8, 4), np.uint8)
    out = io.BytesIO()
    Image.fromarray(rgba).save(out, "WEBP", lossless=True)
    found = members(4, "campos_512_v4/")
    del found["campos_512_v4/00001/00001.png"]
    found[f"campos_512_v4/00001/00001{suffix}"] = out.getvalue()
    views = load_views(pack(tmp_path, found))
    assert len(views) == 4
    np.testing.assert_array_equal(views.images[1], rgba)


def test_axes_are_right_down_forward_in_a_z_up_world(tmp_path: Path) -> None:
    views = load_views(write_folder(tmp_path, members(1)))
    K, viewmat = views.Ks[0], views.viewmats[0]

    def project(*point: float) -> np.ndarray:
        u, v, w = K @ (viewmat @ [*point, 1])[:3]
        return np.array([u / w, v / w])

    np.testing.assert_allclose(project(0, 0, 0), [4, 4])
    assert project(0, 0.3, 0)[0] > 4  # world +y is to the right of a camera on +x
    assert project(0, 0, 0.3)[1] < 4  # world up is up in the picture


def test_a_view_without_its_pair_is_skipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = members(4)
    del found["00001/00001.png"], found["00002/00002.json"]
    write_folder(tmp_path, found)
    assert load_views(tmp_path, min_views=2).names == ("00000", "00003")
    assert "view 00001 skipped: no PNG" in caplog.text
    assert load_views(tmp_path, min_views=2).skipped == ("00001: no PNG", "00002: no JSON")
    with pytest.raises(
        MissingViews, match=r"2 complete views, expected at least 3 \(00001: no PNG; 00002: no JSON\)"
    ):
        load_views(tmp_path, min_views=3)


@pytest.mark.parametrize("path", ["absent", "absent.tar"])
def test_absent_path(path: str, tmp_path: Path) -> None:
    with pytest.raises(MissingViews, match="no such file or folder"):
        load_views(tmp_path / path)


def test_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(MissingViews, match="expected VVVVV/"):
        load_views(tmp_path)


def test_two_sets_of_views_are_ambiguous(tmp_path: Path) -> None:
    write_folder(tmp_path, members(level="campos_512_v1/") | members(level="campos_512_v4/"))
    with pytest.raises(BadInput, match=r"several.*campos_512_v1.*campos_512_v4"):
        load_views(tmp_path)
    assert len(load_views(tmp_path / "campos_512_v4")) == 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (camera(1, origin=None), "no 'origin'"),
        (camera(1, x=[0, 1]), r"'x' is \[0, 1\], expected 3 numbers"),
        (camera(1).replace(b"[0, 1, 0]", b"null"), "'x' is null, expected 3 numbers"),
        (camera(1, y=["down", 0, 0]), "'y' has \"down\", expected a finite number"),
        (camera(1, x_fov="0.69"), "'x_fov' has \"0.69\", expected a finite number"),
        (camera(1, x_fov=True), "'x_fov' has true, expected a finite number"),
        (camera(1, x_fov=[0.69]), "'x_fov' has .0.69., expected a finite number"),
        (camera(1, x_fov=10**400), r"'x_fov' has 10+\.\.\., expected a number below"),
        (camera(1, x_fov=0), "x_fov is 0"),
        (camera(1, y_fov=float("nan")), "'y_fov' has NaN"),
        (camera(1, origin=[float("nan"), 0, 0]), "'origin' has NaN"),
        (camera(1, origin=[1e200, 0, 0]), r"numbers beyond 1e\+12"),
        (camera(1, x_fov=1e-300), r"numbers beyond 1e\+12"),
        (camera(1, z=[1, 0, 0]), "right-handed"),
        (b"{", "invalid JSON"),
        (b"[" * 100_000, "invalid JSON"),
        (b"[]", "expected a JSON object"),
        (b"\xff\xfe\x00", "invalid JSON"),
    ],
)
def test_wrong_camera_names_the_view_and_the_fault(data: bytes, message: str, tmp_path: Path) -> None:
    write_folder(tmp_path, members() | {"00001/00001.json": data})
    with pytest.raises(BadInput, match=f"(?s): 1 of 4 views cannot be used .*: view 00001: .*{message}"):
        load_views(tmp_path, max_bad_views=0)
    left = load_views(tmp_path)
    assert left.names == ("00000", "00002", "00003")
    (sentence,) = left.skipped
    assert re.search(message, sentence.removeprefix("00001: "))
    assert str(tmp_path) not in sentence


@pytest.mark.parametrize(
    "data",
    [b"", b"not a png", png()[:60], png()[:-20], png()[:-12], png().replace(b"IDAT", b"IDAX")],
    ids=["empty", "text", "cut in the pixels", "cut before their checksum", "cut before the end", "bad chunk"],
)
def test_broken_png_is_a_decode_error(data: bytes, tmp_path: Path) -> None:
    write_folder(tmp_path, members() | {"00002/00002.png": data})
    with pytest.raises(DecodeError, match=r"view 00002: the image cannot be decoded, it is (empty|damaged|no PNG)"):
        load_views(tmp_path, max_bad_views=0)
    assert load_views(tmp_path).names == ("00000", "00001", "00003")


def test_image_without_alpha_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, members() | {"00002/00002.png": png(mode="RGB")})
    with pytest.raises(BadInput, match=r"view 00002.*no alpha"):
        load_views(tmp_path, max_bad_views=0)


def raw_png(depth: int, color: int, row: bytes, transparent: bytes = b"") -> bytes:
    """A PNG one pixel high, written by hand for formats that encoders do not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color]
    header = struct.pack(">IIBBBBB", len(row) * 8 // depth // channels, 1, depth, color, 0, 0, 0)
    key = chunk(b"tRNS", transparent) if transparent else b""
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + key + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (raw_png(16, 6, struct.pack(">4H", 0x8000, 0x4000, 0xFFFF, 0x8000)), [(128, 64, 255, 128)]),
        (raw_png(16, 4, struct.pack(">2H", 0x4000, 0x8000)), [(64, 64, 64, 128)]),
        (raw_png(8, 0, bytes([10, 77]), b"\0\x4d"), [(10, 10, 10, 255), (77, 77, 77, 0)]),
        (raw_png(8, 2, bytes([1, 2, 3, 4, 5, 6]), b"\0\1\0\2\0\3"), [(1, 2, 3, 0), (4, 5, 6, 255)]),
    ],
    ids=["RGBA 16", "grey alpha 16", "grey 8 keyed", "RGB 8 keyed"],
)
def test_transparency_of_every_kind(data: bytes, expected: list[tuple[int, ...]]) -> None:
    np.testing.assert_array_equal(image.decode_rgba(data, "x")[0], expected)


@pytest.mark.parametrize(
    "data",
    [
        raw_png(16, 0, struct.pack(">2H", 0x4000, 0x1234), b"\x12\x34"),
        raw_png(16, 2, struct.pack(">3H", 0x4012, 0x4034, 0x4056), b"\x40\x12\x40\x34\x40\x56"),
    ],
)
def test_sixteen_bits_with_a_transparent_colour_are_refused(data: bytes) -> None:
    with pytest.raises(BadInput, match="16-bit PNG with a transparent colour"):
        image.decode_rgba(data, "x")


def test_sizes_must_agree(tmp_path: Path) -> None:
    write_folder(tmp_path, members() | {"00003/00003.png": png(size=(8, 9))})
    with pytest.raises(BadInput, match="view 00003: has 8 x 9 pixels, view 00000 8 x 8"):
        load_views(tmp_path, max_bad_views=0)
    write_folder(tmp_path, {"00000/00000.png": png(size=(4, 4))})
    with pytest.raises(
        BadInput, match=r"2 of 4 views .*: view 00000: has 4 x 4 pixels, view 00001 8 x 8.*; 00003: has"
    ):
        load_views(tmp_path)
    write_folder(tmp_path, {"00003/00003.png": png()})  # the most common size counts, and not the first
    assert load_views(tmp_path).skipped == ("00000: has 4 x 4 pixels, view 00001 8 x 8",)


def test_huge_image_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "MAX_SIDE", 7)
    with pytest.raises(BadInput, match="8 x 8 pixels, expected sides of at most 7"):
        load_views(write_folder(tmp_path, members()))


def test_images_that_would_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, members(4))
    monkeypatch.setattr(views_module, "_MAX_BYTES", 4 * 8 * 8 * 4 - 1)
    with pytest.raises(BadInput, match="lower size"):
        load_views(tmp_path)
    assert len(load_views(tmp_path, size=4)) == 4


def test_links_within_the_folder_are_followed_as_caches_are_made_of_them(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    for name, data in members().items():
        blob, link = tmp_path / "blobs" / name.replace("/", "-"), tmp_path / "snapshots" / "o" / name
        blob.write_bytes(data)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    assert len(load_views(tmp_path / "snapshots" / "o")) == 4


@pytest.mark.parametrize("name", ["../secret.json", "/etc/hostname", "a/../../secret.json", "a\0b", "x" * 300])
def test_names_that_lead_out_of_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (tmp_path / "o").mkdir()
    with pytest.raises(BadInput, match=r"leads outside|not a usable file name"):
        files.Folder(tmp_path / "o", files.InputDigest()).read(name, 100)


def test_circular_link_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    with pytest.raises(BadInput, match="not a usable file name"):
        files.Folder(tmp_path, files.InputDigest()).find("a")


def test_link_to_the_whole_folder_is_fine(tmp_path: Path) -> None:
    write_folder(tmp_path / "o", members())
    (tmp_path / "link").symlink_to(tmp_path / "o")
    assert len(load_views(tmp_path / "link")) == 4


@pytest.mark.parametrize("name", ["../00001/00001.png", "/00001/00001.png"])
def test_members_that_leave_the_archive_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="leads outside"):
        load_views(write_tar(tmp_path / "o.tar", members() | {name: png()}))


@pytest.mark.parametrize(
    ("kind", "word"),
    [(tarfile.SYMTYPE, "a symbolic link"), (tarfile.LNKTYPE, "a hard link"), (tarfile.FIFOTYPE, "a named pipe")],
)
def test_links_in_an_archive_are_refused_by_name(kind: bytes, word: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "o.tar", "w") as archive:
        info = tarfile.TarInfo("00000/00000.png")
        info.type, info.linkname = kind, "/etc/hostname"
        archive.addfile(info)
    with pytest.raises(BadInput, match=f"not a regular file but {word}"):
        load_views(tmp_path / "o.tar")


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_truncated_archive(suffix: str, tmp_path: Path) -> None:
    path = write_tar(tmp_path / f"o{suffix}", members(level="1/"))
    path.write_bytes(path.read_bytes()[: 700 if suffix == ".tar" else 300])
    with pytest.raises(DecodeError, match="truncated or not a tar"):
        load_views(path)


def test_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "o.tar").write_bytes(b"hello" * 1000)
    with pytest.raises(DecodeError, match="not a tar archive"):
        load_views(tmp_path / "o.tar")


def test_decompression_bomb_stops_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "o.tar.gz", members() | {"bomb": bytes(4 << 20)})
    assert path.stat().st_size < 1 << 20
    for function in (files.Archive.__init__, files.list_tar):
        monkeypatch.setattr(function, "__defaults__", (1 << 20,))
    for format in ("auto", "gobjaverse"):
        with pytest.raises(BadInput, match="larger than the limit of 1048576 bytes"):
            load_views(path, format)


def test_bomb_in_a_header_stops_as_well(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "o.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("x")
        info.pax_headers = {"comment": "a" * (4 << 20)}
        archive.addfile(info)
    with pytest.raises(BadInput, match="headers are larger than the limit of 65536 bytes"):
        files.Archive(tmp_path / "o.tar.gz", re.compile("x"), files.InputDigest(), limit=1 << 20)


def tar_with(pax: dict[str, str], format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of four views, whose first member has the headers `pax`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for name, data in members().items():
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(data), pax
            archive.addfile(info, io.BytesIO(data))
            pax = {}
    return out.getvalue()


def long_name_chain(n: int) -> bytes:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 0
    return header.tobuf(tarfile.GNU_FORMAT) * n + tar_with({})


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (tar_with({"GNU.sparse.map": "abc"}), BadInput, "not a regular file but a sparse file"),
        (tar_with({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}), BadInput, "not a regular file but a sparse"),
        (tar_with({"GNU.sparse.map": "0,5", "GNU.sparse.size": "99999999999"}), BadInput, "not a regular file"),
        (tar_with({"size": "99999999999999999999"}), BadInput, "larger than the limit"),
        (tar_with({"size": "-1"}), DecodeError, "negative size"),
        (tar_with({"size": "9" * 5000}), DecodeError, "truncated or not a tar"),
    ],
    ids=["sparse map", "sparse in the data", "sparse", "size", "negative", "no number"],
)
def test_headers_that_contradict_themselves(
    data: bytes, error: type[Exception], message: str, tmp_path: Path
) -> None:
    (tmp_path / "o.tar").write_bytes(data)
    for format in ("auto", "gobjaverse"):
        with pytest.raises(error, match=message):
            load_views(tmp_path / "o.tar", format)


def test_a_long_name_may_be_given_many_times(tmp_path: Path) -> None:
    (tmp_path / "o.tar").write_bytes(long_name_chain(3000))
    assert len(load_views(tmp_path / "o.tar")) == 4


def test_whatever_bytes_of_an_archive_are_changed_the_error_has_a_name(tmp_path: Path) -> None:
    data, rng, outcomes = tar_with({"comment": "x"}), np.random.default_rng(0), {"views": 0, "error": 0}
    for _ in range(200):
        changed = bytearray(data)
        for at in rng.integers(len(data), size=rng.integers(1, 5)):
            changed[at] = rng.integers(256)
        (tmp_path / "o.tar").write_bytes(changed)
        try:
            load_views(tmp_path / "o.tar")
        except FitError:
            outcomes["error"] += 1
        else:
            outcomes["views"] += 1
    assert min(outcomes.values()) > 20


def test_of_a_member_twice_under_two_spellings_the_last_counts(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "o.tar", members() | {"./00000/00000.png": png((99, 0, 0, 255))})
    views = load_views(path)
    assert views.names == ("00000", "00001", "00002", "00003")
    assert views.images[0, 0, 0, 0] == 99


@pytest.mark.parametrize("pack", [write_folder, lambda d, m: write_tar(d / "o.tar", m)])
def test_two_views_of_one_number_are_refused(pack: Callable[..., Path], tmp_path: Path) -> None:
    path = pack(tmp_path, members() | {"0/0.json": camera(9), "0/0.png": png()})
    with pytest.raises(BadInput, match=r"views 0+ and 0+ have the same number"):
        load_views(path)


def nd_exr(R: float, G: float, B: float, A: np.ndarray) -> bytes:
    shape = A.shape
    channels = {c: np.full(shape, v, np.float32) for c, v in zip("RGB", (R, G, B), strict=True)}
    out = io.BytesIO()
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION}, channels | {"A": A.astype(np.float32)}).write(out)
    return out.getvalue()


@pytest.mark.parametrize("pack", [write_folder, lambda d, m: write_tar(d / "o.tar", m)])
def test_depth_is_alpha_of_nd_exr_and_nan_where_empty(pack: Callable[..., Path], tmp_path: Path) -> None:
    depth = np.full((8, 8), 1.25)
    depth[0], depth[1], depth[2] = np.nan, np.inf, 0
    found = members(3)
    found |= {f"{i:05d}/{i:05d}_nd.exr": nd_exr(-1, 0, 0, depth) for i in (0, 2)}
    path = pack(tmp_path, found)
    assert load_views(path).depths is None
    views = load_views(path, with_depth=True)
    assert views.depths is not None
    assert np.isnan(views.depths[0, :3]).all()
    assert (views.depths[0, 3:] == 1.25).all()
    assert np.isnan(views.depths[1]).all()  # a view without its EXR
    assert load_views(path, with_depth=True, size=4).depths.shape == (3, 4, 4)  # type: ignore[union-attr]


def test_a_pixel_without_a_normal_is_empty() -> None:
    assert np.isnan(read_depth(nd_exr(0, 0, 0, np.ones((2, 3))), "x")).all()
    assert np.isnan(read_depth(nd_exr(0, np.inf, 0, np.ones((2, 3))), "x")).all()
    assert (read_depth(nd_exr(0, 0, 1e-3, np.ones((2, 3))), "x") == 1).all()


def test_without_openexr_depth_alone_fails_and_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    write_folder(tmp_path, members(2) | {"00001/00001_nd.exr": b"x"})
    assert len(load_views(tmp_path)) == 2
    with pytest.raises(ImportError, match=r"pip install 'gaussianverse\[build\]'"):
        load_views(tmp_path, with_depth=True)


@pytest.mark.parametrize(
    "data", [b"", b"not an exr", nd_exr(1, 0, 0, np.ones((8, 8)))[:200]], ids=["empty", "text", "cut"]
)
def test_broken_exr_is_a_decode_error(data: bytes, tmp_path: Path) -> None:
    write_folder(tmp_path, members(2) | {"00001/00001_nd.exr": data})
    with pytest.raises(DecodeError, match=r"view 00001.*EXR cannot be decoded"):
        load_views(tmp_path, with_depth=True)


def test_depth_of_another_size_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, members(2) | {"00001/00001_nd.exr": nd_exr(1, 0, 0, np.ones((8, 9)))})
    with pytest.raises(BadInput, match=r"view 00001.*expected 8 x 8 as the image"):
        load_views(tmp_path, with_depth=True)


def test_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown format 'colmap'"):
        load_views(tmp_path, "colmap")


@pytest.mark.skipif(not (DATA / "gobjaverse_cameras").is_dir(), reason="shared sample data is absent")
@pytest.mark.parametrize("inst", ["9350303", "9351401", "9351417"])
def test_real_rigs_look_at_the_object_from_around(inst: str, tmp_path: Path) -> None:
    found = {
        str(file.relative_to(DATA / "gobjaverse_cameras" / inst)): file.read_bytes()
        for file in (DATA / "gobjaverse_cameras" / inst).glob("*/*/*.json")
    }
    found |= {name.replace(".json", ".png"): png() for name in found}
    views: Views = load_views(write_tar(tmp_path / "o.tar.gz", found), "gobjaverse")
    assert len(views) == 51
    assert len(drop_duplicate_poses(views)) == 50  # 36 repeats 0
    centre = views.viewmats @ [0, 0, 0, 1]
    np.testing.assert_allclose(centre[:, :2], 0, atol=1e-5)
    assert ((centre[:, 2] > 1.5) & (centre[:, 2] < 2.0)).all()
    up = views.c2w[:37, 2, :3]  # the world's z in the camera's axes, first ring
    np.testing.assert_allclose(up[:, 0], 0, atol=1e-6)
    assert (up[:, 1] < 0).all()  # up is against y (down)
    assert (up[:, 2] < 0).all()  # seen from above


def test_normals_come_beside_the_depth_where_they_are_asked_for(tmp_path: Path) -> None:
    depth = np.full((8, 8), 1.25)
    depth[:2] = np.nan
    found = members(3) | {f"{i:05d}/{i:05d}_nd.exr": nd_exr(-1, 2, 3, depth) for i in (0, 2)}
    write_folder(tmp_path, found)
    assert load_views(tmp_path, with_depth=True).normals is None
    views = load_views(tmp_path, with_depth=True, with_normals=True)
    assert views.normals is not None
    assert np.isnan(views.normals[1]).all()
    assert np.isnan(views.normals[0, :2]).all()
    assert (views.normals[0, 2:] == (1, -3, 2)).all()  # (-R, -B, G)
    smaller = load_views(tmp_path, with_depth=True, with_normals=True, size=4)
    assert smaller.normals is not None
    assert smaller.normals.shape == (3, 4, 4, 3)
    picked = smaller[np.array([1, 2])].normals
    assert picked is not None
    assert (picked[1, 1:] == (1, -3, 2)).all()
    with pytest.raises(BadInput, match="normals"):
        dataclasses.replace(views, normals=views.normals[..., :2])
