"""Baking, splitting and the optimiser's rows."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gaussianverse.fitter.anchors import make_anchors
from gaussianverse.fitter.optimizer import RowAdam
from gaussianverse.fitter.plain import Plain, bake, halves, plain_at, split_parents
from gaussianverse.fitter.rasterize import rasterization


def test_baked_gaussians_draw_the_same_picture() -> None:
    g = torch.Generator().manual_seed(0)
    model = make_anchors(0.3 * torch.randn((60, 3), generator=g), torch.full((60,), 0.1), 4, 32, g)
    K = torch.tensor([[[40.0, 0, 20], [0, 40, 20], [0, 0, 1]]])
    view = torch.eye(4)[None].clone()
    view[0, 2, 3] = 2
    images = []
    for d in (model.decode(), bake(model.decode()).decode()):
        image, _, _ = rasterization(d.means, d.quats, d.scales, d.opacities, d.colors, view, K, 40, 40, backend="cpu")
        images.append(image.detach())
    assert images[0].max() > 0.1
    torch.testing.assert_close(images[0], images[1], atol=1e-4, rtol=0)


def plain(count: int, seed: int = 0) -> Plain:
    g = torch.Generator().manual_seed(seed)
    r = lambda *shape: torch.randn(shape, generator=g)  # noqa: E731
    return Plain(r(count, 3), r(count, 3) - 3, r(count, 4), 3 * r(count), torch.rand((count, 3), generator=g))


@given(st.integers(0, 80), st.integers(1, 120), st.integers(0, 20))
@settings(max_examples=100, deadline=None)
def test_splitting_keeps_the_bound_and_never_the_dead(count: int, tau: int, seed: int) -> None:
    count = min(count, tau)
    g = torch.Generator().manual_seed(seed)
    opacities, gradient = torch.rand(count, generator=g), torch.rand(count, generator=g)
    dead = opacities < 0.2
    parents = split_parents(dead, gradient, tau, 0.1)
    assert count - int(dead.sum()) + len(parents) <= tau
    assert not dead[parents].any()


def test_the_dead_are_replaced_and_growth_is_a_share_within_the_bound() -> None:
    opacities = torch.tensor([0.5, 0.19, 0.2, 0.9, 0.1, 0.7, 0.3, 0.4, 0.6, 0.8])
    gradient = torch.tensor([3.0, 99, 4, 2, 99, 7, 1, 5, 7, 0])
    for tau, share, parents in (
        (10, 0.3, [5, 8]),  # no room: as many as are dead
        (11, 0.3, [5, 8, 7]),
        (20, 0.3, [5, 8, 7, 2, 0]),
        (20, 0.39, [5, 8, 7, 2, 0]),  # a share is rounded down
        (99, 9.0, [5, 8, 7, 2, 0, 3, 6, 9]),  # each once, and the dead never
        (5, 0.3, [5, 8]),
    ):
        assert split_parents(opacities < 0.2, gradient, tau, share).tolist() == parents


def test_baked_gaussians_stay_as_they_are_while_the_anchors_change() -> None:
    given = make_anchors(torch.zeros((9, 3)), torch.full((9,), 0.1), 4, 8, torch.Generator().manual_seed(0)).decode()
    given.opacities.data[:3] = torch.tensor([1e-9, 1.0, 1 - 1e-9])
    before = {name: getattr(given, name).detach().clone() for name in ("means", "scales", "quats", "colors")}
    baked = bake(given)
    for tensor in baked.parameters().values():
        assert not tensor.requires_grad
        assert torch.isfinite(tensor).all()
    with torch.no_grad():
        for name in before:
            getattr(given, name).mul_(7)
    drawn = baked.decode()
    torch.testing.assert_close(drawn.means, before["means"])
    torch.testing.assert_close(drawn.scales, before["scales"])
    torch.testing.assert_close(drawn.colors, before["colors"])
    torch.testing.assert_close(drawn.quats, torch.nn.functional.normalize(before["quats"], dim=-1))
    torch.testing.assert_close(drawn.opacities[:3], torch.tensor([1e-4, 1 - 1e-4, 1 - 1e-4]))


def test_colors_are_drawn_within_their_range() -> None:
    p = plain(3)
    p.colors[:] = torch.tensor([[-0.5, 0, 0.25], [1, 1.5, 0.75], [0.5, 2, -2]])
    assert p.decode().colors.tolist() == [[0, 0, 0.25], [1, 1, 0.75], [0.5, 1, 0]]
    assert p.decode().source.tolist() == [0, 1, 2]


def test_plain_gaussians_begin_as_grey_balls_between_their_neighbours() -> None:
    drawn = plain_at(torch.tensor([[1.0, 2, 3], [4, 5, 6]]), torch.tensor([0.5, 2.0])).decode()
    assert drawn.means.tolist() == [[1, 2, 3], [4, 5, 6]]
    torch.testing.assert_close(drawn.scales, torch.tensor([[0.3] * 3, [1.2] * 3]))
    assert drawn.opacities.tolist() == [0.5, 0.5]
    assert drawn.colors.tolist() == [[0.5] * 3] * 2
    assert drawn.quats.tolist() == [[1, 0, 0, 0]] * 2


def test_halves_lie_on_the_longest_axis_and_share_the_middle() -> None:
    p = plain(5)
    p.log_scales[:, 1] = 1.0  # the y axis of each is longest
    p.quats[0] = torch.tensor([1.0, 0, 0, 0])
    first, second = halves(p, torch.arange(5))
    torch.testing.assert_close((first["means"] + second["means"]) / 2, p.means)
    shift = second["means"][0] - first["means"][0]
    torch.testing.assert_close(shift, torch.tensor([0.0, torch.e, 0.0]))
    torch.testing.assert_close(torch.exp(first["log_scales"][:, 1]), torch.full((5,), 0.6 * torch.e))


def test_rows_carry_their_history() -> None:
    torch.manual_seed(0)
    start = torch.randn(6, 2)
    targets = torch.randn(6, 2)

    def steps(adam: RowAdam, count: int, keep: torch.Tensor) -> None:
        for i in range(count):
            ((adam.tensors["x"] - targets[keep]) ** 2).sum().backward()
            adam.step(i / 10)

    everything, whole = torch.arange(6), RowAdam({"x": start}, {"x": (0.1, 0.01)})
    steps(whole, 5, everything)
    cut = RowAdam({"x": start}, {"x": (0.1, 0.01)})
    keep = torch.tensor([0, 2, 5])
    for i in range(5):
        if i == 3:
            cut.rows("x", keep)
        rows = everything if i < 3 else keep
        ((cut.tensors["x"] - targets[rows]) ** 2).sum().backward()
        cut.step(i / 10)
    torch.testing.assert_close(cut.tensors["x"], whole.tensors["x"][keep])
    grown = cut.rows("x", torch.arange(3), torch.ones(2, 2))
    assert grown.shape == (5, 2)
    assert grown.requires_grad
