"""`gaussianverse evaluate` on tiny real datasets: what it measures, what it refuses and what it leaves out."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from analytic import ball_geometry, ball_views
from pipeline_runs import dataset, finished, write_inputs, write_views
from pytorch_msssim import ssim

from gaussianverse import atlas
from gaussianverse.atlas.dataset_format import ATLAS, SPLATS
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.fitter.geometry import compare_geometry
from gaussianverse.fitter.rasterize import rasterization
from gaussianverse.fitter.views import Views, load_views, split_heldout
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.dataset import run_file
from gaussianverse.pipeline.dataset.members import atlas_array
from gaussianverse.pipeline.dataset.shards import read_record
from gaussianverse.pipeline.ops import evaluate
from gaussianverse.pipeline.run.measure import GEOMETRY

UIDS = ["a", "b", "c"]
SMALL_ATLAS = ("atlas.size=8", "reduce.rule=scale", "fit.heldout_every=3", "run.shard_size=2")


def build(out: str, manifest: str, *overrides: str, store: StoreOptions | None = None) -> None:
    finished(out, manifest, *SMALL_ATLAS, *overrides, store=store)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Views of three balls, and a dataset whose atlases hold 64 of up to 200 Gaussians."""
    folder = tmp_path_factory.mktemp("inputs")
    manifest = write_inputs(folder, UIDS)
    build(str(folder / "out"), manifest)
    build(str(folder / "fewer"), manifest, "fit.tau=100")
    build(str(folder / "train"), manifest, "fit.heldout_every=0", "fit.steps=20")
    return folder


def run(folder: Path, *arguments: str, to: Path, code: int = 0) -> dict[str, Any]:
    given = ["--base", str(folder), "--to", str(to), *arguments]
    assert cli.main(["evaluate", *given]) == code
    found: dict[str, Any] = json.loads((to / evaluate.REPORT).read_text())
    return found


def rows(file: Path) -> dict[str, dict[str, Any]]:
    return {row["uid"]: row for row in pq.read_table(file, use_threads=False).to_pylist()}


def by_definition(gaussians: Gaussians, views: Views) -> tuple[float, float]:
    """Mean PSNR and SSIM on white, rendered by the oracle in float64."""
    found = []
    for image, viewmat, K in zip(views.images, views.viewmats, views.Ks, strict=True):
        rgba = image / 255
        expected = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
        fields = (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.colors)
        shown, _, _ = rasterization(
            *(torch.from_numpy(np.asarray(f, np.float64)) for f in fields),
            torch.from_numpy(viewmat)[None], torch.from_numpy(K)[None], views.width, views.height,
            backgrounds=torch.ones(1, 3, dtype=torch.float64), backend="reference",
        )  # fmt: skip
        pair = [torch.from_numpy(p).permute(2, 0, 1)[None] for p in (shown[0].numpy().clip(0, 1), expected)]
        found.append((-10 * np.log10(float((pair[0] - pair[1]).square().mean())), float(ssim(*pair, data_range=1))))
    return float(np.mean([f[0] for f in found])), float(np.mean([f[1] for f in found]))


def test_fit_and_atlas_are_measured_on_the_held_out_views_as_defined(inputs: Path, tmp_path: Path) -> None:
    found = run(inputs, "--out", str(inputs / "out"), to=tmp_path)
    made = rows(tmp_path / evaluate.OBJECTS)
    storage = LocalStorage(inputs / "out")
    config = run_file.load(storage).atlas
    for uid in UIDS:
        heldout = split_heldout(load_views(inputs / "views" / uid, size=32), 3)[1]
        fit = Gaussians.from_bytes(read_record(storage, SPLATS, uid == "c", uid).main(SPLATS))
        record = read_record(storage, ATLAS, uid == "c", uid)
        stored = atlas.unpack(atlas_array(record.main(ATLAS), config), config)
        assert len(stored) < len(fit)
        row = made[uid]
        assert (row["state"], row["metrics_on"], row["n_measured"]) == ("measured", "heldout", len(heldout))
        assert (row["fit_psnr"], row["fit_ssim"]) == pytest.approx(by_definition(fit, heldout), abs=1e-3)
        assert (row["unpacked_psnr"], row["unpacked_ssim"]) == pytest.approx(by_definition(stored, heldout), abs=1e-3)
        facts = read_record(storage, SPLATS, uid == "c", uid).facts
        assert row["unpacked_psnr"] == pytest.approx(facts["atlas_heldout_psnr"], abs=1e-3)
        assert row["published_psnr"] == facts["psnr"]
        assert row["smoothness"] == pytest.approx(record.facts["smoothness"], abs=1e-9)
        assert (row["n_gaussians"], row["n_atlas"]) == (len(fit), len(stored))
        assert row["fit_lpips"] == -1
    (data,) = found["datasets"]
    assert data["states"] == {"measured": 3}
    assert data["largest_change_of_published_psnr"] < 1e-3
    assert data["counts"]["objects_cut"] == 3
    assert data["device_years"]["kept"] > 0
    (group,) = data["quality"]
    assert (group["metrics_on"], group["width"], group["objects"]) == ("heldout", 32, 3)
    mean = np.mean([made[uid]["unpacked_psnr"] for uid in UIDS])
    assert group["all"]["unpacked_psnr"]["mean"] == pytest.approx(mean)
    assert f"| PSNR of the atlas (dB) | {mean:.2f} +-" in (tmp_path / evaluate.TABLE_MD).read_text()
    assert f"PSNR of the atlas (dB) & {mean:.2f} $" in (tmp_path / evaluate.TABLE_TEX).read_text()


def test_what_it_does_leaves_the_dataset_as_it_is(inputs: Path, tmp_path: Path) -> None:
    storage, before = LocalStorage(inputs / "out"), dataset(LocalStorage(inputs / "out"))
    run(inputs, "--out", str(inputs / "out"), "--views", "1", to=tmp_path)
    assert dataset(storage) == before
    assert {row["n_measured"] for row in rows(tmp_path / evaluate.OBJECTS).values()} == {1}
    for place in ("out", "out/evaluation/mine", "out/../out/atlas"):
        assert cli.main(["evaluate", "--out", str(inputs / "out"), "--to", str(inputs / place)]) == 2
    assert {e.key for e in storage.list("")} >= set(before)
    assert not (inputs / "out" / "evaluation").exists()


def test_views_that_are_gone_or_others_now_are_counted_and_named(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(inputs / "views", tmp_path / "views")
    for uid in "ab":
        shutil.rmtree(tmp_path / "views" / uid)
    write_views(tmp_path / "views" / "b", seed=4)
    found = run(tmp_path, "--out", str(inputs / "out"), to=tmp_path / "to")["datasets"][0]
    assert found["states"] == {"measured": 1, "views missing": 2}
    notes = found["named"]["views missing"]
    assert notes["a"].startswith("MissingViews: views/a: no such file")
    assert notes["b"] == "ViewsChanged: the files have another sha256 than those that were fitted"
    assert str(tmp_path) not in json.dumps(found["named"])
    assert found["counts"]["gaussians"]["n"] == 3
    assert found["quality"][0]["objects"] == 1
    assert "2 views missing" in capsys.readouterr().out


def test_without_any_views_it_says_so_and_fails(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(tmp_path, "--out", str(inputs / "out"), to=tmp_path / "to", code=1)["datasets"][0]
    assert found["states"] == {"views missing": 3}
    assert found["quality"] == []
    assert "see --base" in capsys.readouterr().err


def test_datasets_are_joined_by_uid_and_training_views_are_no_held_out_ones(inputs: Path, tmp_path: Path) -> None:
    others = [str(inputs / "fewer"), str(inputs / "train")]
    found = run(inputs, "--out", str(inputs / "out"), "--against", *others, to=tmp_path)
    here, there = rows(tmp_path / evaluate.OBJECTS), rows(tmp_path / "against-1.parquet")
    fewer, train = found["differences"]
    assert (fewer["objects"], fewer["not_compared"]) == (3, {})
    expected = [here[uid]["unpacked_psnr"] - there[uid]["unpacked_psnr"] for uid in UIDS]
    assert fewer["unpacked_psnr"]["mean"] == pytest.approx(np.mean(expected))
    assert len(set(expected)) == 3
    assert (train["objects"], train["not_compared"]) == (0, {"other metrics_on": 3})
    assert [group["metrics_on"] for d in found["datasets"] for group in d["quality"]] == [
        "heldout",
        "heldout",
        "train",
    ]
    table = pq.read_table(tmp_path / evaluate.PAIRS, use_threads=False)
    assert table["against"].to_pylist() == [1, 1, 1]
    assert [point["objects"] for point in found["curve"]] == [0, 0, 0], "no object is a pair in all three"
    again = run(inputs, "--out", str(inputs / "out"), "--against", others[0], to=tmp_path / "again")
    assert [p["gaussians"]["mean"] > 100 for p in again["curve"]] == [True, False]
    assert [p["objects"] for p in again["curve"]] == [3, 3]


def test_a_damaged_sample_is_counted(inputs: Path, tmp_path: Path) -> None:
    shutil.copytree(inputs / "out", tmp_path / "out")
    tar = tmp_path / "out" / "splats" / "splats-000001.tar"
    data = bytearray(tar.read_bytes())
    data[data.rindex(b"PK")] ^= 1  # in the .npz
    tar.chmod(0o644)
    tar.write_bytes(data)
    found = run(inputs, "--out", str(tmp_path / "out"), to=tmp_path / "to")["datasets"][0]
    assert found["states"] == {"measured": 2, "damaged": 1}
    assert list(found["named"]["damaged"]) == ["c"]


def test_from_s3_to_here(s3_endpoint: str, inputs: Path, tmp_path: Path) -> None:
    store = StoreOptions(endpoint_url=s3_endpoint, region="us-east-1")
    place = f"s3://bucket/{tmp_path.name}"
    bucket = open_storage(place, store)
    for file in sorted((inputs / "views").rglob("*")):
        if file.is_file():
            bucket.put_if_absent(file.relative_to(inputs).as_posix(), file.read_bytes())
    build(f"{place}/out", str(inputs / "objects.jsonl"), store=store)
    options = ("--set", f"store.endpoint_url={s3_endpoint}", "--set", "store.region=us-east-1")
    assert cli.main(["evaluate", "--out", f"{place}/out", "--base", place, "--to", str(tmp_path), *options]) == 0
    run(inputs, "--out", str(inputs / "out"), to=tmp_path / "local")
    timed = {"fit_seconds": 0, "atlas_seconds": 0}
    remote, local = (rows(folder / evaluate.OBJECTS) for folder in (tmp_path, tmp_path / "local"))
    assert {uid: row | timed for uid, row in remote.items()} == {uid: row | timed for uid, row in local.items()}


def test_a_sample_of_the_objects_and_some_shards(inputs: Path, tmp_path: Path) -> None:
    found = run(inputs, "--out", str(inputs / "out"), "--shard", "1", to=tmp_path)["datasets"][0]
    assert found["states"] == {"measured": 1}
    run(inputs, "--out", str(inputs / "out"), "--objects", "3", to=tmp_path)
    assert set(rows(tmp_path / evaluate.OBJECTS)) == set(UIDS)


@pytest.mark.parametrize(
    "arguments", [("--views", "0"), ("--views", "-2"), ("--objects", "x"), ("--lpips-net", "resnet")]
)
def test_wrong_options_are_refused(arguments: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "--out", str(tmp_path), *arguments])


def test_weights_that_are_not_there_are_an_error_before_any_work(inputs: Path, tmp_path: Path) -> None:
    arguments = ["--out", str(inputs / "out"), "--to", str(tmp_path / "to"), "--lpips-weights", "/nowhere/w.pth"]
    assert cli.main(["evaluate", *arguments]) == 2


def write_geometry(folder: Path) -> None:
    """Add the ball's depth and normals to views that `write_views` wrote."""
    openexr = pytest.importorskip("OpenEXR")
    views = ball_views(10, 32)
    for name, depth, normal in zip(views.names, *ball_geometry(views), strict=True):
        channels = {"R": -normal[..., 0], "G": normal[..., 2], "B": -normal[..., 1], "A": depth}
        given = {c: np.ascontiguousarray(np.nan_to_num(v, nan=0.0), np.float32) for c, v in channels.items()}
        openexr.File({"compression": openexr.ZIP_COMPRESSION}, given).write(str(folder / name / f"{name}_nd.exr"))


def test_geometry_is_that_of_the_unpacked_atlas_and_the_measured_views(inputs: Path, tmp_path: Path) -> None:
    shutil.copytree(inputs / "views", tmp_path / "views")
    for uid in "ab":
        write_geometry(tmp_path / "views" / uid)
    found = run(tmp_path, "--out", str(inputs / "out"), "--geometry", to=tmp_path / "to")["datasets"][0]
    assert found["states"] == {"measured": 3}, "depth beside the views does not make them others"
    made = rows(tmp_path / "to" / evaluate.OBJECTS)
    assert all(made["c"][name] == -1 for name in GEOMETRY)
    config = run_file.load(LocalStorage(inputs / "out")).atlas
    for uid in "ab":
        views = load_views(tmp_path / "views" / uid, size=32, with_depth=True, with_normals=True)
        record = read_record(LocalStorage(inputs / "out"), ATLAS, 0, uid)
        stored = atlas.unpack(atlas_array(record.main(ATLAS), config), config)
        expected = compare_geometry(stored, split_heldout(views, 3)[1])
        assert expected is not None
        assert made[uid]["depth_l1"] == pytest.approx(expected.depth_l1, rel=1e-3)
        assert made[uid]["normal_degrees"] == pytest.approx(expected.normal_degrees, rel=1e-2)
        assert made[uid]["chamfer"] == pytest.approx(expected.chamfer, rel=1e-2)
        assert made[uid]["f_0.05"] == pytest.approx(expected.f_scores[2], abs=0.02)
        assert 0 < made[uid]["covered"] <= 1
    text = (tmp_path / "to" / evaluate.TABLE_MD).read_text()
    assert "without any alignment" in text
    assert "F-scores at 0.01, 0.02, 0.05, IoU of voxels of 0.02" in text
    assert "| depth L1 inside the mask |" in text
    assert found["quality"][0]["all"]["depth_l1"]["n"] == 2


def page_of(out: Path, *options: str | Path, code: int = 0) -> str:
    assert cli.main(["report", "--out", str(out), "--worst", "0", "--objects", "0", *map(str, options)]) == code
    return (out / "report" / "index.html").read_text()


def test_the_page_shows_what_was_left_in_the_output_and_verify_ignores_it(inputs: Path, tmp_path: Path) -> None:
    out = shutil.copytree(inputs / "out", tmp_path / "out")
    assert "has not run on this output" in page_of(out)
    before = dataset(LocalStorage(out))
    assert cli.main(["evaluate", "--out", str(out), "--base", str(inputs)]) == 0
    assert (out / "evaluation" / evaluate.REPORT).is_file()
    assert dataset(LocalStorage(out)) == before
    assert cli.main(["verify", "--out", str(out)]) == 0
    page = page_of(out)
    assert "measured 3 of 3 objects" in page
    assert re.search(r"<h3>Table 1, quality on held-out views.*<td>PSNR of the atlas \(dB\)</td>", page, re.S)
    assert "has not run" not in page
    assert "Not on this page" not in page


def test_an_evaluation_of_another_output_or_a_damaged_one_is_not_shown(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(inputs, "--out", str(inputs / "fewer"), "--against", str(inputs / "out"), to=tmp_path / "fewer")
    out = shutil.copytree(inputs / "out", tmp_path / "out")
    shutil.copytree(tmp_path / "fewer", out / "evaluation")
    for damage, words in (
        (lambda data: data, "the evaluation of another output; run `evaluate` on this one"),
        (
            lambda data: data.replace(b'"version": 1', b'"version": 2'),
            "the evaluation of version 2; run `evaluate` on",
        ),
        (lambda data: data[:100], "not an evaluation.json of `evaluate`"),
        (lambda data: b"[]", "not an evaluation.json of `evaluate`"),
        (lambda data: b'{"datasets": [{}]}', "not an evaluation.json of `evaluate`"),
    ):
        file = out / "evaluation" / evaluate.REPORT
        file.write_bytes(damage((tmp_path / "fewer" / evaluate.REPORT).read_bytes()))
        page = page_of(out)
        assert f"{evaluate.REPORT}: {words}" in page
        assert "Table 1" not in page
        page_of(out, "--evaluation", file, code=2)
        assert words in capsys.readouterr().err
    shown = page_of(
        shutil.copytree(inputs / "fewer", tmp_path / "other"), "--evaluation", tmp_path / "fewer" / evaluate.REPORT
    )
    assert "Differences from out, object by object" in shown
    assert str(tmp_path) not in shown, "a page that is published does not tell the machine's folders"


def test_what_is_no_output_gets_no_folder(tmp_path: Path) -> None:
    assert cli.main(["evaluate", "--out", str(tmp_path / "nowhere")]) == 1
    assert not (tmp_path / "nowhere").exists()
