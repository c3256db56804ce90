"""An output of version 0.1 is opened, read, verified, reported and exported as it was; an unknown one is refused."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_outputs import called, rows_of
from PIL import Image

from gaussianverse import AtlasDataset
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.interchange.ply import read_ply
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.dataset.shards import read_commit
from gaussianverse.pipeline.errors import PipelineError

ARCHIVE = Path(__file__).parent / "data/output-v1/output.tar.gz"
LONG = "waterbottle" + "-and-a-long-name" * 6
MADE = {
    "avocado": (13.545906999882678, 0.9043217804439101),
    "spot": (15.52906683322865, 0.8167852304595312),
    LONG: (10.798179234929549, 0.7681725547351528),
}
"""PSNR and smoothness that version 0.1 reported."""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def copy(old: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(old, tmp_path / "copy"))


def members(root: Path, family: str) -> dict[str, bytes]:
    found = {}
    for path in sorted((root / family).glob("*.tar")):
        with tarfile.open(path) as archive:
            found |= {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    return found


def printed(capsys: pytest.CaptureFixture[str], verb: str, root: Path, *more: str) -> Any:
    assert cli.main([verb, "--out", str(root), *more, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def reseal(root: Path, key: str) -> None:
    """Let the sums vouch for what a file holds now."""
    lines = []
    for line in (root / "SHA256SUMS").read_text().splitlines():
        digest, _, name = line.partition("  ")
        digest = hashlib.sha256((root / key).read_bytes()).hexdigest() if name == key else digest
        lines.append(f"{digest}  {name}\n")
    (root / "SHA256SUMS").write_text("".join(lines))
    (root / "_SUCCESS").write_text(hashlib.sha256("".join(lines).encode()).hexdigest() + "  SHA256SUMS\n")


def test_its_samples_are_read_to_the_byte(old: Path) -> None:
    atlases, views = members(old, "atlas"), members(old, "views")
    dataset = AtlasDataset(old, shuffle=False, hashes=True, views=True)
    items = list(dataset)
    assert [i["uid"] for i in items] == list(MADE)
    for item in items:
        uid = item["uid"]
        array = np.load(io.BytesIO(atlases[f"{uid}.atlas.npy"]))
        np.testing.assert_array_equal(item["atlas"].permute(1, 2, 0).numpy(), array)
        assert item["caption"] == atlases[f"{uid}.txt"].decode() != ""
        for k, image in enumerate(item["views"]):
            expected = np.asarray(Image.open(io.BytesIO(views[f"{uid}.view{k:02d}.png"])))
            np.testing.assert_array_equal((image * 255).round().permute(1, 2, 0).numpy(), expected)
        cameras = np.load(io.BytesIO(views[f"{uid}.cameras.npz"]))
        np.testing.assert_array_equal(item["viewmats"].numpy(), cameras["viewmats"])
        np.testing.assert_array_equal(dataset.get(uid)["atlas"].numpy(), item["atlas"].numpy())
    assert dataset.standard()(items[0]["atlas"]).shape == (16, 16, 16)
    assert dataset.points().shape == (16, 16, 3)
    with pytest.raises(DatasetError, match="nothing: it was quarantined: missing_views"):
        dataset.get("nothing")


@pytest.mark.parametrize("more", [(), ("--sample", "2"), ("--shards", "1")])
def test_it_is_verified(old: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]) -> None:
    assert printed(capsys, "verify", old, *more)["faults"] == []


def test_what_is_told_of_it_is_what_was_told(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {r["uid"]: r for r in printed(capsys, "report", old)}
    assert {uid: (r["psnr"], r["smoothness"]) for uid, r in rows.items() if r["status"] == "ok"} == MADE
    assert rows["nothing"]["reason"] == "missing_views"
    status = printed(capsys, "status", old)
    assert (status["finalized"], status["quarantined"]) == (True, {"missing_views": 1})
    assert {stage: s["samples"] for stage, s in status["stages"].items()} == {
        "splats": 3, "atlas": 3, "views": 3,
    }  # fmt: skip
    (error,) = printed(capsys, "top-errors", old)
    assert error["uids"] == ["nothing"]
    found = printed(capsys, "inspect", old, "spot")
    assert found["splats"]["sha256"].startswith("ddc96170ca5c")
    assert found["atlas"]["sha256"].startswith("18d4d90bd52b")
    assert found["views"]["journal"]["status"] == "ok"


def test_it_has_a_page_which_leaves_out_what_version_1_lacks(old: Path, tmp_path: Path) -> None:
    assert cli.main(["report", "--out", str(old), "--dest", str(tmp_path), "--base", str(tmp_path / "none")]) == 0
    assert {row["uid"]: row["psnr"] for row in rows_of(tmp_path)} == {
        **{uid: pytest.approx(psnr, rel=1e-5) for uid, (psnr, _) in MADE.items()}, "nothing": None,
    }  # fmt: skip
    assert set(called(tmp_path / "files" / "pages.js")) == set(MADE)
    for uid in MADE:
        page = (tmp_path / "files" / "objects" / f"{uid}.html").read_text()
        assert f"<h1>{uid}</h1>" in page
        assert "attribution" not in page
    index = (tmp_path / "index.html").read_text()
    assert "3 of 4" in index


def test_it_is_exported(old: Path, tmp_path: Path) -> None:
    splats = members(old, "splats")
    assert cli.main(["export", "--out", str(old), "--format", "ply", str(tmp_path)]) == 0
    for uid in MADE:
        expected = Gaussians.from_bytes(splats[f"{uid}.splat.npz"])
        found = read_ply((tmp_path / f"{uid}.ply").read_bytes())
        np.testing.assert_array_equal(found.means, expected.means)
        np.testing.assert_allclose(found.opacities, expected.opacities, atol=1e-6)
    assert cli.main(["export", "--out", str(old), "--format", "gaussianverse", str(tmp_path)]) == 0
    with tarfile.open(tmp_path / "gaussianverse-000001.tar") as archive:
        assert [n for n in archive.getnames() if n.endswith(".npy")] == [
            f"{uid}.{name}.npy" for uid in ("spot", LONG) for name in ("gs2sphere", "point_cloud")
        ]


def test_finalize_finds_nothing_to_do(copy: Path) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert cli.main(["finalize", "--out", str(copy)]) == 0
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("version", [3, "1", None])
def test_a_version_that_is_not_known_is_refused_by_all(
    copy: Path, capsys: pytest.CaptureFixture[str], version: object
) -> None:
    expected = f"schema version {version!r}, this gaussianverse reads 1, 2"
    for key in ("index.json", "_commits/atlas/000000.json", "run.json"):
        values = json.loads((copy / key).read_text())
        (copy / key).write_text(json.dumps({**values, "schema_version": version}))
    reseal(copy, "index.json")
    with pytest.raises(DatasetError, match=expected):
        AtlasDataset(copy)
    assert cli.main(["verify", "--out", str(copy)]) == 1
    assert f"run.json: {expected}" in capsys.readouterr().err
    with pytest.raises(PipelineError, match=f"000000.json: .*{expected}"):
        read_commit(LocalStorage(copy), "atlas", 0)


def test_it_is_evaluated_and_its_views_are_missing(old: Path, tmp_path: Path) -> None:
    arguments = ["--out", str(old), "--base", str(tmp_path), "--to", str(tmp_path / "to")]
    assert cli.main(["evaluate", *arguments]) == 1, "nothing can be measured without views"
    found = json.loads((tmp_path / "to" / "evaluation.json").read_text())["datasets"][0]
    assert found["states"] == {"views missing": 3, "quarantined": 1}
    assert found["counts"]["gaussians"]["n"] == 3
    assert found["counts"]["spearman_objects"] == 0, "version 1 has no complexity"
    assert found["quality"] == []
