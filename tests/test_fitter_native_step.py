"""The native training step compared with autograd of the differentiable call, of the loss, and with torch's Adam."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from analytic import ball_views
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fitter_native import runnable
from torch import Tensor

from gaussianverse.fitter.growth import screen_gradient
from gaussianverse.fitter.native import library
from gaussianverse.fitter.native.step import COLUMNS, Pictures, PlainStep, Weights
from gaussianverse.fitter.optimizer import RowAdam
from gaussianverse.fitter.photometric import l1_ssim
from gaussianverse.fitter.plain import Plain
from gaussianverse.fitter.rasterize import rasterization
from gaussianverse.fitter.scene import Scene, make_scene
from gaussianverse.fitter.views import Views

WEIGHTS = Weights(0.8, 0.2, 30.0)
WITH_L2 = Weights(0.3, 0.2, 30.0, l2=20.0)
RATES = {"means": 1e-3, "log_scales": 5e-3, "quats": 2e-3, "logits": 0.05, "colors": 3e-3}
BACKGROUND = (0.2, 0.7, 0.4)


def views_of(width: int, height: int, count: int = 3) -> Views:
    """Views of a ball, cut to a size that is no multiple of a tile."""
    side = max(width, height)
    views = ball_views(count, side)
    return Views(np.ascontiguousarray(views.images[:, :height, :width]), views.c2w, views.Ks, views.names)


def pictures_of(views: Views) -> Pictures:
    return Pictures.of(views.images, views.viewmats, views.Ks)


def plain(count: int, seed: int = 0) -> Plain:
    g = torch.Generator().manual_seed(seed)
    return Plain(
        0.25 * torch.randn((count, 3), generator=g),
        -3 + 0.6 * torch.randn((count, 3), generator=g),
        torch.randn((count, 4), generator=g),
        2 * torch.randn(count, generator=g),
        1.2 * torch.rand((count, 3), generator=g) - 0.1,  # some beyond what is drawn
    )


def rows(values: Plain) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy() for name, tensor in values.parameters().items()}


def by_autograd(
    values: Plain, scene: Scene, views: list[int], weights: Weights = WEIGHTS
) -> tuple[float, dict[str, Tensor], Tensor, Tensor]:
    """Loss, gradients, screen gradients and number of views of each Gaussian, without the native step."""
    leaves = Plain(**{name: t.detach().clone().requires_grad_() for name, t in values.parameters().items()})
    decoded, index, total = leaves.decode(), torch.tensor(views), torch.zeros(())
    background = torch.tensor(BACKGROUND)
    image, _, meta = rasterization(
        decoded.means, decoded.quats, decoded.scales, decoded.opacities, decoded.colors, scene.viewmats[index],
        scene.Ks[index], scene.width, scene.height, backgrounds=background.repeat(len(views), 1), backend="cpu",
    )  # fmt: skip
    target = scene.composited(index, background)
    l1, ssim = l1_ssim(image, target)
    total = weights.l1 * l1 + weights.l2 * (image - target).square().mean() + weights.ssim * (1 - ssim)
    drawn = (meta["radii"] > 0).all(-1)
    for seen in drawn:
        if seen.any():
            total = total + weights.volume / len(views) * decoded.scales[seen].prod(1).mean()
    total.backward()
    norms = torch.where(drawn, screen_gradient(meta["means2d"], scene.width, scene.height), 0.0)
    gradients = {name: t.grad for name, t in leaves.parameters().items()}
    return float(total.detach()), gradients, norms.sum(0), drawn.sum(0)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (53, 47), (31, 70), (11, 13)])
@pytest.mark.parametrize("views", [[1], [0, 2], [2, 0, 1, 1]])
@pytest.mark.parametrize("weights", [WEIGHTS, WITH_L2, Weights(0.0, 0.0, 0.0, l2=1.0)])
def test_loss_gradient_and_statistics_are_those_of_autograd(
    width: int, height: int, views: list[int], weights: Weights
) -> None:
    given_views, values = views_of(width, height), plain(400, width)
    scene = make_scene(given_views, torch.device("cpu"))
    loss, gradients, norms, seen = by_autograd(values, scene, views, weights)
    step = PlainStep(rows(values))
    found = step.step(pictures_of(given_views), views, BACKGROUND, dict.fromkeys(COLUMNS, 0.0), weights, 0.999)
    assert found == pytest.approx(loss, rel=2e-6)
    for name, plane in step._named(step._planes[1]).items():
        # after the first step, the first moment is a tenth of the gradient
        ours = 10 * torch.from_numpy(plane[..., :400].T.copy()).double()
        theirs = gradients[name].double()
        assert (ours - theirs).norm() < 3e-5 * theirs.norm(), name
    np.testing.assert_array_equal(step.views, seen.numpy())
    assert np.linalg.norm(step.screen - norms.numpy()) < 3e-5 * np.linalg.norm(norms.numpy())
    for name, value in step.values.items():  # the rates are 0
        np.testing.assert_array_equal(value, rows(values)[name])


def test_several_steps_are_those_of_torchs_adam() -> None:
    views = views_of(64, 48)
    scene, pictures, values = make_scene(views, torch.device("cpu")), pictures_of(views), plain(300)
    step, adam = PlainStep(rows(values)), RowAdam(values.parameters(), {k: (r, r / 10) for k, r in RATES.items()})
    for k in range(6):
        _, gradients, _, _ = by_autograd(Plain(**adam.tensors), scene, [k % 3])
        for name, tensor in adam.tensors.items():
            tensor.grad = gradients[name]
        adam.step(k / 6)
        step.step(pictures, [k % 3], BACKGROUND, {n: r * 0.1 ** (k / 6) for n, r in RATES.items()}, WEIGHTS, 0.999)
        for name, value in step.values.items():
            # Adam turns noise in a gradient that is nearly 0 into a whole step; few rows have such
            difference = np.abs(value - adam.tensors[name].detach().numpy())
            assert np.mean(difference > 0.02 * RATES[name]) < 0.01, (k, name)
    assert step.steps == 6


def test_blending_weights_are_the_shares_of_the_picture() -> None:
    """One Gaussian in front of another: the weights add up to the picture's alpha."""
    views = views_of(40, 32, 1)
    scene, values = make_scene(views, torch.device("cpu")), plain(60, 3)
    step = PlainStep(rows(values))
    step.step(pictures_of(views), [0], BACKGROUND, RATES, WEIGHTS, 0.999)
    d = values.decode()
    _, alpha, meta = rasterization(
        d.means, d.quats, d.scales, d.opacities, d.colors, scene.viewmats, scene.Ks, 40, 32, backend="cpu"
    )
    assert float(step.weights.sum()) == pytest.approx(float(alpha.mean()), rel=1e-5)
    # one alone: what the picture of it alone weighs
    for g in range(0, 60, 7):
        alone = [t[g : g + 1] for t in (d.means, d.quats, d.scales, d.opacities, d.colors)]
        _, alpha, _ = rasterization(*alone, scene.viewmats, scene.Ks, 40, 32, backend="cpu")
        assert 0 <= step.weights[g] <= float(alpha.mean()) * (1 + 1e-5)
    assert (step.weights[~(meta["radii"][0] > 0).all(-1).numpy()] == 0).all()
    step.clear_statistics()
    assert not step.weights.any()


def test_all_instruction_sets_take_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, results = pictures_of(views_of(75, 61)), []
    for instruction_set in runnable():
        monkeypatch.setattr(library, "instruction_set", lambda name=instruction_set: name)
        step = PlainStep(rows(plain(500, 8)))
        losses = [step.step(pictures, [k % 3], BACKGROUND, RATES, WITH_L2, 0.999) for k in range(5)]
        results.append([np.array(losses), step.screen.copy(), step.weights.copy(), *step.values.values()])
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(other, results[0], strict=True))


@given(st.integers(11, 40), st.integers(11, 40), st.integers(0, 40), st.floats(-12.0, 4.0), st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_size_any_number_any_scale_is_finite(
    width: int, height: int, count: int, scale: float, away: bool
) -> None:
    values = plain(count, 1)
    values.log_scales[:] = scale
    values.means[:] += 40.0 if away else 0.0
    step = PlainStep(rows(values))
    for k in range(2):
        assert np.isfinite(step.step(pictures_of(views_of(width, height)), [k], BACKGROUND, RATES, WEIGHTS, 0.999))
    assert all(np.isfinite(value).all() for value in step.values.values())


def test_what_is_not_a_number_is_not_drawn_and_stays() -> None:
    views, values = pictures_of(views_of(40, 32)), plain(40)
    spoilt = {name: value.copy() for name, value in rows(values).items()}
    spoilt["means"][3], spoilt["quats"][5], spoilt["logits"][7], spoilt["log_scales"][9] = np.nan, 0, np.nan, np.inf
    rest = np.setdiff1d(np.arange(40), [3, 5, 7, 9])
    with_them, without = PlainStep(spoilt), PlainStep({name: value[rest] for name, value in spoilt.items()})
    losses = [s.step(views, [0], BACKGROUND, RATES, WEIGHTS, 0.999) for s in (with_them, without)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert with_them.views[[3, 5, 7, 9]].tolist() == [0, 0, 0, 0]
    for name, value in with_them.values.items():
        np.testing.assert_allclose(value[rest], without.values[name], atol=1e-5)


def test_rows_are_replaced_with_their_moments() -> None:
    views = pictures_of(views_of(40, 32))
    step = PlainStep(rows(plain(50)))
    for _ in range(3):
        step.step(views, [0], BACKGROUND, RATES, WEIGHTS, 0.999)
    before, moments = step.values, step._planes[1:, :, :50].copy()
    keep = np.arange(50) % 3 > 0
    added = rows(plain(9, 5))
    step.replace(keep, added)
    kept = int(keep.sum())
    assert len(step) == kept + 9
    for name, value in step.values.items():
        np.testing.assert_array_equal(value, np.concatenate([before[name][keep], added[name]]))
    np.testing.assert_array_equal(step._planes[1:, :, :kept], moments[:, :, keep])
    assert not step._planes[1:, :, kept:].any()
    assert not step.views.any()
    step.set_rows(np.array([1, 4]), {name: value[:2] for name, value in added.items()})
    np.testing.assert_array_equal(step.values["quats"][[1, 4]], added["quats"][:2])
    assert not step._planes[1:, :, [1, 4]].any()
    assert step._planes[1:, :, [0, 2]].any()
    assert np.isfinite(step.step(views, [1], BACKGROUND, RATES, WEIGHTS, 0.999))


def test_pictures_under_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="10 x 30 pixels, expected at least 11 x 11"):
        pictures_of(views_of(10, 30))
