"""Objects in other projects' formats, read as their loaders read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from atlas_objects import cloud, gaussians

from gaussianverse.atlas.interchange.ply import read_raw
from gaussianverse.pipeline.ops.object_formats import WRITERS, Options

OBJECTS = {f"u{k}": gaussians(cloud("volume", 300 + k)) for k in range(3)}
ROWS: dict[str, dict[str, Any]] = {
    "u0": {"uid": "u0", "category": "Food", "caption": "a pear", "split": "train"},
    "u1": {"uid": "u1", "category": "", "caption": "", "split": "test"},
    "u2": {"uid": "u2", "category": "Daily Used/x", "caption": 'a "cup"', "split": ""},
}
FACTS = {"center_x": 1.0, "center_y": 2.0, "center_z": 3.0, "unit": 2.0}


def write(format: str, dest: Path, **options: Any) -> list[str]:
    writer = WRITERS[format](dest, Options(**options))
    paths = [writer.write(ROWS[uid], g, FACTS) for uid, g in OBJECTS.items()]
    return [path.relative_to(dest).as_posix() for path in (*paths, *writer.finish())]


def test_gaussiancubes_loader_opens_cubes_lists_and_statistics(tmp_path: Path) -> None:
    assert write("gaussiancube", tmp_path, bound=0.5)[:3] == [f"volume_act/u{k}.pt" for k in range(3)]
    mean = torch.load(tmp_path / "mean_volume_act.pt").to(torch.float32)
    std = torch.load(tmp_path / "std_volume_act.pt").to(torch.float32)
    assert mean.shape == std.shape == (32, 32, 32, 14)
    assert torch.load(tmp_path / "mean_volume_act.pt").dtype == torch.float64
    uids = (tmp_path / "train.txt").read_text().splitlines()
    assert uids == ["u0", "u2"]
    assert (tmp_path / "test.txt").read_text().splitlines() == ["u1"]
    assert json.loads((tmp_path / "captions.json").read_text()) == {"u0": "a pear", "u1": "", "u2": 'a "cup"'}
    volumes = []
    for path in sorted(str(tmp_path / "volume_act" / f"{uid}.pt") for uid in OBJECTS):
        data = torch.load(path, weights_only=True).to(torch.float32)
        assert data.shape == (32, 32, 32, 14)
        volumes.append((data - mean) / std)
    normalised = torch.stack(volumes)
    assert torch.isfinite(normalised).all()
    np.testing.assert_allclose(normalised.mean(0), 0, atol=1e-4)
    spread = normalised.std(0, correction=0)
    assert ((spread - 1).abs() < 1e-3).logical_or(spread < 1e-3).all()
    assert (spread > 0.5).float().mean() > 0.005


def test_statistics_of_an_export_do_not_outlive_the_start_of_another(tmp_path: Path) -> None:
    write("gaussiancube", tmp_path)
    writer = WRITERS["gaussiancube"](tmp_path, Options(bound=0.5))
    writer.write(ROWS["u0"], OBJECTS["u0"], FACTS)  # and then it is killed
    assert [path.name for path in tmp_path.iterdir()] == ["volume_act"]
    list(writer.finish())
    assert (tmp_path / "train.txt").read_text() == "u0\n"
    assert not (tmp_path / "test.txt").exists()


def test_two_exports_have_the_same_bytes(tmp_path: Path) -> None:
    for format in WRITERS:
        found = []
        for run in ("a", "b"):
            write(format, tmp_path / format / run)
            files = sorted(p for p in (tmp_path / format / run).rglob("*") if p.is_file())
            found.append([(p.name, p.read_bytes()) for p in files])
        assert found[0] == found[1]


def test_ply_in_folders_of_categories_with_columns_for_readers_that_insist(tmp_path: Path) -> None:
    written = write("ply", tmp_path, by_category=True, sh_degree=3)
    assert written == ["Food/u0.ply", "none/u1.ply", "Daily_Used_x/u2.ply"]
    raw = read_raw((tmp_path / "Food/u0.ply").read_bytes())
    assert raw["rest"].shape == (300, 15, 3)
    assert not raw["rest"].any()
    header = (tmp_path / "Food/u0.ply").read_bytes().split(b"end_header")[0].decode()
    names = [line.split()[-1] for line in header.splitlines() if line.startswith("property")]
    assert len(names) == 62
    assert names[9:54] == [f"f_rest_{k}" for k in range(45)]


def test_scenesplats_loader_reads_each_object_in_its_world(tmp_path: Path) -> None:
    assert write("scenesplat", tmp_path) == ["train/u0", "test/u1", "train/u2"]
    given = OBJECTS["u0"]
    found = {path.stem: np.load(path, allow_pickle=False) for path in (tmp_path / "train" / "u0").iterdir()}
    assert sorted(found) == ["color", "coord", "opacity", "quat", "scale"]
    np.testing.assert_allclose(found["coord"], [1, 2, 3] + 2 * given.means.astype(np.float64), atol=1e-6)
    assert found["color"].dtype == np.uint8
    np.testing.assert_allclose(found["color"] / 255, given.colors, atol=0.5 / 255 + 1e-6)
    np.testing.assert_array_equal(found["opacity"].reshape(-1), given.opacities)
    np.testing.assert_allclose(found["scale"], np.clip(2 * given.scales, 1e-4, 1), rtol=1e-6)
    assert (found["quat"][:, 0] >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(found["quat"], axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(("option", "value"), [("bound", 0.5), ("padding", "published")])
def test_options_reach_the_cube(tmp_path: Path, option: str, value: Any) -> None:
    write("gaussiancube-npy", tmp_path / "a")
    write("gaussiancube-npy", tmp_path / "b", **{option: value})
    assert (np.load(tmp_path / "a" / "u0.npy") != np.load(tmp_path / "b" / "u0.npy")).any()
