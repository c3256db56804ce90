"""The rasterisers compared with each other, with gsplat's own projection, and with finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from analytic import look_at
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gaussianverse.fitter.rasterize import BackendUnavailable, rasterization
from gaussianverse.fitter.threads import set_threads


def scene(n: int, seed: int, opacity: tuple[float, float] = (0.3, 0.98), size: float = 0.05) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    means = 0.35 * torch.randn((n, 3), generator=g)
    quats = torch.randn((n, 4), generator=g)
    scales = size * torch.exp(0.7 * torch.randn((n, 3), generator=g))
    opacities = opacity[0] + (opacity[1] - opacity[0]) * torch.rand(n, generator=g)
    return [t.requires_grad_() for t in (means, quats, scales, opacities, torch.rand((n, 3), generator=g))]


def cameras(width: int, height: int, eyes: list[list[float]]) -> tuple[Tensor, Tensor]:
    views = torch.stack([torch.from_numpy(np.linalg.inv(look_at(np.array(e)))) for e in eyes]).float()
    focal = 1.3 * max(width, height)
    K = torch.tensor([[focal, 0, width / 2 + 1.5], [0, 1.05 * focal, height / 2 - 2], [0, 0, 1]])
    return views, K.repeat(len(eyes), 1, 1)


EYES = [[1.8, 0.4, 0.7], [-0.6, 1.5, -0.9]]


def run(
    backend: str, gaussians: list[Tensor], width: int, height: int, judged: Tensor | None = None, **options: object
) -> dict[str, Tensor]:
    """Images and gradients; `judged` [C, H, W] is the mask of pixels in the loss."""
    tensors = [t.detach().clone().requires_grad_() for t in gaussians]
    views, Ks = cameras(width, height, EYES)
    backgrounds = torch.tensor([[0.2, 0.5, 0.9], [1.0, 0.0, 0.3]])
    image, alpha, meta = rasterization(
        *tensors, views, Ks, width, height, backgrounds=backgrounds, backend=backend, **options
    )
    g = torch.Generator().manual_seed(7)
    weights = torch.rand(image.shape, generator=g) - 0.4, torch.rand(alpha.shape, generator=g) - 0.4
    if judged is not None:
        weights = weights[0] * judged[..., None], weights[1] * judged[..., None]
    ((image * weights[0]).sum() + (alpha * weights[1]).sum()).backward()
    names = ("means", "quats", "scales", "opacities", "colors")
    grads = {f"d_{n}": t.grad for n, t in zip(names, tensors, strict=True)}
    return {"image": image, "alpha": alpha, "radii": meta["radii"], "d_means2d": meta["means2d"].grad, **grads}


@pytest.mark.parametrize(
    ("n", "opacity", "size"),
    [(600, (0.3, 0.98), 0.05), (300, (0.97, 0.9999), 0.08), (800, (0.001, 0.3), 0.04), (40, (0.5, 0.9), 0.5)],
)
def test_cpu_equals_the_float64_reference(n: int, opacity: tuple[float, float], size: float) -> None:
    gaussians = scene(n, n, opacity, size)
    ours, oracle = run("cpu", gaussians, 61, 45), run("reference", gaussians, 61, 45)
    assert torch.equal(ours["radii"], oracle["radii"])
    flipped = (ours["image"] - oracle["image"]).abs().amax(-1) > 1e-4
    assert flipped.float().mean() <= 0.005
    # pixels that flip at a threshold have a different gradient; which ones flip depends on the machine
    ours, oracle = (run(backend, gaussians, 61, 45, ~flipped) for backend in ("cpu", "reference"))
    for name, value in ours.items():
        if name.startswith("d_"):
            error = (value.double() - oracle[name].double()).norm() / oracle[name].double().norm()
            assert error < 2e-5, name


def test_no_tile_of_a_needle_is_left_out() -> None:
    """Long and thin Gaussians, which touch many of their tiles only at a corner or not at all."""
    means, quats, _, opacities, colors = (t.detach() for t in scene(150, 4, (0.5, 0.99)))
    scales = torch.tensor([0.4, 0.002, 0.002]) * torch.linspace(0.05, 1.5, 150)[:, None]
    needles = [means, quats, scales, opacities, colors]
    ours, oracle = (run(backend, needles, 120, 90)["image"] for backend in ("cpu", "reference"))
    assert ((ours - oracle).abs().amax(-1) > 1e-4).float().mean() <= 0.002
    assert float((ours - oracle).detach().abs().max()) < 0.02  # at most one step of 1/255 at a threshold


def test_gradients_are_those_of_finite_differences() -> None:
    gaussians = [t.detach().double().requires_grad_() for t in scene(8, 3, size=0.1)]
    views, Ks = cameras(16, 12, EYES[:1])
    weights = torch.rand((1, 12, 16, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def loss(*tensors: Tensor) -> Tensor:
        return (rasterization(*tensors, views.double(), Ks.double(), 16, 12, backend="reference")[0] * weights).sum()

    assert torch.autograd.gradcheck(loss, gaussians, eps=1e-7, atol=1e-4, rtol=1e-3)


def test_projection_equals_gsplats_own() -> None:
    """gsplat's pure-torch projection runs without CUDA and is an independent oracle."""
    implementation = pytest.importorskip("gsplat.cuda._torch_impl")
    from gaussianverse.fitter.rasterize.reference import project

    means, quats, scales, _, _ = (t.detach() for t in scene(500, 5))
    views, Ks = cameras(64, 48, EYES)
    covariances, _ = implementation._quat_scale_to_covar_preci(quats, scales, True, False)
    _, means2d, depths, conics, _ = implementation._fully_fused_projection(means, covariances, views, Ks, 64, 48)
    for c in range(2):
        ours, z, covariance = project(means, quats, scales, views[c], Ks[c], 64, 48, 0.3)
        inverse = torch.linalg.inv(covariance)
        torch.testing.assert_close(z, depths[c], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours, means2d[c], atol=1e-3, rtol=1e-4)
        packed = torch.stack([inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]], -1)
        torch.testing.assert_close(packed, conics[c], atol=1e-4, rtol=1e-3)


def test_cpu_equals_gsplats_own_torch_rasteriser() -> None:
    pytest.importorskip("gsplat")
    from bench.gsplat_oracle import rasterization as gsplat_rasterization

    gaussians = scene(700, 21)
    views, Ks = cameras(56, 44, EYES)
    backgrounds = torch.tensor([[0.2, 0.5, 0.9], [1.0, 0.0, 0.3]])
    weights = torch.rand((2, 44, 56, 4), generator=torch.Generator().manual_seed(2)) - 0.4
    results = []
    for ours in (True, False):
        tensors = [t.detach().clone().requires_grad_() for t in gaussians]
        if ours:
            image, alpha, meta = rasterization(*tensors, views, Ks, 56, 44, backgrounds=backgrounds, backend="cpu")
        else:
            image, alpha, meta = gsplat_rasterization(*tensors, views, Ks, 56, 44, backgrounds)
        means2d = meta["means2d"]
        (torch.cat([image, alpha], -1) * weights).sum().backward()
        results.append([image.detach(), alpha.detach(), means2d.grad, *(t.grad for t in tensors)])
    differing = (results[0][0] - results[1][0]).abs().amax(-1) > 1e-4
    assert not differing.any(), f"{int(differing.sum())} pixels flipped at a threshold; choose another scene"
    for ours, theirs in zip(results[0][1:], results[1][1:], strict=True):
        assert (ours - theirs).norm() / theirs.norm() < 1e-4


def test_bits_do_not_depend_on_threads_or_repetition() -> None:
    gaussians = scene(2000, 11)
    results = []
    for threads in (1, 2, 3, 1):
        before = set_threads(threads)
        results.append(run("cpu", gaussians, 70, 50))
        set_threads(before)
    for other in results[1:]:
        for name, value in other.items():
            assert torch.equal(value, results[0][name]), name


@pytest.mark.parametrize("mode", ["RGB+D", "RGB+ED"])
def test_depth_is_that_of_an_opaque_wall(mode: str) -> None:
    n = 400
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-0.6, 0.6, 20)] * 2, indexing="ij"), -1).reshape(n, 2)
    means = torch.cat([grid, torch.full((n, 1), 2.0)], 1)
    scales = torch.tensor([[0.06, 0.06, 1e-3]]).repeat(n, 1)
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1)
    K = torch.tensor([[[40.0, 0, 16], [0, 40, 16], [0, 0, 1]]])
    for backend in ("cpu", "reference"):
        out, alpha, _ = rasterization(
            means, quats, scales, torch.full((n,), 0.999), torch.rand(n, 3), torch.eye(4)[None], K, 32, 32,
            backend=backend, render_mode=mode,
        )  # fmt: skip
        middle = out[0, 12:20, 12:20, 3] / (alpha[0, 12:20, 12:20, 0] if mode == "RGB+D" else 1)
        assert out.shape == (1, 32, 32, 4)
        assert (middle - 2).abs().max() < 1e-4


def test_what_cannot_be_seen_is_not_drawn_and_has_no_gradient() -> None:
    # behind the camera, beyond the side, transparent, and one in view
    means = torch.tensor([[0.0, 0, -1], [9, 0, 2], [0, 0, 2], [0.0, 0, 2]], requires_grad=True)
    quats, scales = torch.tensor([[1.0, 0, 0, 0]] * 4), torch.full((4, 3), 0.1)
    opacities = torch.tensor([0.9, 0.9, 0.001, 0.9])
    K = torch.tensor([[[32.0, 0, 16], [0, 32, 16], [0, 0, 1]]])
    image, alpha, meta = rasterization(
        means, quats, scales, opacities, torch.ones(4, 3), torch.eye(4)[None], K, 32, 32, backend="cpu"
    )
    alpha[:, 14:17, 13:16].sum().backward()
    assert (meta["radii"][0] > 0).all(-1).tolist() == [False, False, False, True]
    assert (means.grad[:3] == 0).all()
    assert (means.grad[3] != 0).any()
    assert image[0, 16, 16, 0] > 0.8


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 30), st.floats(1e-4, 30.0))
@settings(max_examples=40, deadline=None)
def test_any_size_any_number_any_scale_is_finite(width: int, height: int, n: int, size: float) -> None:
    out = run("cpu", scene(n, 1, size=size), width, height)
    assert out["image"].shape == (2, height, width, 3)
    for name, value in out.items():
        assert torch.isfinite(value.double()).all(), name
    assert ((out["alpha"] >= 0) & (out["alpha"] <= 1)).all()


def test_max_alpha_is_obeyed() -> None:
    K = torch.tensor([[[32.0, 0, 16], [0, 32, 16], [0, 0, 1]]])
    wall = (torch.tensor([[0.0, 0, 2]]), torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), 2.0), torch.ones(1))
    for limit in (0.5, 0.99):
        _, alpha, _ = rasterization(
            *wall, torch.ones(1, 3), torch.eye(4)[None], K, 32, 32, backend="cpu", max_alpha=limit
        )
        assert math.isclose(float(alpha.detach().max()), limit, abs_tol=1e-6)


def test_wrong_arguments_are_named() -> None:
    good = [t.detach() for t in scene(5, 0)]
    views, Ks = cameras(8, 8, EYES)
    with pytest.raises(ValueError, match=r"quats has shape \(5, 3\), expected \(5, 4\)"):
        rasterization(good[0], good[0], *good[2:], views, Ks, 8, 8)
    with pytest.raises(ValueError, match="backend is 'cuda'"):
        rasterization(*good, views, Ks, 8, 8, backend="cuda")
    with pytest.raises(ValueError, match="render_mode"):
        rasterization(*good, views, Ks, 8, 8, render_mode="D")
    with pytest.raises(ValueError, match="backgrounds has shape"):
        rasterization(*good, views, Ks, 8, 8, backgrounds=torch.zeros(3))


def test_an_image_that_the_kernels_cannot_count_is_refused() -> None:
    views, Ks = cameras(8, 8, EYES)
    with pytest.raises(ValueError, match="draws sides of at most 262136"):
        rasterization(*(t.detach() for t in scene(5, 0)), views, Ks, 262_137, 1, backend="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests the error without CUDA")
def test_gsplat_without_cuda_says_why() -> None:
    views, Ks = cameras(8, 8, EYES)
    with pytest.raises(BackendUnavailable, match="needs a CUDA device"):
        rasterization(*(t.detach() for t in scene(5, 0)), views, Ks, 8, 8, backend="gsplat")


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(
    ("field", "value"), [(0, math.nan), (0, math.inf), (1, 0.0), (2, math.nan), (3, math.nan), (3, math.inf)]
)
def test_what_is_not_finite_or_has_no_rotation_is_not_drawn(backend: str, field: int, value: float) -> None:
    gaussians = scene(20, 5)
    spoilt = [t.detach().clone() for t in gaussians]
    spoilt[field][3] = value
    rest = torch.arange(20) != 3
    with_it = run(backend, spoilt, 40, 30)["image"]
    without = run(backend, [t[rest] for t in gaussians], 40, 30)["image"]
    torch.testing.assert_close(with_it, without)
