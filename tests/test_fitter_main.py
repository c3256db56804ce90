"""`python -m gaussianverse.fitter`: one object, without Ray or a store."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from analytic import ball_views, write_views
from made_silhouettes import CREATURE, draw, spiral
from PIL import Image

from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.interchange.ply import read_ply
from gaussianverse.fitter.__main__ import main
from gaussianverse.fitter.views import Views

PROFILE = """
[fit]
backend = "cpu"
size = 32
steps = 200
tau = 300
initial_anchors = 100
start_size = 0
heldout_every = 4
min_psnr = 0.0
[fit.loss]
lpips_net = "none"
"""


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = tmp_path / "quick.toml"
    path.write_text(PROFILE)
    return str(path)


def test_views_to_gaussians_ply_and_picture(profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_views(ball_views(12, size=32), tmp_path / "ball")
    out, ply, picture = (tmp_path / name for name in ("fit.npz", "fit.ply", "fit.png"))
    assert main([str(folder), str(out), "--profile", profile, "--ply", str(ply), "--picture", str(picture)]) == 0
    gaussians = Gaussians.load(out)
    assert f"{len(gaussians)} Gaussians" in capsys.readouterr().out
    assert np.array_equal(read_ply(ply.read_bytes()).means, gaussians.means)
    pixels = np.asarray(Image.open(picture)).astype(float)
    # three held-out views of 32 pixels above three renders, with a gap of 4
    assert pixels.shape == (2 * 36 - 4, 3 * 36 - 4, 3)
    references, renders = pixels[:32], pixels[36:]
    assert references.std() > 20
    error = np.abs(references - renders).mean()
    assert 0 < error < np.abs(references - references[:, ::-1]).mean()


def test_numbers_as_json(profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_views(ball_views(12, size=32), tmp_path / "ball")
    assert main([str(folder), str(tmp_path / "fit.npz"), "--profile", profile, "--json"]) == 0
    stats = json.loads(capsys.readouterr().out)
    assert stats["n_gaussians"] == len(Gaussians.load(tmp_path / "fit.npz"))
    assert stats["peak_mb"] > 10


def test_doubtful_views_are_named(profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(profile).write_text(PROFILE.replace("steps = 200", "steps = 5").replace("size = 32", "size = 64"))
    alpha, c2w, K = draw(CREATURE, spiral(24))
    alpha[7] = alpha[2]
    images = np.concatenate([np.full((*alpha.shape, 3), 90, np.uint8), alpha[..., None]], -1)
    folder = write_views(Views(images, c2w, K, tuple(f"{v:05d}" for v in range(24))), tmp_path / "creature")
    assert main([str(folder), str(tmp_path / "fit.npz"), "--profile", profile]) == 0
    _, left_out, doubtful = capsys.readouterr().out.splitlines()
    assert "00007" in left_out
    assert "contradicts the other views" in left_out
    assert "00007" in doubtful


def test_a_fault_of_the_object_is_one_line_and_exit_1(
    profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "x.npz"), "--profile", profile]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.count("nowhere") == 1
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_no_gpu_is_one_line(profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_views(ball_views(12, size=32), tmp_path / "ball")
    Path(profile).write_text(PROFILE.replace('backend = "cpu"', 'backend = "gsplat"'))
    assert main([str(folder), str(tmp_path / "x.npz"), "--profile", profile]) == 1
    assert "needs a CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        (["--profile", "sloppy"], "no profile 'sloppy'"),
        (["--seed", "-1"], "not a whole number"),
        (["--ply", "no/such/folder.ply"], "cannot be written"),
        (["--picture", "."], "cannot be written"),
    ],
)
def test_wrong_usage_is_exit_2_before_any_work(
    more: list[str], fault: str, profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path), str(tmp_path / "x.npz"), "--profile", profile, *more])
    assert stop.value.code == 2
    assert fault in capsys.readouterr().err
