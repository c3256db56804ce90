"""LPIPS with real weights if present, and errors that name the missing file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from analytic import ball_views
from PIL import Image

from gaussianverse.atlas.configuration import ConfigError, from_table
from gaussianverse.fitter.config import FitConfig, load_profile
from gaussianverse.fitter.errors import BadInput
from gaussianverse.fitter.fit import fit_object
from gaussianverse.fitter.lpips import LpipsUnavailable, load_lpips
from gaussianverse.fitter.vision import import_torchvision

WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "weights"
CPU = torch.device("cpu")


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"no LPIPS weights at {WEIGHTS}")
@pytest.mark.parametrize(
    ("net", "file", "expected"),
    [("alex", "alexnet_features.npz", (0.7219, 0.1376)), ("squeeze", "squeezenet1_1_features.pth", (0.7110, 0.1479))],
)
def test_distances_are_the_known_ones(net: str, file: str, expected: tuple[float, float]) -> None:
    distance, sha256 = load_lpips(net, WEIGHTS / file, CPU)
    assert len(sha256) == 64
    folder = WEIGHTS / "lpips_ref"
    images = {
        p.stem.split("_")[-1]: torch.from_numpy(np.array(Image.open(p).convert("RGB"))).float()[None] / 255
        for p in folder.glob("*.png")
    }
    for name, value in zip(("p0", "p1"), expected, strict=True):
        assert float(distance(images["ref"], images[name])) == pytest.approx(value, abs=2e-4)


def test_a_missing_file_says_which_and_where(tmp_path: Path) -> None:
    with pytest.raises(LpipsUnavailable, match=r"'.*nowhere\.pth'.*vgg16-397923af\.pth.*download\.pytorch\.org"):
        load_lpips("vgg", tmp_path / "nowhere.pth", CPU)
    with pytest.raises(LpipsUnavailable, match="the file '' does not exist"):
        load_lpips("alex", "", CPU)


def test_a_wrong_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", **{"0.weight": np.zeros((3, 3), np.float32)})
    with pytest.raises(LpipsUnavailable, match="not the weights of squeeze: missing"):
        load_lpips("squeeze", tmp_path / "other.npz", CPU)
    (tmp_path / "noise.pth").write_bytes(b"noise")
    with pytest.raises(LpipsUnavailable, match="cannot be read as weights"):
        load_lpips("squeeze", tmp_path / "noise.pth", CPU)


def test_lpips_is_in_the_loss_and_in_the_metrics(tmp_path: Path) -> None:
    """Random weights suffice to test the path of the gradient."""
    import_torchvision()
    import lpips

    model = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False)
    state = {name.split(".", 1)[1]: t.detach().numpy() for name, t in model.net.named_parameters()}
    np.savez(tmp_path / "squeeze.npz", **state)
    tables = {**load_profile("test")["fit"], "size": 48, "start_size": 0, "steps": 12, "min_psnr": 0.0}
    loss = {"lpips_net": "squeeze", "lpips_weights": str(tmp_path / "squeeze.npz")}
    fits = {
        weight: fit_object(
            ball_views(8), from_table(FitConfig, {**tables, "heldout_every": 4, "loss": {**loss, "lpips": weight}})
        )
        for weight in (0.0, 0.5)
    }
    assert fits[0.5].stats["lpips"] > 0
    assert len(str(fits[0.5].stats["lpips_sha256"])) == 64
    assert fits[0.0].gaussians.to_bytes() != fits[0.5].gaussians.to_bytes()
    with pytest.raises(ConfigError, match=r"loss\.lpips_crop is 16, and LPIPS with squeeze needs at least 17"):
        from_table(FitConfig, {**tables, "loss": {**loss, "lpips_crop": 16}})
    with pytest.raises(BadInput, match="LPIPS with squeeze needs"):
        fit_object(ball_views(8, 16), from_table(FitConfig, {**tables, "loss": loss}))
