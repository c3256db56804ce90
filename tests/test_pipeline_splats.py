"""Stage 1 without a fit: which files are read, and which are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from atlas_objects import cloud, gaussians

from gaussianverse.atlas import AtlasConfig, Gaussians, pack
from gaussianverse.atlas.errors import AtlasError, RoughAtlas
from gaussianverse.atlas.interchange.ply import write_ply
from gaussianverse.atlas.interchange.published import write_pair
from gaussianverse.atlas.sphere import fibonacci_sphere
from gaussianverse.atlas.transport.solver import assign
from gaussianverse.fitter.errors import LowPsnr
from gaussianverse.pipeline.config import SplatsConfig
from gaussianverse.pipeline.run.splats import read_splats

G = gaussians(cloud("shell", 1024))


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A published object: a list of Gaussians, and the sphere point of each."""
    (tmp_path / "point_cloud.ply").write_bytes(write_ply(G))
    np.save(tmp_path / "gs2sphere.npy", assign(G.means, fibonacci_sphere(1024)).indices)
    return tmp_path


def test_a_pair_is_read_as_it_is_listed(pair: Path) -> None:
    read, facts = read_splats(pair, "splats")
    np.testing.assert_array_equal(read.means, G.means)
    np.testing.assert_allclose(read.colors, G.colors, atol=1e-6)
    assert facts["n_gaussians"] == 1024
    assert [facts[f"bbox_min_{a}"] for a in "xyz"] == G.means.min(axis=0).tolist()
    assert [facts[f"bbox_max_{a}"] for a in "xyz"] == G.means.max(axis=0).tolist()
    sides = np.ptp(G.means.astype(np.float64), axis=0)
    assert facts["thinness"] == sides.min() / sides.max()


def test_red_and_blue_change_places(pair: Path) -> None:
    np.testing.assert_allclose(read_splats(pair, "splats-bgr")[0].colors, G.colors[:, ::-1], atol=1e-6)


def test_what_was_exported_comes_back_without_its_padding(tmp_path: Path) -> None:
    few, config = gaussians(cloud("shell", 700)), AtlasConfig(size=32)
    point_cloud, gs2sphere = write_pair(pack(few, config).array, config)
    np.save(tmp_path / "point_cloud.npy", point_cloud)
    np.save(tmp_path / "gs2sphere.npy", gs2sphere)
    read, facts = read_splats(tmp_path, "splats")
    assert len(read) == facts["n_gaussians"] == 700
    np.testing.assert_allclose(np.sort(read.means, axis=0), np.sort(few.means, axis=0), atol=1e-6)


def test_a_file_by_itself(tmp_path: Path) -> None:
    (tmp_path / "a.ply").write_bytes(write_ply(G[:50]))
    assert len(read_splats(tmp_path / "a.ply", "splats")[0]) == 50


def other_indices(folder: Path) -> None:
    other = gaussians(cloud("shell", 1024, seed=5))
    np.save(folder / "gs2sphere.npy", assign(other.means, fibonacci_sphere(1024)).indices)


def archive(folder: Path) -> None:
    with (folder / "gs2sphere.npy").open("wb") as file:
        np.savez(file, a=np.arange(3))


def invisible(folder: Path) -> None:
    (folder / "gs2sphere.npy").unlink()
    faint = Gaussians(G.means, G.scales, G.quats, np.zeros(1024, np.float32), G.colors)
    (folder / "point_cloud.ply").write_bytes(write_ply(faint))


@pytest.mark.parametrize(
    ("spoil", "kind", "fault"),
    [
        (other_indices, RoughAtlas, "do not belong to these Gaussians"),
        (lambda p: np.save(p / "gs2sphere.npy", np.arange(1000)), AtlasError, "got 1024 and int64"),
        (lambda p: (p / "gs2sphere.npy").write_bytes(b"x"), AtlasError, "gs2sphere.npy: not a .npy file"),
        (archive, AtlasError, "not a .npy file"),
        (lambda p: (p / "point_cloud.ply").write_bytes(b"x"), AtlasError, "not a PLY"),
        (lambda p: (p / "point_cloud.npy").touch(), AtlasError, "expected one of .*, found 2"),
        (lambda p: (p / "point_cloud.ply").unlink(), AtlasError, "expected one of .*, found 0"),
        (lambda p: (p / "point_cloud.ply").write_bytes(write_ply(G[:3])), AtlasError, "got 3 and int64"),
        (invisible, AtlasError, "all Gaussians are invisible"),
    ],
)
def test_what_is_refused(pair: Path, spoil: Callable[[Path], object], kind: type[Exception], fault: str) -> None:
    spoil(pair)
    with pytest.raises(kind, match=fault):
        read_splats(pair, "splats")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match=r"a\.ply: cannot be read: No such file"):
        read_splats(tmp_path / "a.ply", "splats")


def test_what_view_dependent_colour_was_and_what_is_left_of_it(tmp_path: Path) -> None:
    header, _, body = write_ply(G[:300], sh_rest=24).partition(b"end_header\n")
    table = np.frombuffer(body, "<f4").reshape(300, -1).copy()
    table[:, 9:33] = np.random.default_rng(0).normal(size=(300, 24)) * 0.3
    (tmp_path / "a.ply").write_bytes(header + b"end_header\n" + table.tobytes())
    (tmp_path / "b.ply").write_bytes(write_ply(G[:300], sh_rest=24))
    baked, facts = read_splats(tmp_path / "a.ply", "splats")
    dropped, other = read_splats(tmp_path / "a.ply", "splats", SplatsConfig(sh="dc"))
    np.testing.assert_allclose(dropped.colors, G[:300].colors, atol=1e-6)
    assert facts["sh_degree_in"] == other["sh_degree_in"] == 2
    assert 30 < other["sh_psnr"] < facts["sh_psnr"] < 40
    swapped, found = read_splats(tmp_path / "a.ply", "splats-bgr")
    np.testing.assert_allclose(swapped.colors, baked.colors[:, ::-1], atol=1e-5)
    assert found["sh_psnr"] == pytest.approx(facts["sh_psnr"], abs=1e-3)
    plain = read_splats(tmp_path / "b.ply", "splats")[1]
    assert (plain["sh_degree_in"], plain["sh_psnr"]) == (0, 100.0)
    with pytest.raises(LowPsnr, match=r"a\.ply: without its view-dependent colour \(degree 2\) .* at least 45\.00"):
        read_splats(tmp_path / "a.ply", "splats", SplatsConfig(min_sh_psnr=45))


def test_a_published_point_cloud_keeps_its_harmonics(tmp_path: Path) -> None:
    few, config = gaussians(cloud("shell", 64)), AtlasConfig(size=8, min_smoothness=0.0)
    rows, _ = write_pair(pack(few, config).array, config)
    rows[:, 5:20] = 0.2  # the other harmonics of red
    np.save(tmp_path / "point_cloud.npy", rows)
    read, facts = read_splats(tmp_path, "splats")
    assert facts["sh_degree_in"] == 3
    plain = np.sort(few.colors, axis=0)
    assert (
        np.abs(np.sort(read.colors, axis=0) - plain).mean(axis=0)[0]
        > 10 * np.abs(np.sort(read.colors, axis=0) - plain).mean(axis=0)[1:].max()
    )


def test_where_an_object_was_is_known_through_two_moves(tmp_path: Path) -> None:
    outer = {"center_x": 1.0, "center_y": -2.0, "center_z": 3.0, "unit": 0.5}
    moved = Gaussians(
        G.means * np.float32(50) + np.float32(7), G.scales * np.float32(50), G.quats, G.opacities, G.colors
    )
    (tmp_path / "splat.npz").write_bytes(moved.to_bytes())
    (tmp_path / "metadata.json").write_text(json.dumps(outer))
    read, facts = read_splats(tmp_path, "splats")
    assert np.abs(read.means).max() < 1
    center = np.array([facts["center_x"], facts["center_y"], facts["center_z"]])
    expected = np.array([1.0, -2.0, 3.0]) + 0.5 * moved.means.astype(np.float64)
    np.testing.assert_allclose(center + facts["unit"] * read.means.astype(np.float64), expected, atol=1e-4)
    np.testing.assert_allclose(facts["unit"] * read.scales, 0.5 * moved.scales, rtol=1e-5)


@pytest.mark.parametrize("text", ["[1]", '{"unit": 0}', '{"unit": "x"}', '{"center_x": NaN}', "{", '{"unit": 1e999}'])
def test_metadata_of_others_says_nothing_about_a_place(text: str, tmp_path: Path) -> None:
    (tmp_path / "splat.npz").write_bytes(G.to_bytes())
    (tmp_path / "metadata.json").write_text(text)
    facts = read_splats(tmp_path, "splats")[1]
    assert [facts[n] for n in ("center_x", "center_y", "center_z", "unit")] == [0, 0, 0, 1]
