"""Decoding of anchors: which Gaussians exist, their sources, and that there are always some."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gaussianverse.fitter.anchors import Anchors, make_anchors, make_heads, new_anchors
from gaussianverse.fitter.rasterize import rasterization


def anchors(count: int = 30, k: int = 4, seed: int = 0) -> Anchors:
    g = torch.Generator().manual_seed(seed)
    return make_anchors(torch.rand((count, 3), generator=g), torch.full((count,), 0.05), k, 32, g)


def test_decode_is_the_designs_formula() -> None:
    model = anchors()
    decoded = model.decode()
    heads = model.heads

    def head(name: str, a: int) -> torch.Tensor:
        hidden = F.relu(heads[f"{name}_w0"] @ model.features[a] + heads[f"{name}_b0"])
        return heads[f"{name}_w1"] @ hidden + heads[f"{name}_b1"]

    expected = 0
    for a in range(len(model)):
        for k in range(4):
            alpha = torch.tanh(head("opacity", a))[k]
            expected += int(alpha > 0)
            row = (decoded.source == 4 * a + k).nonzero()[:, 0]
            assert len(row) == int(alpha > 0)
            if not len(row):
                continue
            cov = head("covariance", a)[7 * k : 7 * k + 7]
            torch.testing.assert_close(decoded.opacities[row[0]], alpha)
            torch.testing.assert_close(
                decoded.scales[row[0]], torch.exp(model.scalings[a, 3:]) * torch.sigmoid(cov[:3])
            )
            torch.testing.assert_close(decoded.quats[row[0]], cov[3:])
            torch.testing.assert_close(
                decoded.means[row[0]], model.positions[a] + model.offsets[a, k] * torch.exp(model.scalings[a, :3])
            )
            torch.testing.assert_close(decoded.colors[row[0]], torch.sigmoid(head("color", a)[3 * k : 3 * k + 3]))
    assert len(decoded.means) == expected


def test_dead_offsets_are_never_decoded() -> None:
    model = anchors()
    model.alive[::2] = False
    decoded = model.decode()
    assert model.alive.reshape(-1)[decoded.source].all()
    assert (model.opacities()[::2] == -1).all()


@pytest.mark.parametrize("seed", range(3))
def test_heads_begin_uniform_and_quaternions_about_the_identity(seed: int) -> None:
    """As `torch.nn.Linear` begins: within 1 / sqrt(F), so that what comes out is about as large as what goes in."""
    heads = make_heads(4, 64, torch.Generator().manual_seed(seed))
    bound = 64**-0.5
    for name, tensor in heads.items():
        values = tensor.clone()
        if name == "covariance_b1":
            values.view(4, 7)[:, 3] -= 1.0
        assert values.abs().max() <= bound + 1e-6, name
        if tensor.ndim == 2:
            # of 256 and more uniform draws: both ends are reached, and the mean is within five deviations of 0
            assert values.min() < -0.95 * bound
            assert values.max() > 0.95 * bound
            assert abs(values.mean()) < 5 * bound / (3 * values.numel()) ** 0.5
    assert {name: tuple(tensor.shape) for name, tensor in heads.items() if name.endswith("w1")} == {
        "opacity_w1": (4, 64), "covariance_w1": (28, 64), "color_w1": (12, 64),
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_new_anchors_are_spread_and_as_large_as_their_spacing(seed: int) -> None:
    positions, spacing = torch.zeros((3000, 3)), torch.linspace(0.1, 2, 3000)
    fresh = new_anchors(positions, spacing, 4, 8, torch.Generator().manual_seed(seed))
    assert fresh["positions"] is positions
    assert fresh["alive"].shape == (3000, 4)
    assert fresh["alive"].all()
    torch.testing.assert_close(torch.exp(fresh["scalings"]), spacing[:, None].repeat(1, 6))
    # of 24,000 and more normal draws: five deviations of the mean and of the standard deviation
    for name, deviation in (("offsets", 0.5), ("features", 1.0)):
        values = fresh[name]
        assert abs(values.mean()) < 5 * deviation / values.numel() ** 0.5
        assert abs(values.std() - deviation) < 5 * deviation / (2 * values.numel()) ** 0.5


def test_first_render_is_not_blank_over_1000_seeds() -> None:
    view = torch.eye(4)[None]
    view[0, 2, 3] = 2.0
    K = torch.tensor([[[12.0, 0, 6], [0, 12, 6], [0, 0, 1]]])
    for seed in range(1000):
        with torch.no_grad():
            d = anchors(12, seed=seed).decode()
            _, alpha, _ = rasterization(
                d.means, d.quats, d.scales, d.opacities, d.colors, view, K, 12, 12, backend="cpu"
            )
        assert alpha.max() > 0, seed
