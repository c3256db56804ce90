"""Values before and after activation, and the 3D filter of Mip-Splatting."""

import warnings

import numpy as np
import pytest
from test_atlas_ply import some

from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.interchange.activation import signs_of_activation
from gaussianverse.atlas.interchange.ply import INVISIBLE, raw_of, read_ply, read_view_dependent, write_ply
from gaussianverse.atlas.interchange.published import COLUMNS, read_raw_point_cloud


def with_columns(data: bytes, change: dict[str, np.ndarray]) -> bytes:
    """The file with columns replaced or added."""
    header, _, body = data.partition(b"end_header\n")
    names = [line.split()[-1] for line in header.decode().splitlines()[3:]]
    table = dict(zip(names, np.frombuffer(body, "<f4").reshape(-1, len(names)).T, strict=True)) | change
    count = len(next(iter(table.values())))
    header = "\n".join(["ply", "format binary_little_endian 1.0", f"element vertex {count}"])
    header += "".join(f"\nproperty float {name}" for name in table) + "\nend_header\n"
    return header.encode() + np.stack(list(table.values()), axis=1).astype("<f4").tobytes()


def activated(g: Gaussians, *, scales: bool = True, opacities: bool = True) -> bytes:
    change = {f"scale_{k}": g.scales[:, k] for k in range(3)} if scales else {}
    return with_columns(write_ply(g), change | ({"opacity": g.opacities} if opacities else {}))


def test_the_filter_is_added_as_its_renderer_adds_it() -> None:
    before = some(30)
    before.opacities[0] = 0.0
    width = np.random.default_rng(1).uniform(0, 0.5, 30).astype(np.float32)
    width[1] = 0.0
    after = read_ply(with_columns(write_ply(before), {"filter_3D": width}))
    # Mip-Splatting, scene/gaussian_model.py: get_scaling_with_3D_filter, get_opacity_with_3D_filter
    square = before.scales.astype(np.float64) ** 2
    wider = square + width[:, None].astype(np.float64) ** 2
    np.testing.assert_allclose(after.scales, np.sqrt(wider), rtol=1e-5)
    coefficient = np.sqrt(square.prod(axis=1) / wider.prod(axis=1))
    np.testing.assert_allclose(after.opacities, before.opacities * coefficient, rtol=1e-4, atol=1e-12)
    assert after.opacities[0] < INVISIBLE
    np.testing.assert_allclose(after.opacities[1], before.opacities[1], rtol=1e-5)


@pytest.mark.parametrize("width", [-0.1, np.nan, np.inf])
def test_a_filter_without_a_width_is_refused(width: float) -> None:
    with pytest.raises(AtlasError, match="filter_3D of row 2"):
        read_ply(with_columns(write_ply(some(3)), {"filter_3D": np.array([0, 0, width])}))


@pytest.mark.parametrize(("scales", "opacities"), [(True, True), (False, True), (True, False)])
def test_activated_values_are_recognised(scales: bool, opacities: bool) -> None:
    for seed in range(5):
        small = some(200, seed)
        small = Gaussians(small.means, small.scales * np.float32(0.05), small.quats, small.opacities, small.colors)
        if scales and not opacities:  # as logarithms they are told by the extent alone
            small = Gaussians(small.means * np.float32(0.3), small.scales, small.quats, small.opacities, small.colors)
        with pytest.raises(AtlasError, match=r"activated values .* --activated yes"):
            read_ply(activated(small, scales=scales, opacities=opacities))


def test_activated_values_are_taken_where_it_is_said() -> None:
    before = some(50)
    before.opacities[:2] = 0, 1
    after = read_view_dependent(activated(before), activated="yes").gaussians
    np.testing.assert_allclose(after.scales, before.scales, rtol=1e-6)
    np.testing.assert_allclose(after.opacities, before.opacities, atol=1e-7)
    with pytest.raises(AtlasError, match="no activated values"):
        read_view_dependent(write_ply(before), activated="yes")


def test_right_values_are_never_taken_for_activated_ones() -> None:
    rng = np.random.default_rng(0)
    for count in (20, 300):
        for size in (1e-3, 1.0, 1e3):  # metres, millimetres
            for low, high in ((0.01, 1.0), (0.999, 1.0), (0.1, 0.1)):
                g = some(count, count)
                g = Gaussians(
                    g.means * np.float32(size), np.clip(g.scales, 0, 0.05) * np.float32(size), g.quats,
                    rng.uniform(low, high, count), g.colors,
                )  # fmt: skip
                assert signs_of_activation(raw_of(g)) == ""
    assert signs_of_activation(raw_of(some(0))) == ""


def test_published_pairs_are_held_to_the_same() -> None:
    g = some(100)
    rows = np.zeros((100, COLUMNS), np.float32)
    rows[:, :3], rows[:, 3], rows[:, 52:55], rows[:, 55:] = g.means, g.opacities, g.scales, g.quats
    with pytest.raises(AtlasError, match="activated values"):
        read_raw_point_cloud(rows)
    assert np.allclose(read_raw_point_cloud(rows, activated="yes")["scales"], np.log(g.scales), atol=1e-6)


@pytest.mark.parametrize("column", ["x", "f_dc_1", "opacity", "scale_1", "rot_0", "filter_3D"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38, 800.0, -800.0])
def test_extreme_values_are_read_or_refused_with_their_row_and_no_warning(column: str, value: float) -> None:
    values = np.zeros(3)
    values[1] = value
    filtered = with_columns(write_ply(some(3)), {"filter_3D": np.full(3, 0.01)})
    refused = ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            assert np.isfinite(read_ply(with_columns(filtered, {column: values})).scales).all()
        except AtlasError as error:
            refused = str(error)
    assert not refused or "row 1" in refused
