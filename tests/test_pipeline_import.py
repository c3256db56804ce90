"""`gaussianverse import` and `export`: objects that are already Gaussians go in and out through the same pipeline."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from atlas_objects import cloud, gaussians
from forger import Forger, Sample
from pipeline_runs import dataset, in_process

from gaussianverse import atlas
from gaussianverse.atlas import AtlasConfig, Gaussians, dataset_format
from gaussianverse.atlas.arrays import npy
from gaussianverse.atlas.dataset_format import ATLAS, SPLATS
from gaussianverse.atlas.interchange.gaussiancube import from_cube
from gaussianverse.atlas.interchange.ply import INVISIBLE, read_ply, read_raw, write_ply
from gaussianverse.atlas.interchange.published import atlas_of, find_order, read_point_cloud, write_pair
from gaussianverse.atlas.interchange.spz import to_spz
from gaussianverse.atlas.plane import plane_indices, plane_of
from gaussianverse.atlas.sphere import fibonacci_sphere
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.tar import END, build
from gaussianverse.atlas.transport.solver import assign
from gaussianverse.fitter import reduce as reduction
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.dataset import run_file
from gaussianverse.pipeline.dataset.parquet import from_parquet
from gaussianverse.pipeline.dataset.schemas import METADATA, QUARANTINE
from gaussianverse.pipeline.dataset.shards import read_record
from gaussianverse.pipeline.run import job

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SIZE = ("--set", "atlas.size=32", "--set", "run.shard_size=2")
CONFIG = AtlasConfig(size=32)
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "ray_executor", in_process)


def publish(folder: Path, g: Gaussians, *, indices_of: Gaussians | None = None) -> None:
    folder.mkdir(parents=True)
    (folder / "point_cloud.ply").write_bytes(write_ply(g, sh_rest=45))
    of = indices_of or g
    if len(of) == 1024:
        np.save(folder / "gs2sphere.npy", assign(of.means, fibonacci_sphere(1024)).indices)


OBJECTS = {f"19/{k}": gaussians(cloud("shell", 1024, seed=k)) for k in range(2)} | {
    "20/7": gaussians(cloud("shell", 700))
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published")
    for name, g in OBJECTS.items():
        publish(root / name, g)
    (root / "captions.json").write_text(json.dumps({"19/0": "a réd ball", "99/9": "of another"}))
    return root


def run_import(root: Path, out: Path, *more: str) -> int:
    captions = ("--captions", str(root / "captions.json")) if (root / "captions.json").exists() else ()
    return cli.main(["import", str(root), "--out", str(out), *SIZE, *captions, *more])


@pytest.fixture(scope="module")
def imported(published: Path, tmp_path_factory: pytest.TempPathFactory) -> LocalStorage:
    out = tmp_path_factory.mktemp("imported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "ray_executor", in_process)
        assert run_import(published, out, "--license", "CC-BY-4.0") == 0
    return LocalStorage(out)


def rows_of(storage: LocalStorage) -> dict[str, dict[str, Any]]:
    return {r["uid"]: r for r in from_parquet(METADATA, storage.get(dataset_format.METADATA)).to_pylist()}


def test_gaussians_are_read_again_with_other_settings(imported: LocalStorage, capsys: Captured) -> None:
    given = ["extend", "--out", str(imported.root), "--manifest", str(imported.root / "manifest/objects.parquet")]
    assert cli.main([*given, "--set", "splats.sh=dc", "--dry-run"]) == 5
    assert "config.splats is null there" in capsys.readouterr().err
    assert cli.main([*given, "--set", "splats.sh=dc", "--refit", "--dry-run"]) == 0
    assert "version 2: 3 refitted" in capsys.readouterr().out
    assert cli.main([*given, "--refit", "--dry-run"]) == 1
    assert "nothing would change" in capsys.readouterr().err


def test_published_objects_become_a_verified_dataset(imported: LocalStorage, capsys: Captured) -> None:
    assert cli.main(["verify", "--out", str(imported.root)]) == 0
    rows = rows_of(imported)
    assert sorted(rows) == ["19_0", "19_1", "20_7"]
    first = rows["19_0"]
    assert (first["caption"], first["license"], first["source_id"]) == ("a réd ball", "CC-BY-4.0", "19/0")
    assert (first["sh_degree_in"], first["sh_psnr"], first["unit"]) == (0, 100.0, 1.0)
    assert len({row["input_sha256"] for row in rows.values()}) == 3
    assert (first["n_gaussians"], first["psnr"], first["metrics_on"], first["seed"]) == (1024, -1.0, "", -1)
    assert rows["20_7"]["n_padded"] == 324
    # measured over twelve such shells: 0.939 to 0.955
    assert all(r["smoothness"] > 0.9 and r["transport_gap"] <= 1e-12 for r in rows.values())
    run = run_file.load(imported)
    for uid, row in rows.items():
        g = OBJECTS[row["source_id"]]
        array = np.load(io.BytesIO(read_record(imported, ATLAS, row["shard"], uid).main(ATLAS)))
        unpacked = atlas.unpack(array, run.atlas)
        np.testing.assert_allclose(np.sort(unpacked.means, axis=0), np.sort(g.means, axis=0), atol=1e-6)
    assert "not measured" in imported.get(dataset_format.CARD).decode()


def test_the_table_says_what_was_not_measured(imported: LocalStorage, capsys: Captured) -> None:
    assert cli.main(["report", "--out", str(imported.root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert all(" - dB       -  " in line for line in lines[1:5])
    assert lines[5].startswith("look: ")


def test_twice_and_from_elsewhere_it_is_the_same_dataset(
    published: Path, imported: LocalStorage, tmp_path: Path
) -> None:
    shutil.copytree(published, tmp_path / "elsewhere")
    assert run_import(tmp_path / "elsewhere", tmp_path / "out", "--license", "CC-BY-4.0") == 0
    assert dataset(LocalStorage(tmp_path / "out")) == dataset(imported)


def test_broken_objects_are_quarantined_with_their_reason(tmp_path: Path, capsys: Captured) -> None:
    root = tmp_path / "in"
    publish(root / "good", OBJECTS["19/0"])
    publish(root / "foreign", OBJECTS["19/0"], indices_of=OBJECTS["19/1"])
    publish(root / "cut", OBJECTS["20/7"])
    (root / "cut/point_cloud.ply").write_bytes((root / "cut/point_cloud.ply").read_bytes()[:-1])
    assert run_import(root, tmp_path / "out") == 0
    storage = LocalStorage(tmp_path / "out")
    found = {
        r["uid"]: (r["reason"], r["error_message"], r["stage"])
        for r in from_parquet(QUARANTINE, storage.get(dataset_format.QUARANTINE)).to_pylist()
    }
    assert sorted(found) == ["cut", "foreign"]
    assert found["cut"][0] == "bad_input"
    assert "cut short" in found["cut"][1]
    assert found["foreign"][0] == "rough_atlas"
    assert found["foreign"][2] == "splats"
    assert str(tmp_path) not in str(found)


def test_red_and_blue_are_part_of_what_the_run_is(published: Path, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "out"
    assert run_import(published, out, "--swap-red-blue") == 0
    storage = LocalStorage(out)
    fit = Gaussians.from_bytes(read_record(storage, SPLATS, 0, "19_0").main(SPLATS))
    np.testing.assert_allclose(fit.colors, OBJECTS["19/0"].colors[:, ::-1], atol=1e-6)
    assert run_import(published, out) != 0
    assert "another manifest" in capsys.readouterr().err


def test_plane_indices_are_part_of_what_the_run_is(published: Path, tmp_path: Path, capsys: Captured) -> None:
    grid, file, out = plane_indices(32).reshape(32, 32), tmp_path / "plane.npy", tmp_path / "out"
    np.save(file, np.roll(grid, 8, axis=0))
    assert run_import(published, out, "--plane-indices", str(file)) == 0
    run = run_file.load(LocalStorage(out))
    assert len(run.atlas.plane_sha256) == 64
    given = run_file.load(LocalStorage(out)).identity
    np.save(file, np.roll(grid, 16, axis=0))
    assert run_import(published, out, "--plane-indices", str(file)) != 0
    assert "config.atlas.plane_sha256 is" in capsys.readouterr().err
    assert run_import(published, tmp_path / "other", "--plane-indices", str(file)) == 0
    other = run_file.load(LocalStorage(tmp_path / "other")).identity
    assert other["config_digest"] != given["config_digest"]
    assert other["representation"]["plane_sha256"] != given["representation"]["plane_sha256"]
    assert other["representation"]["sphere_sha256"] == given["representation"]["sphere_sha256"]


def test_the_ring_is_told_by_its_sphere(published: Path, imported: LocalStorage, tmp_path: Path) -> None:
    assert run_import(published, tmp_path / "out", "--set", "atlas.layout=ring") == 0
    assert cli.main(["verify", "--out", str(tmp_path / "out")]) == 0
    ring, usual = (run_file.load(s).identity["representation"] for s in (LocalStorage(tmp_path / "out"), imported))
    assert ring["sphere_sha256"] != usual["sphere_sha256"]
    assert ring["plane_sha256"] != usual["plane_sha256"]


def run_export(imported: LocalStorage, dest: Path, *more: str) -> int:
    return cli.main(["export", "--out", str(imported.root), *more, str(dest)])


def test_ply_of_some_and_of_all(imported: LocalStorage, tmp_path: Path, capsys: Captured) -> None:
    assert run_export(imported, tmp_path / "one", "--format", "ply", "20_7") == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "one" / "20_7.ply")]
    np.testing.assert_array_equal(read_ply((tmp_path / "one/20_7.ply").read_bytes()).means, OBJECTS["20/7"].means)
    assert run_export(imported, tmp_path / "all", "--format", "ply", "--count", "800") == 0
    found = {p.stem: read_ply(p.read_bytes()) for p in (tmp_path / "all").iterdir()}
    assert {uid: (len(g), int((g.opacities > INVISIBLE).sum())) for uid, g in found.items()} == {
        "19_0": (800, 800), "19_1": (800, 800), "20_7": (800, 700),
    }  # fmt: skip


def test_gaussiancube(imported: LocalStorage, tmp_path: Path, capsys: Captured) -> None:
    more = ("--bound", "0.5", "--padding", "published")
    assert run_export(imported, tmp_path, "--format", "gaussiancube", *more, "19_1", "20_7") == 0
    back = from_cube(torch.load(tmp_path / "volume_act" / "20_7.pt", weights_only=True).numpy(), 0.5)
    np.testing.assert_allclose(np.sort(back.means, axis=0), np.sort(OBJECTS["20/7"].means, axis=0), atol=1e-6)
    files = ["volume_act/19_1.pt", "volume_act/20_7.pt", "mean_volume_act.pt", "std_volume_act.pt", "captions.json"]
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in [*files, "train.txt"]]
    assert (tmp_path / "train.txt").read_text() == "19_1\n20_7\n"


def test_spz(imported: LocalStorage, tmp_path: Path) -> None:
    assert run_export(imported, tmp_path, "--format", "spz", "20_7") == 0
    assert (tmp_path / "20_7.spz").read_bytes() == to_spz(OBJECTS["20/7"])


def test_the_published_pair_as_its_loader_reads_it(imported: LocalStorage, tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    assert run_export(imported, tmp_path, "--format", "gaussianverse") == 0
    tars = sorted(tmp_path.iterdir())
    assert [p.name for p in tars] == ["gaussianverse-000000.tar", "gaussianverse-000001.tar"]
    samples = {
        s["__key__"]: s
        for s in wds.WebDataset([str(p) for p in tars], shardshuffle=False, empty_check=False).decode()
    }
    assert sorted(samples) == ["19_0", "19_1", "20_7"]
    for uid, sample in samples.items():
        point_cloud, gs2sphere = sample["point_cloud.npy"], sample["gs2sphere.npy"]
        assert (point_cloud.shape, point_cloud.dtype) == ((1024, 59), np.float32)
        assert sample["metadata.json"]["hash_key"] == uid
        placed = read_point_cloud(point_cloud[gs2sphere])
        order = find_order(placed, np.arange(1024), CONFIG)
        record = read_record(imported, ATLAS, int(uid == "20_7"), uid)
        stored = np.load(io.BytesIO(record.main(ATLAS)))
        np.testing.assert_allclose(atlas_of(placed, order, CONFIG), stored, atol=2e-6)
    # where its loader reads the caption, and where its publisher writes it
    assert samples["19_0"]["metadata.json"]["caption"] == samples["19_0"]["caption.txt"] == "a réd ball"


def ok(storage: LocalStorage) -> dict[str, dict[str, Any]]:
    rows = rows_of(storage)
    assert {row["status"] for row in rows.values()} == {"ok"}, rows
    return rows


def by_x(g: Gaussians) -> Gaussians:
    return g[np.lexsort(g.means.T)]


@pytest.mark.parametrize("format", ["gaussianverse", "ply", "gaussiancube-npy"])
def test_what_was_exported_is_imported(format: str, imported: LocalStorage, tmp_path: Path, capsys: Captured) -> None:
    assert run_export(imported, tmp_path / "in", "--format", format) == 0
    assert run_import(tmp_path / "in", tmp_path / "out") == 0
    assert "left out" not in capsys.readouterr().out
    rows = ok(LocalStorage(tmp_path / "out"))
    assert {uid: row["n_gaussians"] for uid, row in rows.items()} == {"19_0": 1024, "19_1": 1024, "20_7": 700}
    if format == "gaussianverse":
        assert rows["19_0"]["caption"] == "a réd ball"
    for uid, row in rows.items():
        shard = row["shard"]
        again = Gaussians.from_bytes(read_record(LocalStorage(tmp_path / "out"), SPLATS, shard, uid).main(SPLATS))
        np.testing.assert_allclose(by_x(again).means, by_x(OBJECTS[uid.replace("_", "/")]).means, atol=1e-6)


def test_a_dataset_is_imported_from_its_own_shards(imported: LocalStorage, tmp_path: Path, capsys: Captured) -> None:
    assert run_import(imported.root, tmp_path / "out", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["left_out"]["other files and folders of a dataset, whose splats/ are read"] > 5
    here, there = rows_of(imported), ok(LocalStorage(tmp_path / "out"))
    for name in ("caption", "license", "source_id", "n_gaussians", "splats_nbytes"):
        assert {uid: r[name] for uid, r in here.items()} == {uid: r[name] for uid, r in there.items()}
    for uid, row in here.items():
        records = [read_record(s, SPLATS, row["shard"], uid) for s in (imported, LocalStorage(tmp_path / "out"))]
        assert records[0].main(SPLATS) == records[1].main(SPLATS)


def test_shards_whose_rows_lie_in_the_order_of_the_plane(imported: LocalStorage, tmp_path: Path) -> None:
    config = run_file.load(imported).atlas
    array = np.load(io.BytesIO(read_record(imported, ATLAS, 0, "19_0").main(ATLAS)))
    by_cell = write_pair(array, config)[0][plane_of(config)]
    foreign = assign(OBJECTS["19/1"].means, fibonacci_sphere(1024)).indices
    (tmp_path / "in").mkdir()
    members = {"a.point_cloud.npy": npy(by_cell), "b.gs2sphere.npy": npy(foreign), "b.point_cloud.npy": npy(by_cell)}
    (tmp_path / "in" / "gaussianverse-000000.tar").write_bytes(build(members) + END)
    assert run_import(tmp_path / "in", tmp_path / "out") == 0
    assert ok(LocalStorage(tmp_path / "out")).keys() == {"a", "b"}


def test_the_probe_of_a_manifest_reads_gaussians_too(
    imported: LocalStorage, tmp_path: Path, capsys: Captured
) -> None:
    assert run_export(imported, tmp_path, "--format", "gaussianverse") == 0
    rows = [
        {"uid": uid, "views": f"gaussianverse-00000{uid == '20_7':d}.tar#{key}", "format": "splats", "caption": "c"}
        for uid, key in (("19_0", "19_0"), ("20_7", "20_7"), ("x", "nobody"))
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    capsys.readouterr()
    assert cli.main(["manifest", "check", str(tmp_path / "m.jsonl"), "--probe", "3"]) == 1
    (fault, last) = capsys.readouterr().out.splitlines()
    assert ":3: 'x': AtlasError" in fault
    assert last == "1 faults"


def test_what_is_left_out_is_printed(tmp_path: Path, capsys: Captured) -> None:
    root = tmp_path / "in"
    publish(root / "a", OBJECTS["20/7"])
    (root / "a" / "other.spz").touch()
    (root / "notes.txt").touch()
    assert run_import(root, tmp_path / "out") == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("2 left out: 1 .spz files, which are not read: convert them to .ply")
    assert line.endswith("; 1 .txt files")
    assert run_import(root, tmp_path / "out", "--json") == 0
    assert json.loads(capsys.readouterr().out)["left_out"][".txt files"] == 1


def test_objects_far_away_or_of_another_size_are_published_about_the_origin(tmp_path: Path) -> None:
    g, root = OBJECTS["20/7"], tmp_path / "in"
    root.mkdir()
    center, unit = np.array([5e5, 4.5e6, 120.0]), 80.0
    header, _, body = write_ply(g).partition(b"end_header\n")
    for axis in "xyz":
        header = header.replace(f"property float {axis}\n".encode(), f"property double {axis}\n".encode())
    table = np.frombuffer(body, "<f4").reshape(len(g), -1)
    rows = np.empty(len(g), [("xyz", "<f8", 3), ("rest", "<f4", 14)])
    rows["xyz"], rows["rest"] = center + unit * g.means.astype(np.float64), table[:, 3:]
    rows["rest"][:, 7:10] += np.log(unit)
    (root / "far.ply").write_bytes(header + b"end_header\n" + rows.tobytes())
    (root / "near.ply").write_bytes(write_ply(g))
    rounded = Gaussians(rows["xyz"].astype(np.float32), g.scales * np.float32(unit), g.quats, g.opacities, g.colors)
    (root / "rounded.ply").write_bytes(write_ply(rounded))
    assert run_import(root, tmp_path / "out") == 0
    storage = LocalStorage(tmp_path / "out")
    rows_by_uid = rows_of(storage)
    near, far = rows_by_uid["near"], rows_by_uid["far"]
    assert [near[n] for n in ("center_x", "center_y", "center_z", "unit")] == [0, 0, 0, 1]
    placed = splats_of(storage, "far").means.astype(np.float64)
    back = np.array([far["center_x"], far["center_y"], far["center_z"]]) + far["unit"] * placed
    np.testing.assert_allclose(back, rows["xyz"], atol=2e-5)
    assert 0.5 < np.abs(placed).max() < 0.7
    assert "rounded" in rows_by_uid
    assert rows_by_uid["rounded"]["reason"] == "bad_input"
    assert "store x, y, z as double" in rows_by_uid["rounded"]["error_message"]
    # taken in again, from shards and from an export, it still knows where it was
    places = [far[n] for n in ("center_x", "center_y", "center_z", "unit")]
    assert run_import(storage.root, tmp_path / "again") == 0
    again = rows_of(LocalStorage(tmp_path / "again"))["far"]
    np.testing.assert_allclose([again[n] for n in ("center_x", "center_y", "center_z", "unit")], places, rtol=1e-12)
    assert run_export(storage, tmp_path / "tars", "--format", "gaussianverse", "far") == 0
    assert run_import(tmp_path / "tars", tmp_path / "third") == 0
    third = rows_of(LocalStorage(tmp_path / "third"))["far"]
    np.testing.assert_allclose([third[n] for n in ("center_x", "center_y", "center_z", "unit")], places, rtol=1e-12)
    # exported where it was
    assert run_export(storage, tmp_path / "exp", "--format", "ply", "far", "near") == 0
    again = read_raw((tmp_path / "exp" / "far.ply").read_bytes())
    np.testing.assert_allclose(again["means"], rows["xyz"], atol=2e-5)
    np.testing.assert_allclose(np.exp(again["scales"]), g.scales * unit, rtol=1e-5)
    np.testing.assert_array_equal(read_ply((tmp_path / "exp" / "near.ply").read_bytes()).means, g.means)


@pytest.mark.parametrize(
    ("arguments", "code", "fault"),
    [
        (["--format", "ply", "nobody"], 1, "no object 'nobody' in the manifest"),
        (["--format", "gaussiancube", "--count", "5", "19_0"], 2, "count 5, format gaussiancube"),
        (["--format", "spz", "--sh-degree", "3", "19_0"], 2, "--sh-degree, format spz: expected format ply"),
        (["--format", "scenesplat", "--by-category", "19_0"], 2, "--by-category, format scenesplat"),
        (["--format", "ply", "--bound", "1", "19_0"], 2, "--bound, format ply: expected format gaussiancube or"),
        (["--format", "dataset", "--padding", "published"], 2, "--padding, format dataset"),
        (["--format", "ply", "--count", "-5", "19_0"], 2, "count -5, format ply: expected a positive count"),
    ],
)
def test_what_export_refuses(
    arguments: list[str], code: int, fault: str, imported: LocalStorage, tmp_path: Path, capsys: Captured
) -> None:
    assert run_export(imported, tmp_path, *arguments) == code
    assert fault in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_quarantined_object_is_not_exported_and_leaves_nothing(tmp_path: Path, capsys: Captured) -> None:
    root = tmp_path / "in"
    publish(root / "good", OBJECTS["19/0"])
    publish(root / "foreign", OBJECTS["19/0"], indices_of=OBJECTS["19/1"])
    assert run_import(root, tmp_path / "out") == 0
    storage = LocalStorage(tmp_path / "out")
    for format in ("ply", "gaussianverse"):
        assert run_export(storage, tmp_path / "exp", "--format", format, "foreign") == 1
        assert "foreign was quarantined: rough_atlas" in capsys.readouterr().err
        assert list((tmp_path / "exp").iterdir()) == []
        assert run_export(storage, tmp_path / format, "--format", format) == 0
        assert len(list((tmp_path / format).iterdir())) == 1


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data is not there")
def test_published_fits_and_a_statue_go_through(tmp_path: Path) -> None:
    root = tmp_path / "in"
    shutil.copytree(SHARED / "gaussianverse_samples", root)
    statue = read_ply((SHARED / "splats_real" / "massa_statue_sh0.ply").read_bytes())
    (root / "statue.ply").write_bytes(write_ply(statue))
    assert cli.main(["import", str(root), "--out", str(tmp_path / "out"), "--swap-red-blue"]) == 0
    storage = LocalStorage(tmp_path / "out")
    assert cli.main(["verify", "--out", str(tmp_path / "out")]) == 0
    rows = rows_of(storage)
    assert {uid: (r["status"], r["n_gaussians"], r["n_dropped"]) for uid, r in rows.items()} == {
        "9350303": ("ok", 16384, 0), "9351401": ("ok", 16384, 0), "statue": ("ok", 58649, 42265),
    }  # fmt: skip
    assert min(r["smoothness"] for r in rows.values()) > 0.9
    fit = Gaussians.from_bytes(read_record(storage, SPLATS, 0, "9351401").main(SPLATS))
    red, _, blue = fit.colors.mean(axis=0)
    assert red > blue + 0.05


def surplus(seed: int = 0) -> Gaussians:
    """Gaussians that are more than the 256 cells of a small atlas, many of them hidden behind others."""
    rng, g = np.random.default_rng(seed), gaussians(cloud("shell", 700, seed=seed))
    colors = (0.5 + 0.4 * np.sin(4 * g.means)).astype(np.float32)
    scales = rng.uniform(0.02, 0.06, (700, 3)).astype(np.float32)
    return replace(g, scales=scales, colors=colors, opacities=rng.uniform(0.4, 1, 700).astype(np.float32))


def test_more_gaussians_than_cells_are_reduced_by_the_rule_of_the_run(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reduction, "SIZE", 128)
    root = tmp_path / "in"
    root.mkdir()
    for uid, seed in (("a", 0), ("b", 1)):
        (root / f"{uid}.ply").write_bytes(write_ply(surplus(seed)))
    (root / "few.ply").write_bytes(write_ply(surplus()[:200]))
    found = {}
    for rule in ("scale", "contribution", "refine"):
        out = tmp_path / rule
        more = ("--set", "atlas.size=16", "--set", "atlas.min_smoothness=0.5", "--set", f"reduce.rule={rule}")
        assert run_import(root, out, *more) == 0
        assert cli.main(["verify", "--out", str(out)]) == 0, rule
        rows = rows_of(LocalStorage(out))
        assert {uid: (r["n_gaussians"], r["n_padded"], r["n_dropped"]) for uid, r in rows.items()} == {
            "a": (700, 0, 444), "b": (700, 0, 444), "few": (200, 56, 0),
        }, rule  # fmt: skip
        np.testing.assert_allclose(splats_of(LocalStorage(out), "a").means, surplus().means, atol=1e-6)
        found[rule] = rows
    for uid in ("a", "b"):
        scale, contribution, refined = (float(rows[uid]["atlas_psnr"]) for rows in found.values())
        assert contribution > scale
        assert refined > contribution + 3, (uid, scale, contribution, refined)
    assert len({rows["few"]["atlas_psnr"] for rows in found.values()}) == 1
    capsys.readouterr()

    # what verify can still say of refined cells: that renders of them are as close as their row says
    forger = Forger(tmp_path / "refine")
    one, other = (forger.samples(ATLAS)[uid][1] for uid in ("a", "b"))

    def exchange(samples: dict[str, Sample]) -> None:
        samples["a"][1]["a.atlas.npy"] = other["b.atlas.npy"]

    forger.edit(ATLAS, exchange)
    forger.seal()
    assert cli.main(["verify", "--out", str(tmp_path / "refine")]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert "a: atlas_psnr is " in line
    assert one["a.atlas.npy"] != other["b.atlas.npy"]


def view_dependent(g: Gaussians, seed: int = 0) -> bytes:
    """The file of `g` with random harmonics of degree 2."""
    header, _, body = write_ply(g, sh_rest=24).partition(b"end_header\n")
    table = np.frombuffer(body, "<f4").reshape(len(g), -1).copy()
    table[:, 9:33] = np.random.default_rng(seed).normal(size=(len(g), 24)) * 0.3
    return header + b"end_header\n" + table.tobytes()


def splats_of(storage: LocalStorage, uid: str) -> Gaussians:
    return Gaussians.from_bytes(read_record(storage, SPLATS, 0, uid).main(SPLATS))


def test_view_dependent_colour_is_baked_measured_and_part_of_what_the_run_is(
    tmp_path: Path, capsys: Captured
) -> None:
    root, plain = tmp_path / "in", OBJECTS["20/7"]
    root.mkdir()
    (root / "a.ply").write_bytes(view_dependent(plain))
    (root / "b.ply").write_bytes(write_ply(plain, sh_rest=24))
    assert run_import(root, tmp_path / "baked") == run_import(root, tmp_path / "dropped", "--sh", "dc") == 0
    baked, dropped = LocalStorage(tmp_path / "baked"), LocalStorage(tmp_path / "dropped")
    np.testing.assert_allclose(splats_of(dropped, "a").colors, plain.colors, atol=1e-6)
    assert np.abs(splats_of(baked, "a").colors - plain.colors).mean() > 0.02
    assert splats_of(baked, "b").to_bytes() == splats_of(dropped, "b").to_bytes()
    assert run_import(root, tmp_path / "baked", "--sh", "dc") == 5
    assert 'config.splats is null there, {"sh": "dc"} here' in capsys.readouterr().err
    assert run_import(root, tmp_path / "strict", "--min-sh-psnr", "50") == 0
    rows = rows_of(LocalStorage(tmp_path / "strict"))
    assert {uid: (r["status"], r["reason"]) for uid, r in rows.items()} == {
        "a": ("quarantined", "low_psnr"), "b": ("ok", ""),
    }  # fmt: skip
    assert "a.ply: without its view-dependent colour (degree 2)" in rows["a"]["error_message"]
    assert str(tmp_path) not in rows["a"]["error_message"]


def test_activated_values_are_refused_or_taken(tmp_path: Path) -> None:
    root, g = tmp_path / "in", OBJECTS["20/7"]
    root.mkdir()
    header, _, body = write_ply(g).partition(b"end_header\n")
    table = np.frombuffer(body, "<f4").reshape(len(g), -1).copy()
    table[:, 9], table[:, 10:13] = g.opacities, g.scales
    (root / "a.ply").write_bytes(header + b"end_header\n" + table.tobytes())
    assert run_import(root, tmp_path / "out", "--activated", "no") == 0
    (root / "b.ply").write_bytes(write_ply(g))
    assert run_import(root, tmp_path / "refused") == 0
    row = rows_of(LocalStorage(tmp_path / "refused"))["a"]
    assert row["reason"] == "bad_input"
    assert "--activated yes" in row["error_message"]
    (root / "b.ply").unlink()
    assert run_import(root, tmp_path / "taken", "--activated", "yes") == 0
    np.testing.assert_allclose(splats_of(LocalStorage(tmp_path / "taken"), "a").scales, g.scales, rtol=1e-5)
