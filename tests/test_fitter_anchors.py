"""Decoding of anchors: which Gaussians exist, their sources, and that there are always some."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from gaussianverse.fitter.anchors import Anchors, make_anchors
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
