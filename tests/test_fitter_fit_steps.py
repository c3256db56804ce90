"""Single steps of a fit: their times, inputs and results."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from analytic import ball_views

from gaussianverse.atlas.configuration import from_table
from gaussianverse.fitter import fit as module
from gaussianverse.fitter import plain_fit, plain_training
from gaussianverse.fitter.anchors import Decoded, make_anchors
from gaussianverse.fitter.config import FitConfig, GrowthConfig, load_profile
from gaussianverse.fitter.errors import NanLoss
from gaussianverse.fitter.fit import fit_object
from gaussianverse.fitter.frame import frame_of
from gaussianverse.fitter.growth import Statistics
from gaussianverse.fitter.initial import camera_extent, random_points
from gaussianverse.fitter.metrics import measure
from gaussianverse.fitter.optimizer import RowAdam
from gaussianverse.fitter.plain import Plain
from gaussianverse.fitter.plain_training import PlainTraining
from gaussianverse.fitter.rasterize.limits import ALPHA_MIN
from gaussianverse.fitter.scene import make_scene
from gaussianverse.fitter.training import Training
from gaussianverse.fitter.views import split_heldout

GROWTH = {"statistics_from": 0.1, "adjust_from": 0.3, "adjust_until": 0.7, "adjust_every": 5}


def config(**changes: Any) -> FitConfig:
    small = {
        "size": 12,
        "start_size": 0,
        "heldout_every": 0,
        "steps": 40,
        "min_gaussians": 1,
        "init": "random",
        "growth": GROWTH,
    }
    return from_table(FitConfig, {**load_profile("test")["fit"], **small, **changes})


@pytest.mark.parametrize(
    ("bake_at", "views", "observed", "adjusted"),
    [
        (1.0, 4, [*range(4, 28), *range(35, 40)], [14, 19, 24]),
        (1.0, 7, [*range(4, 28), *range(33, 40)], [14, 19, 24]),  # every view once more before the last ranking
        (0.5, 4, [*range(4, 20)], [14]),  # baked after step 19, where an adjust step would be lost
        (0.75, 4, [*range(4, 30)], [14, 19, 24]),
    ],
)
def test_when_anchors_are_observed_and_adjusted(
    bake_at: float, views: int, observed: list[int], adjusted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, seen, changed = [-1], list[int](), list[int]()
    observe, adjust = module.observe, module._adjust
    monkeypatch.setattr(module, "observe", lambda *given: (seen.append(now[0]), observe(*given)))
    monkeypatch.setattr(module, "_adjust", lambda *given: (changed.append(now[0]), adjust(*given))[1])
    c = config(bake_at=bake_at)
    fit_object(ball_views(views, 12), c, progress=lambda done, *_: now.__setitem__(0, done - 1))
    assert now == [39]
    assert seen == observed
    assert changed == adjusted


@pytest.mark.parametrize(
    ("every", "bake_at", "relocated"),
    [(4, 0.25, [13, 17, 21, 25, 29, 33]), (5, 0.5, [24, 29, 34]), (4, 0.5, [23, 27, 31, 35]), (0, 0.5, [])],
)
def test_plain_gaussians_are_relocated_in_the_first_four_fifths_by_their_mean_gradient(
    every: int, bake_at: float, relocated: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, changed, means = [-1], list[int](), set[float]()
    relocate = plain_fit._relocate

    def watched(trained: PlainTraining, *more: Any, **named: Any) -> None:
        changed.append(now[0])
        gradient = trained.mean_gradient()
        assert len(gradient) == len(trained.plain())
        means.update(gradient.tolist())
        relocate(trained, *more, **named)

    monkeypatch.setattr(plain_fit, "_relocate", watched)
    monkeypatch.setattr(plain_fit, "plain_training", plain_training.ByAutograd)
    monkeypatch.setattr(plain_training, "screen_gradient", lambda means2d, *_: torch.full(means2d.shape[:2], 0.75))
    c = config(relocate_every=every, bake_at=bake_at)
    fit_object(ball_views(4, 12), c, progress=lambda done, *_: now.__setitem__(0, done - 1))
    assert changed == relocated
    # 0.75 in each view that drew the Gaussian, so 0.75 in the mean; 0 if no view drew it
    assert means <= {0.0, 0.75}
    assert (0.75 in means) == bool(relocated)


def test_rates_decay_over_the_whole_fit_and_lengths_go_with_the_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[tuple[dict[str, tuple[float, float]], list[float]]]()

    class Watched(RowAdam):
        def __init__(self, tensors: Any, rates: Any) -> None:
            super().__init__(tensors, rates)
            made.append((dict(rates), []))

        def step(self, progress: float) -> None:
            made[-1][1].append(progress)
            super().step(progress)

    monkeypatch.setattr(module, "RowAdam", Watched)
    monkeypatch.setattr(plain_training, "RowAdam", Watched)
    monkeypatch.setattr(plain_fit, "plain_training", plain_training.ByAutograd)
    views, c = ball_views(5, 12, distance=2.5), config(bake_at=0.25)
    fit_object(views, c)
    extent = camera_extent(frame_of(views).views(views))
    assert abs(extent - 1) > 0.1
    (anchors, first), (plain, second) = made
    assert [*first, *second] == [step / 40 for step in range(40)]
    assert len(first) == 10
    rates = dataclasses.asdict(c.rates)
    for name, pair in {**anchors, **plain}.items():
        head = name.rpartition("_")[0] + "_head"
        expected = np.array(rates[name if name in rates else head]) * (extent if name in ("offsets", "means") else 1)
        assert pair == pytest.approx(tuple(expected))
    assert len(anchors) == 3 + 3 * 4
    assert set(plain) == set(Plain.NAMES)


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"tau": 50, "initial_anchors": 200}, 13),  # of 4 offsets each
        ({"tau": 52, "initial_anchors": 200}, 13),
        ({"tau": 500, "initial_anchors": 20}, 20),
        ({"model": "plain", "tau": 50, "initial_anchors": 200}, 50),
        ({"model": "plain", "tau": 500, "initial_anchors": 20}, 20),
    ],
)
def test_no_more_is_started_with_than_the_bound_has_room_for(
    changes: dict[str, Any], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[int]()

    def watched(views: Any, count: int, rng: Any) -> Any:
        asked.append(count)
        return random_points(views, count, rng)

    monkeypatch.setitem(module.INITIAL, "random", watched)
    fit = fit_object(ball_views(4, 12), config(steps=2, **changes))
    assert asked == [count]
    assert fit.stats["n_anchors"] == (0 if "model" in changes else count)


def test_an_adjust_step_carries_the_statistics_over_and_leaves_no_empty_anchor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    g = torch.Generator().manual_seed(0)
    anchors = make_anchors(torch.rand((5, 3), generator=g), torch.ones(5), 2, 8, g)
    added = make_anchors(torch.rand((2, 3), generator=g), torch.ones(2), 2, 8, g)
    fresh = {
        name: getattr(added, name).detach() for name in ("positions", "alive", "offsets", "features", "scalings")
    }
    statistics = Statistics.empty(anchors)
    statistics.seen += torch.arange(1.0, 6)
    for name in ("visibility", "gradient", "drawn"):
        getattr(statistics, name)[:] = torch.rand((5, 2), generator=g)
    keep = torch.tensor([True, False, True, True, False])
    monkeypatch.setattr(module, "grow", lambda *_: fresh)
    monkeypatch.setattr(module, "survivors", lambda *_: keep)
    handed = list[Any]()

    def bounded(anchors: Any, statistics: Any) -> Any:
        handed.append((anchors.positions.clone(), statistics))
        alive = anchors.alive.clone()
        alive[1], alive[3, 0] = False, False
        return dataclasses.replace(anchors, alive=alive)

    training = SimpleNamespace(config=SimpleNamespace(growth=GrowthConfig()), generator=g, bounded=bounded)
    adam = RowAdam(anchors.parameters(), dict.fromkeys(anchors.parameters(), (0.1, 0.1)))
    after = module._adjust(anchors, statistics, adam, training)  # type: ignore[arg-type]
    ((positions, carried),) = handed
    assert positions.tolist() == [*anchors.positions[keep].tolist(), *fresh["positions"].tolist()]
    for name in ("seen", "visibility", "gradient", "drawn"):
        assert getattr(carried, name)[:3].tolist() == getattr(statistics, name)[keep].tolist()
        assert not getattr(carried, name)[3:].any()
    rows = torch.tensor([0, 2, 3, 4])  # of 5, the second is empty
    assert after.positions.tolist() == positions[rows].tolist()
    assert after.alive.tolist() == [[True, True], [True, True], [False, True], [True, True]]
    for name in ("offsets", "features", "scalings"):
        whole = torch.cat([getattr(anchors, name).detach()[keep], fresh[name]])
        assert getattr(after, name).tolist() == whole[rows].tolist()
        assert getattr(after, name) is adam.tensors[name]


def test_relocation_ends_the_dead_and_halves_the_steepest_without_a_history() -> None:
    g = torch.Generator().manual_seed(0)
    start = Plain(
        torch.randn((6, 3), generator=g), torch.randn((6, 3), generator=g) - 3, torch.randn((6, 4), generator=g),
        torch.tensor([2.0, -9.0, 1.0, 0.0, -9.0, 3.0]), torch.rand((6, 3), generator=g),
    )  # fmt: skip
    trained = plain_training.ByAutograd(
        Training(ball_views(4, 12), config(), 0, None, None), start, dict.fromkeys(Plain.NAMES, (0.01, 0.01))
    )
    adam, plain = trained._adam, trained.plain()
    sum(tensor.square().sum() for tensor in adam.tensors.values()).backward()  # type: ignore[union-attr]
    adam.step(0.0)
    before = {name: getattr(plain, name).detach().clone() for name in Plain.NAMES}
    gradient = torch.tensor(
        [0.1, 9.0, 0.5, 0.2, 9.0, 0.4]
    )  # dead Gaussians are never split, even with a large gradient
    trained._gradient = gradient
    plain_fit._relocate(trained, config(tau=6))
    after = trained.plain()
    assert len(after) == 6
    kept, parents = torch.tensor([0, 2, 3, 5]), {2: (1, 4), 5: (3, 5)}
    for name in Plain.NAMES:
        found, moment = getattr(after, name).detach(), adam._adam.state[adam.tensors[name]]["exp_avg"]
        whole = [place for place, row in enumerate(kept.tolist()) if row not in parents]
        assert found[whole].tolist() == before[name][kept[whole]].tolist()
        assert moment[whole].any()
        for row, (first, second) in parents.items():
            if name == "means":
                torch.testing.assert_close((found[first] + found[second]) / 2, before[name][row])
                assert (found[first] - found[second]).norm() > 0
            elif name != "log_scales":
                assert found[first].tolist() == found[second].tolist() == before[name][row].tolist()
            assert not moment[[first, second]].any()


def decoded(opacities: list[float], **changes: torch.Tensor) -> Decoded:
    count = len(opacities)
    fields = {
        "means": torch.arange(3.0 * count).reshape(count, 3),
        "quats": torch.tensor([[-2.0, 0, 0, 0]]).repeat(count, 1),
        "scales": torch.full((count, 3), 0.1),
        "opacities": torch.tensor(opacities),
        "colors": torch.full((count, 3), 0.5),
    }
    return Decoded(**{**fields, **changes}, source=torch.arange(count))


def test_what_is_finished_can_be_seen_and_is_the_most_opaque_in_its_order() -> None:
    least = float(ALPHA_MIN)
    flat = torch.full((5, 3), 0.1)
    flat[3, 1] = 0
    given = decoded([0.5, least, 0.999 * least, 0.9, 0.7], scales=flat)
    assert module._finished(given, 9).means[:, 0].tolist() == [0, 3, 12]
    assert module._finished(given, 3).means[:, 0].tolist() == [0, 3, 12]
    assert module._finished(given, 2).means[:, 0].tolist() == [0, 12]
    assert module._finished(decoded([0.5, 0.6, 0.5, 0.5]), 3).means[:, 0].tolist() == [0, 3, 6]
    assert module._finished(given, 9).quats.tolist() == [[1, 0, 0, 0]] * 3


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "colors"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_is_never_handed_out(name: str, value: float) -> None:
    given = decoded([0.5, 0.5, 0.5])
    getattr(given, name)[1].fill_(value)
    with pytest.raises(NanLoss, match=f"{name} of 1 of 3 Gaussians are not finite"):
        module._finished(given, 9)


def test_what_a_fit_says_of_itself_is_what_it_measures_again() -> None:
    views = ball_views(8, 24)
    fit = fit_object(views, config(size=24, heldout_every=4, steps=60))
    s, g = fit.stats, fit.gaussians
    train, heldout = split_heldout(views, 4)
    assert (s["n_views"], s["n_heldout"], s["n_blank"], s["steps"]) == (len(train), len(heldout), 0, 60)
    again = measure(g, make_scene(heldout, torch.device("cpu")), "cpu")
    # the fit measures in its own frame; in the views' world the numbers differ a little, since the renderer has
    # fixed lengths
    assert s["psnr"] == pytest.approx(np.mean(again.psnr), abs=0.01)
    assert s["psnr_min"] == pytest.approx(min(again.psnr), abs=0.01)
    assert s["ssim"] == pytest.approx(np.mean(again.ssim), abs=1e-3)
    assert s["ssim_min"] == pytest.approx(min(again.ssim), abs=1e-3)
    assert s["psnr_min"] < s["psnr"]
    assert s["ssim_min"] < s["ssim"]
    assert (s["lpips"], s["lpips_max"], s["lpips_sha256"]) == (-1, -1, "")
    for axis, low, high in zip("xyz", g.means.min(0), g.means.max(0), strict=True):
        assert (s[f"bbox_min_{axis}"], s[f"bbox_max_{axis}"]) == (low, high)
