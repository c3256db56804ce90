"""`python -m fitter`: one object, without Ray or a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from analytic import ball_views, write_views
from PIL import Image

from atlas.gaussians import Gaussians
from atlas.ply import read_ply
from fitter.__main__ import main

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


def test_views_to_gaussians_ply_and_picture(
    profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_views(ball_views(12, size=32), tmp_path / "ball")
    out, ply, picture = (tmp_path / name for name in ("fit.npz", "fit.ply", "fit.png"))
    assert (
        main([str(folder), str(out), "--profile", profile, "--ply", str(ply), "--picture", str(picture)]) == 0
    )
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


def test_faults_are_one_line_and_exit_1(
    profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_views(ball_views(12, size=32), tmp_path / "ball")
    for arguments, fault in (
        ([str(tmp_path / "nowhere"), str(tmp_path / "x.npz"), "--profile", profile], "nowhere"),
        ([str(folder), str(tmp_path / "no" / "x.npz"), "--profile", profile], "is no folder"),
        ([str(folder), str(tmp_path / "x.npz"), "--profile", "sloppy"], "sloppy"),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert fault in error
    assert not (tmp_path / "x.npz").exists()
