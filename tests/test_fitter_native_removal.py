"""The change that the removal of each Gaussian makes, against renders of the float64 oracle without it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from test_fitter_native import runnable
from test_fitter_native_step import pictures_of, plain, rows, views_of

from gaussianverse.fitter.native import library
from gaussianverse.fitter.native.step import PlainStep
from gaussianverse.fitter.plain import Plain
from gaussianverse.fitter.rasterize import rasterization
from gaussianverse.fitter.scene import make_scene
from gaussianverse.fitter.views import Views


def images(values: Plain, views: Views, backgrounds: np.ndarray) -> torch.Tensor:
    """Renders [V, H, W, 3] in float64 by the dense reference."""
    double = Plain(**{name: tensor.double() for name, tensor in values.parameters().items()})
    decoded = double.decode()
    shown, _, _ = rasterization(
        decoded.means, decoded.quats, decoded.scales, decoded.opacities, decoded.colors,
        torch.from_numpy(views.viewmats), torch.from_numpy(views.Ks), views.width, views.height,
        backgrounds=torch.from_numpy(backgrounds).double(), backend="reference",
    )  # fmt: skip
    return shown


def without(values: Plain, row: int) -> Plain:
    keep = torch.arange(len(values)) != row
    return Plain(**{name: tensor[keep] for name, tensor in values.parameters().items()})


@pytest.mark.parametrize(("width", "height", "seed"), [(32, 24, 0), (21, 30, 1), (24, 24, 2)])
def test_costs_are_the_squared_change_without_each_gaussian(width: int, height: int, seed: int) -> None:
    views, values = views_of(width, height), plain(40, seed)
    # no picture is opaque, or the rule that ends a pixel would let others in
    values = dataclasses.replace(values, logits=values.logits - 2.5)
    backgrounds = np.random.default_rng(seed).random((len(views), 3))
    costs, error = PlainStep(rows(values)).removal_costs(pictures_of(views), backgrounds, 0.999)
    whole = images(values, views, backgrounds)
    references = make_scene(views, torch.device("cpu"))
    wanted = [
        references.composited(torch.tensor([v]), torch.from_numpy(b).float())[0] for v, b in enumerate(backgrounds)
    ]
    assert error == pytest.approx(float((whole - torch.stack(wanted).double()).square().sum()), rel=1e-5)
    expected = [
        float((whole - images(without(values, k), views, backgrounds)).square().sum()) for k in range(len(values))
    ]
    # a Gaussian whose alpha falls below 1/255 in few pixels hides others by as little
    np.testing.assert_allclose(costs, expected, rtol=2e-3, atol=1e-6 * max(expected))
    assert np.ptp(costs) > 0


def test_nothing_is_changed_and_views_add_up() -> None:
    views, values = views_of(40, 32), plain(200, 3)
    step, backgrounds = PlainStep(rows(values)), np.full((3, 3), 0.5)
    pictures = pictures_of(views)
    whole, error = step.removal_costs(pictures, backgrounds, 0.999)
    parts = [step.removal_costs(pictures_of(views[np.array([v])]), backgrounds[:1], 0.999) for v in range(len(views))]
    np.testing.assert_allclose(whole, sum(costs for costs, _ in parts), rtol=1e-12)
    assert error == pytest.approx(sum(each for _, each in parts))
    assert step.steps == 0
    for name, value in step.values.items():
        np.testing.assert_array_equal(value, rows(values)[name])


def test_what_no_view_draws_costs_nothing() -> None:
    views, values = views_of(40, 32), plain(50, 4)
    values.means[:5] += 100
    values.logits[5:10] = -20
    costs, _ = PlainStep(rows(values)).removal_costs(pictures_of(views), np.zeros((3, 3)), 0.999)
    assert (costs[:10] == 0).all()
    assert (costs[10:] > 0).mean() > 0.9


def test_all_instruction_sets_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    views, values = views_of(53, 47), plain(500, 5)
    found = []
    for name in runnable():
        monkeypatch.setattr(library, "kernels", lambda name=name: library.load(name))
        costs, error = PlainStep(rows(values)).removal_costs(pictures_of(views), np.full((3, 3), 0.3), 0.999)
        found.append((costs.tobytes(), error))
    assert len(set(found)) == 1
