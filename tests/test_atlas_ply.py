from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians, canonical_quats
from gaussianverse.atlas.interchange.ply import INVISIBLE, SH_C0, read_ply, read_view_dependent, write_ply

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "data" / "gaussianverse_samples"


def some(count: int, seed: int = 0) -> Gaussians:
    rng = np.random.default_rng(seed)
    return Gaussians(
        means=rng.normal(size=(count, 3)).astype(np.float32),
        scales=np.exp(rng.uniform(-9, 0, (count, 3))).astype(np.float32),
        quats=canonical_quats(rng.normal(size=(count, 4))),
        opacities=rng.uniform(0.01, 1, count).astype(np.float32),
        colors=rng.uniform(0, 1, (count, 3)).astype(np.float32),
    )


def test_the_header_and_the_first_row_are_what_viewers_expect() -> None:
    gaussians = Gaussians([[1, 2, 3]], [[0.5, 1, 2]], [[1, 0, 0, 0]], [0.75], [[0.5, 0, 1]])  # type: ignore[arg-type, list-item]
    header, _, body = write_ply(gaussians).partition(b"end_header\n")
    assert header.decode().splitlines()[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 1"]
    names = [line.split()[-1] for line in header.decode().splitlines()[3:]]
    assert " ".join(names) == (
        "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    )
    row = np.frombuffer(body, "<f4")
    expected = [1, 2, 3, 0, 0, 0, 0, -0.5 / SH_C0, 0.5 / SH_C0, np.log(3), np.log(0.5), 0, np.log(2), 1, 0, 0, 0]
    np.testing.assert_allclose(row, expected, rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.integers(0, 2**31))
def test_there_and_back(count: int, seed: int) -> None:
    before = some(count, seed)
    after = read_ply(write_ply(before))
    assert np.array_equal(after.means, before.means)
    np.testing.assert_allclose(after.quats, before.quats, atol=1e-6)
    np.testing.assert_allclose(after.scales, before.scales, rtol=2e-6)
    np.testing.assert_allclose(after.opacities, before.opacities, rtol=1e-6)
    np.testing.assert_allclose(after.colors, before.colors, atol=1e-6)


def test_full_opacity_survives() -> None:
    before = Gaussians([[0, 0, 0]], [[1, 1, 1]], [[1, 0, 0, 0]], [1.0], [[1, 1, 1]])  # type: ignore[arg-type, list-item]
    assert read_ply(write_ply(before)).opacities[0] > 0.999999


def test_an_opacity_of_0_stays_finite_and_unlike_any_other() -> None:
    before = some(4)
    before.opacities[:] = 0, 1e-30, 1e-12, 0.5
    after = read_ply(write_ply(before)).opacities
    assert after[0] < INVISIBLE < after[1] == after[2] < 2e-12
    assert after[3] == 0.5


def test_columns_of_view_dependent_colour_are_written_where_asked_for() -> None:
    before = some(3)
    header, _, body = write_ply(before, sh_rest=45).partition(b"end_header\n")
    names = [line.split()[-1] for line in header.decode().splitlines()[3:]]
    assert names[6:] == [
        "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{k}" for k in range(45)), "opacity",
        "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
    ]  # fmt: skip
    assert (np.frombuffer(body, "<f4").reshape(3, 62)[:, 9:54] == 0).all()
    after = read_ply(header + b"end_header\n" + body)
    np.testing.assert_allclose(after.opacities, before.opacities, rtol=1e-6)


def test_other_properties_and_orders_are_read_by_name() -> None:
    data = write_ply(some(3))
    header, _, body = data.partition(b"end_header\n")
    table = np.frombuffer(body, "<f4").reshape(3, 17)
    extra = np.hstack([np.full((3, 1), 7, "<f4"), table]).tobytes()
    longer = header.replace(b"property float x\n", b"comment c\nproperty float label\nproperty float x\n")
    assert np.array_equal(read_ply(longer + b"end_header\n" + extra).means, some(3).means)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda d: d[:-1], "cut short"),
        (lambda d: d.replace(b"float opacity", b"float o"), "lack opacity"),
        (lambda d: d.replace(b"binary_little_endian", b"ascii"), "format is ascii"),
        (lambda d: d.replace(b"vertex 3", b"vertex -3"), "number of vertices"),
        (lambda d: d.replace(b"vertex 3", b"face 3"), "no vertices"),
        (lambda d: d.replace(b"float nx", b"list uchar int nx"), "list property"),
        (lambda d: d.replace(b"float nx", b"half nx"), "unknown type"),
        (lambda d: d.replace(b"float ny", b"float nx"), "repeated"),
        (lambda d: b"solid" + d, "no header"),
        (lambda d: d.replace(b"vertex 3", b"vertex " + b"9" * 5000), "number of vertices"),
        (
            lambda d: d.replace(b"element vertex", b"element chunk 1\nproperty float min_x\nelement vertex"),
            "SuperSplat",
        ),
        (lambda d: d.replace(b"float nx", b"float f_rest_0"), "1 columns f_rest, expected 0, 9, 24, 45"),
        (lambda d: d.replace(b"end_header\n", b"comment end_header\n", 1), "no header"),
        (lambda _: b"", "no header"),
        (lambda d: d[:20], "no header"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(change, fault) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(AtlasError, match=fault):
        read_ply(change(write_ply(some(3))))


def test_end_header_in_a_comment_is_not_the_end() -> None:
    data = write_ply(some(3))
    for comment in (b"comment end_header\n", b"comment an\ncomment end_header of mine\n", b"obj_info end_header\n"):
        longer = data.replace(b"element vertex", comment + b"element vertex")
        assert np.array_equal(read_ply(longer).means, some(3).means)
    windows = data.partition(b"end_header\n")
    crlf = windows[0].replace(b"\n", b"\r\n") + b"end_header\r\n" + windows[2]
    assert np.array_equal(read_ply(crlf).means, some(3).means)


def test_harmonics_lie_channel_after_channel() -> None:
    plain, rest = some(3), np.arange(3 * 9, dtype="<f4").reshape(3, 9) / 10
    header, _, body = write_ply(plain, sh_rest=9).partition(b"end_header\n")
    table = np.frombuffer(body, "<f4").reshape(3, -1).copy()
    table[:, 9:18] = rest
    seen = read_view_dependent(header + b"end_header\n" + table.tobytes())
    assert (seen.degree, seen.harmonics.shape) == (1, (3, 4, 3))
    for channel in range(3):
        assert np.array_equal(seen.harmonics[:, 1:, channel], rest[:, 3 * channel : 3 * channel + 3])
    np.testing.assert_allclose(0.5 + SH_C0 * seen.harmonics[:, 0], plain.colors, atol=1e-6)


def test_nan_is_refused_with_its_row() -> None:
    data = bytearray(write_ply(some(3)))
    data[-17 * 4 : -16 * 4] = np.float32(np.nan).tobytes()
    with pytest.raises(AtlasError, match="means row 2"):
        read_ply(bytes(data))


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="shared/data/gaussianverse_samples is not there")
def test_published_fits_are_read() -> None:
    files = sorted(PUBLISHED.rglob("point_cloud.ply"))
    assert files
    for path in files:
        gaussians = read_ply(path.read_bytes())
        assert len(gaussians) == 16384
        assert np.abs(gaussians.means).max() < 2
        assert gaussians.colors.std() > 0.01
