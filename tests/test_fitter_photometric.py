"""The fused L1 + SSIM compared with pytorch-msssim in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_msssim import ssim as oracle_ssim
from torch import Tensor

from gaussianverse.fitter.photometric import l1_ssim


def pair(height: int, width: int, seed: int, blank: bool) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    target = torch.rand((2, height, width, 3), generator=g)
    image = (target + 0.2 * torch.randn(target.shape, generator=g)).clamp(0, 1)
    if blank:  # a background that is equal in both, as around every object
        target[:, : height // 2], image[:, : height // 2] = 0.3, 0.3
        target[:, :, : width // 3], image[:, :, : width // 3] = 0.3, 0.3
    return image, target


@given(st.integers(11, 60), st.integers(11, 60), st.integers(0, 9), st.booleans())
@settings(max_examples=30, deadline=None)
def test_value_and_gradient_equal_the_oracle(height: int, width: int, seed: int, blank: bool) -> None:
    image, target = pair(height, width, seed, blank)
    ours, theirs = image.clone().requires_grad_(), image.double().requires_grad_()
    l1, ssim = l1_ssim(ours, target)
    planes, targets = theirs.permute(0, 3, 1, 2), target.double().permute(0, 3, 1, 2)
    l1_oracle = (theirs - target).abs().mean()
    ssim_oracle = oracle_ssim(planes, targets, data_range=1.0)
    assert abs(float(l1) - float(l1_oracle)) < 1e-6
    assert abs(float(ssim) - float(ssim_oracle)) < 1e-5
    (0.8 * l1 + 0.2 * (1 - ssim)).backward()
    (0.8 * l1_oracle + 0.2 * (1 - ssim_oracle)).backward()
    error = (ours.grad.double() - theirs.grad).norm() / theirs.grad.norm()
    assert error < 1e-4


def test_equal_images_are_perfect_and_flat() -> None:
    image = torch.rand(1, 30, 20, 3).requires_grad_()
    l1, ssim = l1_ssim(image, image.detach())
    (l1 + ssim).backward()
    assert (float(l1), float(ssim)) == (0.0, 1.0)
    assert (image.grad == 0).all()


@pytest.mark.filterwarnings("ignore:Skipping Gaussian Smoothing")
@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 5, 40, 3)])
def test_images_smaller_than_the_window_are_finite(shape: tuple[int, ...]) -> None:
    image = torch.rand(shape).requires_grad_()
    l1, ssim = l1_ssim(image, torch.rand(shape))
    (l1 + ssim).backward()
    assert torch.isfinite(image.grad).all()
