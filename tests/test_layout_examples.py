"""The commands of docs/layouts.md, from meshes to what each trainer opens, run small and read back."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import layout_readers
import numpy as np
import pytest
import torch
from glb import Glb, box
from pipeline_runs import in_process, tiny_arguments

from gaussianverse.manifests.rendering import rig
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.run import job

PAGE = Path(__file__).resolve().parents[1] / "docs" / "layouts.md"
SMALL = {"render": ["--size", "48", "--jobs", "1"], "build": tiny_arguments()}
FEWER = {"surface:4096": "surface:64"}


@pytest.fixture
def run(egl: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Run the block of a heading in a folder with two meshes; returns the folder."""
    rows = ["mesh,uid,caption,category"]
    for k, uid in enumerate(("red", "blue")):
        vertices, faces = box()
        glb = Glb().add(vertices, faces, factor=(1 - k, 0, k, 1))
        glb.add(0.3 * np.asarray(vertices) + [1.0, 0.5, -0.7 - k], faces, factor=(0, 1, 0, 1))
        (tmp_path / f"{uid}.glb").write_bytes(bytes(glb))
        rows.append(f'{uid}.glb,{uid},"a {uid} box, and a green one",Furnitures')
    (tmp_path / "meshes.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job, "ray_executor", in_process)

    def block(heading: str) -> Path:
        text = PAGE.read_text().split(f"\n### {heading}\n")[1].split("\n#")[0]
        commands = [line.strip() for line in text.splitlines() if line.startswith("    gaussianverse ")]
        assert len(commands) == 3
        for command in commands:
            words = [FEWER.get(word, word) for word in shlex.split(command)[1:]]
            assert cli.main([*words, *SMALL.get(words[0], [])]) == 0, command
        return tmp_path

    return block


def test_gsv3d(run: Callable[[str], Path]) -> None:
    folder = run("GSV3D")
    for uid in ("red", "blue"):
        seen = layout_readers.transforms(folder / "gsv3d-train", uid)
        assert len(seen) == 84
        assert all(view.depth is not None and view.depth.max() > 0.5 for view in seen)
        drawn, facts = rig.read(folder / "gsv3d-train" / uid)
        assert (drawn.preset, len(drawn.inputs), drawn.inputs[:3]) == ("gsv3d", 16, (0, 5, 10))
        assert facts["normals"] == "none"
        assert facts["captions"] == [f"a {uid} box, and a green one"]
        assert len(layout_readers.transforms(folder / "gsv3d-eval", uid)) == 21
        points = layout_readers.ply_points(folder / "gsv3d-eval" / uid / "surface-64.ply")
        assert np.abs(points).max() < 0.4501


def test_gaussiananything(run: Callable[[str], Path]) -> None:
    folder = run("GaussianAnything")
    chunks = layout_readers.ganything(folder / "ganything")
    assert [len(seen) for seen in chunks.values()] == [16] * 6
    assert set(chunks) == {f"Furnitures/0/{uid}/{k}" for uid in ("red", "blue") for k in (1, 2, 3)}
    for name in chunks:
        instance = (folder / "ganything" / name / "ins.txt").read_text()
        assert layout_readers.ply_points(folder / "ganything" / "pcd" / instance / "fps-4096.ply").shape == (4096, 3)


def test_gen3diffusion_and_lgm(run: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = run("Gen-3Diffusion and LGM")
    assert "granted" not in capsys.readouterr().err
    gen3d, lgm = layout_readers.gen3d(folder / "gen3d"), layout_readers.lgm(folder / "lgm")
    assert (len(gen3d), len(lgm)) == (264, 200)
    for one, other in zip(gen3d[:100], lgm[:100], strict=True):
        np.testing.assert_array_equal(one.rgb, other.rgb)
        np.testing.assert_allclose(one.c2w, other.c2w, atol=1e-12)
        np.testing.assert_allclose(one.K, other.K, rtol=1e-9)
    # the orthogonal set: relative azimuths of 90 degrees, at the horizon and at radius 1.5
    places = np.stack([gen3d[k].c2w[:3, 3] for k in (108, 116, 124, 100)])
    np.testing.assert_allclose(np.linalg.norm(places, axis=1), 1.5)
    np.testing.assert_allclose(
        places @ places.T / 2.25, [[1, 0, -1, 0], [0, 1, 0, -1], [-1, 0, 1, 0], [0, -1, 0, 1]], atol=1e-9
    )


def test_gaussiancube(run: Callable[[str], Path]) -> None:
    folder = run("GaussianCube")
    uids = (folder / "cubes" / "train.txt").read_text().splitlines()
    assert uids == ["blue", "red"]
    mean, std = (torch.load(folder / "cubes" / f"{name}_volume_act.pt") for name in ("mean", "std"))
    for uid in uids:
        volume = (torch.load(folder / "cubes" / "volume_act" / f"{uid}.pt") - mean) / std
        assert torch.isfinite(volume).all()
        assert len(layout_readers.transforms(folder / "renders", uid)) == 150
    assert sorted(json.loads((folder / "cubes" / "captions.json").read_text())) == uids
