"""Metrics: PSNR compared with its formula, and the images that are compared."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from analytic import ball_views

from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.fitter.metrics import measure, psnr, render
from gaussianverse.fitter.scene import make_scene

VIEWS = ball_views(3, 24)
SCENE = make_scene(VIEWS, torch.device("cpu"))


def ball(opacity: float, color: float = 0.5) -> Gaussians:
    """A single large Gaussian."""
    one = np.ones(1, np.float32)
    return Gaussians(
        np.zeros((1, 3), np.float32), np.full((1, 3), 0.2, np.float32), np.array([[1, 0, 0, 0]], np.float32),
        opacity * one, np.full((1, 3), color, np.float32),
    )  # fmt: skip


def test_psnr_is_of_the_mean_square_and_at_most_100() -> None:
    reference = torch.zeros((4, 6, 3), dtype=torch.float64)
    for error, expected in ((1.0, 0.0), (0.1, 20.0), (1e-3, 60.0), (1e-6, 100.0), (0.0, 100.0)):
        assert psnr(reference + error, reference) == pytest.approx(expected, abs=1e-6)
    half = reference.clone()
    half[:2] = 0.1
    assert psnr(half, reference) == pytest.approx(20 + 10 * math.log10(2))


def test_what_draws_nothing_is_compared_as_a_white_sheet() -> None:
    found = measure(ball(1e-6), SCENE, "cpu")
    alpha = VIEWS.images[..., 3:] / 255
    errors = (VIEWS.images[..., :3] / 255 * alpha - alpha) ** 2
    assert found.psnr == pytest.approx(-10 * np.log10(errors.mean((1, 2, 3))), abs=1e-3)
    assert all(math.isnan(value) for value in found.lpips)
    assert len(found.ssim) == 3


def test_each_view_is_measured_for_itself_also_by_lpips() -> None:
    compared = list[tuple[torch.Tensor, torch.Tensor]]()

    def distance(image: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        compared.append((image, reference))
        return (image - reference).abs().mean()

    found = measure(ball(0.9), SCENE, "cpu", distance)
    white = torch.ones(3)
    for view, (image, reference) in enumerate(compared):
        torch.testing.assert_close(image[0], render(ball(0.9), SCENE, view, "cpu", white))
        torch.testing.assert_close(reference, SCENE.composited(torch.tensor([view]), white))
        assert found.psnr[view] == psnr(image[0], reference[0])
        assert found.lpips[view] == float((image - reference).abs().mean())
    assert len(set(found.psnr)) == len(compared) == 3


def test_a_rendered_view_is_a_picture_in_range_without_gradients() -> None:
    image = render(ball(0.9, color=1.0), SCENE, 1, "cpu", torch.zeros(3))
    assert image.shape == (24, 24, 3)
    assert not image.requires_grad
    assert 0 <= image.min() < 0.01
    assert 0.85 < image.max() <= 0.9
