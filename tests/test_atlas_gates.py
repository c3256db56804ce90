"""Each gate refuses its kind of error, and accepts right atlases."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from atlas_objects import SHAPES, cloud, gaussians

from gaussianverse.atlas import Atlas, AtlasConfig, gates, pack, packing
from gaussianverse.atlas.errors import AtlasError, RoughAtlas, TransportFailed
from gaussianverse.atlas.padding import Placement, place
from gaussianverse.atlas.plane import plane_indices
from gaussianverse.atlas.sphere import fibonacci_sphere
from gaussianverse.atlas.transport.solver import assign

CONFIG = AtlasConfig(size=32)
CELLS = 32 * 32
Patch = pytest.MonkeyPatch


def inverse(permutation: np.ndarray) -> np.ndarray:
    inverted = np.empty_like(permutation)
    inverted[permutation] = np.arange(len(permutation))
    return inverted


def unsorted_sphere(count: int) -> np.ndarray:
    """The lattice in the order of its definition, without the sort."""
    points = fibonacci_sphere(count)
    return points[np.argsort(points[:, 1], kind="stable")]


def invert_sphere_indices(patch: Patch) -> None:
    """Apply the inverse of the sphere indices, with padding after the Gaussians."""

    def inverted(*arguments: object) -> Placement:
        right = place(*arguments)  # type: ignore[arg-type]
        count = int(right.live.sum())
        content = np.where(right.live, right.source, 0)
        content[~right.live] = np.arange(count, len(content))
        content = inverse(content)
        live = content < count
        return replace(right, source=np.where(live, content, right.source), live=live)

    patch.setattr(packing, "place", inverted)


def forget_sort(patch: Patch) -> None:
    """Skip the sort in packing and unpacking, so that the atlas unpacks to the same Gaussians."""
    patch.setattr(packing, "sphere_of", lambda config: unsorted_sphere(config.size**2))


def forget_sort_in_the_transport(patch: Patch) -> None:
    patch.setattr(packing, "place", lambda g, sphere, pad: place(g, unsorted_sphere(len(sphere)), pad))


def invert_plane(patch: Patch) -> None:
    """Invert the plane in packing and unpacking, so that the atlas unpacks to the same Gaussians."""
    patch.setattr(packing, "plane_of", lambda config: inverse(plane_indices(config.size)))


def forget_plane(patch: Patch) -> None:
    patch.setattr(packing, "plane_of", lambda config: np.arange(config.size**2))


def shuffle(patch: Patch) -> None:
    """Put Gaussians into random cells, with matching offsets."""
    order = np.random.default_rng(0).permutation(CELLS)
    patch.setattr(packing, "plane_of", lambda config: order)


def list_order(patch: Patch) -> None:
    """Skip the transport: sphere point k gets Gaussian k."""

    def listed(*arguments: object) -> Placement:
        right = place(*arguments)  # type: ignore[arg-type]
        count = int(right.live.sum())
        source = np.arange(len(right.source))
        return replace(right, source=np.where(source < count, source, 0), live=source < count)

    patch.setattr(packing, "place", listed)


INDEX_ERRORS: list[Callable[[Patch], None]] = [
    invert_sphere_indices, forget_sort, forget_sort_in_the_transport, invert_plane, forget_plane, shuffle,
    list_order,
]  # fmt: skip


@pytest.mark.parametrize("count", [8, 50, 400, CELLS])
@pytest.mark.parametrize("mistake", INDEX_ERRORS)
def test_every_index_error_is_refused(mistake: Callable[[Patch], None], count: int, monkeypatch: Patch) -> None:
    for shape in ("shell", "volume", "rod", "plate", "corner", "line"):
        g = gaussians(cloud(shape, count))
        assert pack(g, CONFIG).stats["n_gaussians"] == count
        with monkeypatch.context() as patch:
            mistake(patch)
            with pytest.raises(RoughAtlas):
                pack(g, CONFIG)


@pytest.mark.parametrize("pad", ["nearest", "before"])
@pytest.mark.parametrize("mistake", [invert_sphere_indices, forget_sort, invert_plane])
def test_index_errors_are_refused_with_the_other_paddings(
    mistake: Callable[[Patch], None], pad: str, monkeypatch: Patch
) -> None:
    mistake(monkeypatch)
    with pytest.raises(RoughAtlas):
        pack(gaussians(cloud("volume", 400)), replace(CONFIG, pad=pad))


def test_faults_are_refused_at_the_papers_size_and_above(monkeypatch: Patch) -> None:
    """A sphere in another order is smooth for a rod along its axis, and the gate still refuses it."""
    for count, shape in ((3000, "rod"), (17_000, "shell")):
        g = gaussians(cloud(shape, count))
        assert pack(g).stats["smoothness_unrolled"] == pytest.approx(0.993, abs=1e-3)
        for fault in (invert_sphere_indices, forget_sort, invert_plane):
            with monkeypatch.context() as patch:
                fault(patch)
                with pytest.raises(RoughAtlas):
                    pack(g)


@pytest.mark.parametrize("pad", ["transport", "nearest", "before"])
@pytest.mark.parametrize("shape", SHAPES)
def test_right_atlases_pass(shape: str, pad: str) -> None:
    for count in (8, 60, 1000, 1300):
        assert pack(gaussians(cloud(shape, count)), replace(CONFIG, pad=pad)).stats["n_gaussians"] == min(
            count, CELLS
        )


def good() -> Atlas:
    return pack(gaussians(cloud("shell", 500)), AtlasConfig(size=32))


TRANSPORT = assign(cloud("volume", 20), fibonacci_sphere(40))


@pytest.mark.parametrize(
    ("gate", "channels", "value", "says"),
    [
        (gates.finite, [0], np.nan, "not finite"),
        (gates.finite, [14], np.inf, "not finite"),
        (gates.equal_opacities, [7], 0.123, "opacity copies differ"),
        (lambda c: gates.opacity_range(c[:, 3]), [3], 1.0001, r"opacity is outside \[0, 1\]"),
        (lambda c: gates.opacity_range(c[:, 3]), [3], -1e-6, r"opacity is outside \[0, 1\]"),
        (lambda c: gates.albedo_range(c[:, 4:7]), [5], 1.0001, "albedo is outside"),
        (lambda c: gates.albedo_range(c[:, 4:7]), [5], -0.1, "albedo is outside"),
        (lambda c: gates.positive_scales(c[:, 8:11]), [10], 0.0, "scale is not above 0"),
        (lambda c: gates.unit_quaternions(c[:, 12:]), [12, 13, 14, 15], 0.5001, "not of norm 1"),
        (lambda c: gates.unit_quaternions(c[:, 12:]), [12, 13, 14, 15], -0.5, "w < 0"),
        (lambda c: gates.padding_count(c[:, 3], 524), [3], 0.0, "525 cells are invisible, 524 were padded"),
        (lambda c: gates.storable(c.reshape(32, 32, 16), "float16"), [8], 65_600.0, "too large for float16"),
    ],
)
def test_a_corrupted_cell_fails_its_gate(
    gate: Callable[[np.ndarray], float], channels: list[int], value: float, says: str
) -> None:
    atlas = good()
    cells = atlas.array.reshape(-1, 16).copy()
    gate(cells)
    row = int(np.flatnonzero(atlas.source.ravel() >= 0)[100])
    cells[row, channels] = value
    with pytest.raises(AtlasError, match=says) as caught:
        gate(cells)
    assert "padded" in says or f"row {row} of 1024" in str(caught.value)


def test_check_runs_every_gate_on_the_array() -> None:
    g = gaussians(cloud("shell", 500))
    transport = assign(g.means, fibonacci_sphere(1024))
    array = pack(g, AtlasConfig(size=32)).array
    gates.check(array, transport, 500)
    live = np.argwhere(array[..., 3] > 0)[7]
    faults = {0: np.nan, 3: 0.5, 5: 7.0, 9: -1.0, 12: 3.0}
    for channel, value in faults.items():
        spoilt = array.copy()
        spoilt[live[0], live[1], channel] = value
        with pytest.raises(AtlasError):
            gates.check(spoilt, transport, 500)
    with pytest.raises(AtlasError, match="524 cells are invisible, 525 were padded"):
        gates.check(array, transport, 499)
    with pytest.raises(TransportFailed, match=r"relative duality gap 1e-09 is above 1e-12"):
        gates.check(array, replace(transport, rel_gap=1e-9), 500)
    with pytest.raises(TransportFailed, match="gap nan"):
        gates.check(array, replace(transport, rel_gap=float("nan")), 500)
    with pytest.raises(RoughAtlas, match="the offsets cost"):
        gates.check(array, replace(transport, primal=transport.primal * 1.001), 500)


def test_numbers_that_gates_return() -> None:
    atlas = good()
    cells = atlas.array.reshape(-1, 16)
    assert gates.finite(cells) == 1024 * 16
    assert gates.equal_opacities(cells) == 0.0
    assert gates.opacity_range(cells[:, 3]) == cells[:, 3].max()
    assert gates.albedo_range(cells[:, 4:7]) == cells[:, 4:7].max()
    assert gates.positive_scales(cells[:, 8:11]) == cells[:, 8:11].min() > 0
    assert gates.unit_quaternions(cells[:, 12:]) < 1e-6
    assert gates.padding_count(cells[:, 3], 524) == 524
    assert gates.certified(TRANSPORT) == TRANSPORT.rel_gap
    assert gates.smooth(0.95, 0.9) == 0.95


@pytest.mark.parametrize("field", ["means", "scales", "quats", "opacities", "colors"])
def test_round_trip_notices_a_changed_value_and_a_lost_row(field: str) -> None:
    g = gaussians(cloud("volume", 50))
    assert gates.round_trip(g, g) == 0.0
    values = getattr(g, field).copy()
    values[9] += 1e-4
    with pytest.raises(AtlasError, match=f"{field} changed by more than 1e-6 in the round trip: row 9 of 50"):
        gates.round_trip(replace(g, **{field: values}), g)
    with pytest.raises(AtlasError, match="50 Gaussians were packed, 49 unpacked"):
        gates.round_trip(g[:49], g)


@pytest.mark.parametrize("value", [0.79999, 0.0, -1.0, float("nan")])
def test_smooth_refuses_with_the_number(value: float) -> None:
    with pytest.raises(RoughAtlas, match=rf"smoothness {value:.3f}, expected at least 0\.80"):
        gates.smooth(value, 0.80)
    assert RoughAtlas.reason == "rough_atlas"
