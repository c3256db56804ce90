"""Steps of a fit: view, resolution, background and loss."""

from __future__ import annotations

import dataclasses
import itertools
import time
from typing import Any

import numpy as np
import pytest
import pytorch_msssim
import torch
from analytic import ball_views

from gaussianverse.atlas.configuration import from_table
from gaussianverse.fitter.anchors import Decoded, make_anchors
from gaussianverse.fitter.config import FitConfig, load_profile
from gaussianverse.fitter.errors import FitTimeout, NanLoss
from gaussianverse.fitter.growth import Statistics
from gaussianverse.fitter.rasterize import rasterization
from gaussianverse.fitter.training import Training

VIEWS = ball_views(7, 24)


def training(seed: int = 0, deadline: float | None = None, progress: Any = None, **changes: Any) -> Training:
    table = {**load_profile("test")["fit"], "size": 24, "start_size": 0, "steps": 40, **changes}
    return Training(VIEWS, from_table(FitConfig, table), seed, deadline, progress)


def gaussians(count: int, seed: int = 0) -> Decoded:
    g = torch.Generator().manual_seed(seed)
    means = (0.15 * torch.randn((count, 3), generator=g)).requires_grad_()
    return Decoded(
        means, torch.randn((count, 4), generator=g), 0.05 + 0.1 * torch.rand((count, 3), generator=g),
        0.2 + 0.7 * torch.rand(count, generator=g), torch.rand((count, 3), generator=g), torch.arange(count),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_every_view_comes_once_before_any_comes_again_in_an_order_of_the_seeds(seed: int) -> None:
    def drawn(seed: int) -> list[tuple[int, int]]:
        return list(training(seed).steps(3, 31))

    steps, views = zip(*drawn(seed), strict=True)
    assert steps == tuple(range(3, 31))
    rounds = [views[k : k + 7] for k in range(0, 28, 7)]
    assert all(sorted(one) == list(range(7)) for one in rounds)
    assert len(set(rounds)) == 4
    assert drawn(seed) == drawn(seed) != drawn(seed + 1)


def test_a_round_of_views_goes_on_where_the_anchors_were_baked() -> None:
    one = training()
    views = [view for _, view in itertools.chain(one.steps(0, 3), one.steps(3, 7))]
    assert sorted(views) == list(range(7))


def test_the_deadline_is_looked_at_in_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", iter([9.0, 10.0, 10.5]).__next__)
    steps = training(deadline=10.0).steps(4, 40)
    assert [next(steps)[0], next(steps)[0]] == [4, 5]
    with pytest.raises(FitTimeout, match="passed at step 6 of 40"):
        next(steps)


def test_the_first_steps_are_taken_at_the_smaller_size() -> None:
    one = training(start_size=12, start_until=0.25)
    assert [one.scene(step).width for step in (0, 9, 10, 39)] == [12, 12, 24, 24]
    assert training(start_size=0, start_until=0.25).scene(0).width == 24
    assert training(start_size=99, start_until=0.25).scene(0).width == 24


def test_backgrounds() -> None:
    assert training(background="white").background().tolist() == [1, 1, 1]
    assert training(background="black").background().tolist() == [0, 0, 0]
    for seed in range(3):
        one = training(seed, background="random")
        drawn = torch.stack([one.background() for _ in range(200)])
        assert len(drawn.unique()) > 500
        # a uniform draw in [0, 1]: of 600 numbers the mean is within 5 deviations of a half
        assert abs(float(drawn.mean()) - 0.5) < 5 / (12 * 600) ** 0.5
        assert 0 <= drawn.min() < 0.1 < 0.9 < drawn.max() <= 1


@pytest.mark.parametrize("background", ["white", "black"])
@pytest.mark.parametrize(
    "weights",
    [(0.8, 0.2, 0.0, 0.0), (0.5, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.3, 0.3, 40.0, 0.0), (0.8, 0.2, 0.0, 10.0)],
)
@pytest.mark.parametrize("late", [False, True])
def test_the_loss_is_the_papers_sum(background: str, weights: tuple[float, float, float, float], late: bool) -> None:
    """L1 and SSIM by other implementations, the mean volume of the Gaussians in view; late, L2 for half of L1."""
    l1, ssim, volume, l2 = weights
    told = list[tuple[int, int, float]]()
    one = training(
        background=background, progress=lambda *given: told.append(given),
        loss={"lpips_net": "none", "l1": l1, "ssim": ssim, "volume": volume, "l2": l2, "l2_from": 0.6},
    )  # fmt: skip
    decoded = gaussians(30)
    with torch.no_grad():
        decoded.means[:4, 2] += 30.0  # out of sight
    step = 24 if late else 23  # of 40
    meta = one.backward(step, 2, decoded)
    paper = torch.full((3,), float(background == "white"))
    image, _, _ = rasterization(
        decoded.means.detach(), decoded.quats, decoded.scales, decoded.opacities, decoded.colors,
        one.full.viewmats[2:3], one.full.Ks[2:3], 24, 24, backgrounds=paper[None], backend="reference",
        max_alpha=one.config.max_alpha,
    )  # fmt: skip
    image = image.detach().float()
    rgba = torch.from_numpy(VIEWS.images[2:3]).float() / 255
    target = rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:]) * paper
    planes = [picture.permute(0, 3, 1, 2) for picture in (image, target)]
    similarity = pytorch_msssim.ssim(*planes, data_range=1.0)
    drawn = (meta["radii"][0] > 0).all(-1)
    assert 10 < int(drawn.sum()) <= 26
    if late and l2:
        l1 = l1 / 2
    expected = l1 * (image - target).abs().mean() + ssim * (1 - similarity)
    expected = expected + (l2 if late else 0) * (image - target).square().mean()
    expected = expected + volume * decoded.scales[drawn].prod(1).mean()
    assert one.loss == pytest.approx(float(expected), rel=1e-3)
    assert told == [(step + 1, 30, one.loss)]
    assert one.gaussians_now == 30
    assert decoded.means.grad is not None
    assert decoded.means.grad.any()


def test_the_bound_counts_what_it_drops() -> None:
    one = training(tau=20)
    g = torch.Generator().manual_seed(0)
    anchors = make_anchors(torch.rand((30, 3), generator=g), torch.ones(30), 4, 8, g)
    before = int((anchors.opacities() > 0).sum())
    assert before > 40
    for _ in range(2):  # the second call drops nothing
        anchors = one.bounded(anchors, Statistics.empty(anchors))
        assert int((anchors.opacities() > 0).sum()) == 20
        assert one.pruned == before - 20


def test_a_loss_that_is_not_finite_names_its_step_and_view() -> None:
    decoded = gaussians(5)
    bad = dataclasses.replace(decoded, colors=torch.full_like(decoded.colors, np.nan))
    with pytest.raises(NanLoss, match="the loss is nan at step 3, view 00002"):
        training().backward(3, 2, bad)


def of_lpips(
    step: int, seed: int = 0, **loss: Any
) -> tuple[float, torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Loss and gradient of the means of a step whose LPIPS is the mean squared difference, and what it compared."""
    one, pairs = training(seed, background="white", loss={"lpips_net": "none", "lpips": 2.0, **loss}), []

    def distance(image: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        pairs.append((image.detach(), reference))
        return (image - reference).square().mean()

    one.lpips = distance
    decoded = gaussians(30)
    one.backward(step, 2, decoded)
    assert decoded.means.grad is not None
    return one.loss, decoded.means.grad, pairs


@pytest.mark.parametrize("crop", [24, 25, 400])
def test_a_crop_that_covers_the_picture_has_its_loss_and_gradient(crop: int) -> None:
    whole, covered = of_lpips(4), of_lpips(4, lpips_crop=crop)
    assert covered[0] == whole[0]
    assert torch.equal(covered[1], whole[1])
    assert torch.equal(covered[2][0][0], whole[2][0][0])


def test_a_crop_is_the_same_random_square_of_render_and_reference() -> None:
    (image, reference), places = of_lpips(4)[2][0], set[tuple[int, int]]()
    for seed in range(20):
        ((part, of_reference),) = of_lpips(4, seed, lpips_crop=9)[2]
        assert part.shape == of_reference.shape == (1, 9, 9, 3)
        found = [
            (y, x)
            for y in range(16)
            for x in range(16)
            if torch.equal(image[:, y : y + 9, x : x + 9], part)
            and torch.equal(reference[:, y : y + 9, x : x + 9], of_reference)
        ]
        assert found
        places.add(found[0])
    assert len(places) > 10


def test_lpips_at_every_third_step_weighs_three_times() -> None:
    without, once, thrice = of_lpips(6, lpips=0.0), of_lpips(6), of_lpips(6, lpips_every=3)
    assert thrice[0] - without[0] == pytest.approx(3 * (once[0] - without[0]), rel=1e-4)
    torch.testing.assert_close(thrice[1] - without[1], 3 * (once[1] - without[1]), rtol=1e-3, atol=1e-7)
    for step in (7, 8):
        loss, gradient, pairs = of_lpips(step, lpips_every=3)
        assert not pairs
        assert loss == without[0]
        assert torch.equal(gradient, without[1])


def test_lpips_in_bf16_is_the_only_part_that_computes_so() -> None:
    kernel = torch.rand((4, 3, 3, 3), generator=torch.Generator().manual_seed(0)) - 0.5
    found = {}
    for bf16 in (False, True):
        one, kinds = training(background="white", loss={"lpips_net": "none", "lpips": 2.0, "lpips_bf16": bf16}), []

        def distance(image: torch.Tensor, reference: torch.Tensor, kinds: list[torch.dtype] = kinds) -> torch.Tensor:
            a, b = (torch.nn.functional.conv2d(t.permute(0, 3, 1, 2), kernel) for t in (image, reference))
            kinds.append(a.dtype)
            return (a - b).square().mean()

        one.lpips = distance
        decoded = gaussians(30)
        one.backward(4, 2, decoded)
        assert kinds == [torch.bfloat16 if bf16 else torch.float32]
        assert decoded.means.grad is not None
        found[bf16] = one.loss, decoded.means.grad
    without = of_lpips(4, lpips=0.0)[0]
    assert found[True][0] - without == pytest.approx(found[False][0] - without, rel=0.02)
    assert found[True][1].dtype == torch.float32
    assert float((found[True][1] - found[False][1]).norm() / found[False][1].norm()) < 0.02
