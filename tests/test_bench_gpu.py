"""Parts of the GPU benchmark that run without a GPU: the comparison of backends, and the error."""

import pytest
import torch

from bench.gpu import main, parity, profile


def test_parity_of_the_two_backends_that_are_here() -> None:
    found = parity("cpu", "reference", count=300, size=48)
    assert found["flipped"] <= 0.005
    assert found["forward"] < 1e-4
    assert 0 < found["gradient"] < 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_parity_of_gsplat() -> None:
    for other in ("cpu", "reference"):
        found = parity("gsplat", other)
        assert found["flipped"] <= 0.005
        assert found["forward"] < 1e-4
        assert found["gradient"] < 1e-3


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    assert "no CUDA device" in capsys.readouterr().err


def test_lpips_is_on_only_with_its_weights() -> None:
    assert profile("paper", "").loss.lpips_net == "none"
    assert profile("paper", "/weights/vgg16.pth").loss.lpips_net == "vgg"
    assert profile("fast", "/weights/vgg16.pth").loss.lpips_net == "none"
