"""Atlases of 192 x 192 cells, the paper's bound of 36,864 Gaussians: fit, import, verify, read, evaluate, export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from atlas_objects import cloud, gaussians
from pipeline_runs import TINY, dataset, in_process, write_views

from gaussianverse import AtlasDataset, AtlasLoader
from gaussianverse.atlas import Gaussians, unpack
from gaussianverse.atlas.dataset_format import SPLATS
from gaussianverse.atlas.interchange.gaussiancube import from_cube
from gaussianverse.atlas.interchange.ply import INVISIBLE, read_ply
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.fitter import reduce as reduction
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.dataset.run_file import load
from gaussianverse.pipeline.dataset.shards import read_record
from gaussianverse.pipeline.run import job

CELLS = 192 * 192
SETTINGS = [part for s in (*TINY, "atlas.size=192", "atlas.min_smoothness=0.8") for part in ("--set", s)]
SURPLUS = 37_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of a fit with few Gaussians and of an import with more than there are cells."""
    folder = tmp_path_factory.mktemp("made")
    write_views(folder / "views" / "fit")
    gaussians(cloud("shell", SURPLUS)).save(folder / "surplus.npz")
    (folder / "objects.jsonl").write_text(
        json.dumps({"uid": "fit", "views": "views/fit"})
        + "\n"
        + json.dumps({"uid": "surplus", "views": "surplus.npz", "format": "splats"})
        + "\n"
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(job, "ray_executor", in_process)
        patched.setattr(reduction, "SIZE", 128)
        arguments = ["--manifest", str(folder / "objects.jsonl"), "--out", str(folder / "out"), "--profile", "test"]
        assert cli.main(["fit-shard", *arguments, *SETTINGS]) == 0
    return folder


def test_it_is_verified_and_says_what_was_dropped(made: Path) -> None:
    assert cli.main(["verify", "--out", str(made / "out")]) == 0
    rows = {item["uid"]: item["row"] for item in AtlasDataset(made / "out", shuffle=False)}
    fitted = int(rows["fit"]["n_gaussians"])
    assert (rows["fit"]["n_padded"], rows["fit"]["n_dropped"]) == (CELLS - fitted, 0)
    assert (rows["surplus"]["n_padded"], rows["surplus"]["n_dropped"]) == (0, SURPLUS - CELLS)
    assert all(row["smoothness_unrolled"] > 0.99 and row["transport_gap"] <= 1e-12 for row in rows.values())
    assert rows["surplus"]["atlas_psnr"] > 40


def test_it_is_read_in_batches_and_unpacks_to_its_splats(made: Path) -> None:
    data = AtlasDataset(made / "out", shuffle=False, hashes=True)
    assert data.points().shape == (192, 192, 3)
    (batch,) = AtlasLoader(data, 2)
    assert batch["atlas"].shape == (2, 16, 192, 192)
    standard = data.standard()
    for item in data:
        again = standard.inverse(standard(item["atlas"]))
        np.testing.assert_allclose(again.numpy(), item["atlas"].numpy(), atol=1e-5)
    storage = LocalStorage(made / "out")
    splat = Gaussians.from_bytes(read_record(storage, SPLATS, 0, "fit").main(SPLATS))
    cells = unpack(data.get("fit")["atlas"].permute(1, 2, 0).numpy(), load(storage).atlas)
    np.testing.assert_allclose(np.sort(cells.means, axis=0), np.sort(splat.means, axis=0), atol=1e-6)


def test_it_is_evaluated(made: Path) -> None:
    arguments = ["--out", str(made / "out"), "--base", str(made), "--to", str(made / "evaluation")]
    assert cli.main(["evaluate", *arguments]) == 0
    assert json.loads((made / "evaluation" / "evaluation.json").read_text())


def test_it_is_exported_and_comes_back(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(format: str, *more: str) -> Path:
        to = tmp_path / "-".join((format, *more))
        assert cli.main(["export", "--out", str(made / "out"), "--format", format, *more, str(to)]) == 0
        return to

    assert len(read_ply((export("ply") / "surplus.ply").read_bytes())) == SURPLUS
    few = read_ply((export("ply", "--count", "1024") / "surplus.ply").read_bytes())
    assert len(few) == 1024
    assert (few.opacities > INVISIBLE).all()
    assert len(from_cube(np.load(export("gaussiancube-npy") / "surplus.npy"))) == 32**3
    pairs = export("gaussianverse")
    monkeypatch.setattr(job, "ray_executor", in_process)
    assert cli.main(["import", str(pairs), "--out", str(tmp_path / "again"), *SETTINGS]) == 0
    there, back = (
        {item["uid"]: item["atlas"].numpy() for item in AtlasDataset(root, shuffle=False)}
        for root in (made / "out", tmp_path / "again")
    )
    for uid in ("fit", "surplus"):
        np.testing.assert_allclose(back[uid], there[uid], atol=1e-5, err_msg=uid)
    assert dataset(LocalStorage(tmp_path / "again"))
