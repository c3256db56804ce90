"""Both trainings of plain Gaussians: which one is chosen, and that they take the same steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from analytic import ball_views

from gaussianverse.atlas.configuration import from_table
from gaussianverse.fitter.config import FitConfig, load_profile
from gaussianverse.fitter.errors import NanLoss
from gaussianverse.fitter.plain import Plain
from gaussianverse.fitter.plain_training import ByAutograd, ByKernels, plain_training
from gaussianverse.fitter.training import Training

RATES = {
    "means": (2e-3, 2e-4), "log_scales": (0.01, 0.001), "quats": (0.002, 0.002), "logits": (0.05, 0.0),
    "colors": (0.01, 0.005),
}  # fmt: skip


def training(side: int = 24, **changes: Any) -> Training:
    table = {**load_profile("test")["fit"], "size": side, "start_size": 0, "steps": 40, **changes}
    return Training(ball_views(5, side), from_table(FitConfig, table), 3, None, None)


def plain(count: int) -> Plain:
    g = torch.Generator().manual_seed(1)
    return Plain(
        0.2 * torch.randn((count, 3), generator=g), -2.5 + 0.4 * torch.randn((count, 3), generator=g),
        torch.randn((count, 4), generator=g), torch.randn(count, generator=g), torch.rand((count, 3), generator=g),
    )  # fmt: skip


def test_kernels_train_where_they_can() -> None:
    assert isinstance(plain_training(training(), plain(5), RATES), ByKernels)
    assert isinstance(plain_training(training(backend="reference"), plain(5), RATES), ByAutograd)
    small = training(start_size=10, start_until=0.5)
    assert isinstance(plain_training(small, plain(5), RATES), ByAutograd)
    with_lpips = training()
    with_lpips.lpips = lambda image, reference: (image - reference).square().mean()
    assert isinstance(plain_training(with_lpips, plain(5), RATES), ByAutograd)


@pytest.mark.parametrize("background", ["random", "white"])
@pytest.mark.parametrize("start_size", [0, 13])
@pytest.mark.parametrize("l2", [0.0, 10.0])
def test_both_trainings_take_the_same_steps(background: str, start_size: int, l2: float) -> None:
    """Views, backgrounds, resolutions, rates, losses and statistics, also after Gaussians were replaced."""
    results = []
    for kind in (ByAutograd, ByKernels):
        told = list[tuple[int, int, float]]()
        loss = {"lpips_net": "none", "l2": l2, "l2_from": 0.1}
        one = training(start_size=start_size, start_until=0.1, background=background, loss=loss)
        one.progress = lambda *given, told=told: told.append(given)
        trained = kind(one, plain(80), RATES)
        for step, view in one.steps(0, 6):
            trained.step(step, view)
        gradient, values = trained.mean_gradient(), trained.plain()
        keep = torch.arange(80) % 4 > 0
        added = {name: tensor[:7] for name, tensor in plain(9).parameters().items()}
        changed = torch.tensor([3, 11])
        trained.replace(keep, added, changed, {name: tensor[:2] for name, tensor in added.items()})
        after = {name: tensor.detach().clone() for name, tensor in trained.plain().parameters().items()}
        assert not trained.mean_gradient().any()
        for step, view in one.steps(6, 8):
            trained.step(step, view)
        results.append((told, gradient, values, after, trained.mean_gradient()))
        assert one.loss == told[-1][2]
    (told, gradient, values, after, last), other = results
    assert [t[:2] for t in told] == [t[:2] for t in other[0]] == [(k + 1, 80 if k < 6 else 67) for k in range(8)]
    np.testing.assert_allclose([t[2] for t in told], [t[2] for t in other[0]], rtol=2e-4)
    for ours, theirs in ((other[1], gradient), (other[4], last)):
        assert (ours - theirs).norm() < 0.01 * theirs.norm()
    for name in Plain.NAMES:
        ours, theirs = getattr(other[2], name).detach(), getattr(values, name).detach()
        # Adam turns noise in a gradient that is nearly 0 into a whole step; few rows have such
        assert ((ours - theirs).abs() > 0.05 * RATES[name][0]).float().mean() < 0.02, name
        assert (other[3][name] - after[name]).abs().max() < 20 * RATES[name][0]
        assert torch.equal(other[3][name][-7:], after[name][-7:])
        assert torch.equal(other[3][name][[3, 11]], after[name][[3, 11]])


def test_a_loss_that_is_not_finite_names_its_step_and_view() -> None:
    values = plain(5)
    values.colors[:] = torch.nan
    with pytest.raises(NanLoss, match="the loss is nan at step 3, view 00002"):
        ByKernels(training(), values, RATES).step(3, 2)
