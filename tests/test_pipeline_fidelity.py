import dataclasses

import numpy as np
import pytest
import torch
from analytic import ball_views

from gaussianverse import atlas
from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.configuration import from_table
from gaussianverse.atlas.gaussians import Gaussians, canonical_quats
from gaussianverse.fitter import reduce as reduction
from gaussianverse.fitter.around import FOV, viewmats_around
from gaussianverse.fitter.config import FitConfig, ReduceConfig, load_profile
from gaussianverse.fitter.fit import Fit, fit_object
from gaussianverse.fitter.rasterize import rasterization
from gaussianverse.fitter.reduce import reduce
from gaussianverse.fitter.views import Views
from gaussianverse.pipeline.dataset.members import atlas_array
from gaussianverse.pipeline.run.fidelity import _DIRECTIONS, atlas_heldout_psnr, atlas_psnr


def shell(count: int = 200, seed: int = 0, scale: float = 1.0, centre: float = 0.0) -> Gaussians:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, 3))
    points *= 0.4 * scale / np.linalg.norm(points, axis=1, keepdims=True)
    return Gaussians(
        (points + centre).astype(np.float32),
        (scale * rng.uniform(0.01, 0.05, (count, 3))).astype(np.float32),
        canonical_quats(rng.normal(size=(count, 4))),
        rng.uniform(0.3, 1, count).astype(np.float32),
        rng.uniform(0, 1, (count, 3)).astype(np.float32),
    )


def stored(gaussians: Gaussians, **options: object) -> Gaussians:
    config = AtlasConfig(**{"size": 16, "min_smoothness": 0.0, **options})  # type: ignore[arg-type]
    return atlas.unpack(atlas_array(atlas.pack(gaussians, config).to_bytes(), config), config)


SEEDS = (0, 1, 2)


def test_an_atlas_shows_its_fit() -> None:
    for seed in SEEDS:
        fit = shell(seed=seed)
        assert atlas_psnr(fit, fit) == 100.0
        assert atlas_psnr(fit, stored(fit)) > 90  # measured over seeds 0 to 5: 100
        assert 40 < atlas_psnr(fit, stored(fit, dtype="float16")) < 90  # 49 to 71


@pytest.mark.parametrize("field", ["means", "scales", "quats", "opacities", "colors"])
def test_any_field_that_is_lost_is_seen(field: str) -> None:
    names = ("means", "scales", "quats", "opacities", "colors")
    for seed in SEEDS:
        fit, other = shell(seed=seed), shell(seed=seed + 100)
        mixed = Gaussians(*(getattr(other if name == field else fit, name) for name in names))
        assert atlas_psnr(fit, mixed) < 35  # measured over six seeds: at most 29


def test_what_an_atlas_had_no_room_for_counts_against_it() -> None:
    for seed in SEEDS:
        fit = shell(400, seed)
        assert atlas_psnr(fit, stored(fit, size=16)) < 35  # measured over seeds 0 to 5: 26 to 27


def test_one_missing_gaussian_is_seen_from_some_side() -> None:
    fit = shell()
    for row in range(0, 200, 20):
        # measured over four such objects: at most 66, where an atlas of the whole has 100
        assert atlas_psnr(fit, fit[np.arange(200) != row]) < 80


def test_it_is_the_same_wherever_and_however_large_the_object_is() -> None:
    whole = atlas_psnr(shell(), shell()[:150])
    assert atlas_psnr(shell(scale=8), shell(scale=8)[:150]) == pytest.approx(whole, abs=0.3)
    assert atlas_psnr(shell(centre=2), shell(centre=2)[:150]) == pytest.approx(whole, abs=0.3)
    assert atlas_psnr(shell(), shell()[:150]) == whole


def test_the_whole_object_is_in_every_view() -> None:
    centre, radius = np.array([1, 2, 3], np.float32), 0.7
    rng = np.random.default_rng(0)
    ball = rng.normal(size=(500, 3))
    ball = centre + radius * ball / np.linalg.norm(ball, axis=1, keepdims=True)
    for viewmat in viewmats_around(_DIRECTIONS, centre, radius):
        seen = ball @ viewmat[:3, :3].T + viewmat[:3, 3]
        assert np.linalg.det(viewmat[:3, :3]) == pytest.approx(1, abs=1e-5)
        assert (seen[:, 2] > 0).all()
        tangent = np.linalg.norm(seen[:, :2], axis=1) / seen[:, 2]
        assert np.tan(FOV / 2) * 0.9 < tangent.max() <= np.tan(FOV / 2) * 1.001


def fitted(every: int, unit: float = 1.0, normalise: str = "auto") -> tuple[Fit, FitConfig]:
    table = {
        **load_profile("test")["fit"],
        "size": 32,
        "start_size": 0,
        "steps": 160,
        "tau": 200,
        "initial_anchors": 60,
    }
    config = from_table(FitConfig, {**table, "heldout_every": every, "normalise": normalise})
    views = ball_views(12, 32)
    c2w = views.c2w.copy()
    c2w[:, :3, 3] *= unit
    return fit_object(dataclasses.replace(views, c2w=c2w), config), config


def mean_psnr(gaussians: Gaussians, views: Views) -> float:
    """Mean PSNR on white by its definition, with the oracle of the rasterisers, in float64."""
    found = []
    for image, viewmat, K in zip(views.images, views.viewmats, views.Ks, strict=True):
        rgba = image / 255
        expected = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
        tensors = [
            torch.from_numpy(np.asarray(a, np.float64))
            for a in (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.colors)
        ]
        shown, _, _ = rasterization(
            *tensors, torch.from_numpy(viewmat)[None], torch.from_numpy(K)[None], views.width, views.height,
            backgrounds=torch.ones(1, 3, dtype=torch.float64), backend="reference",
        )  # fmt: skip
        found.append(-10 * np.log10(((shown[0].numpy().clip(0, 1) - expected) ** 2).mean()))
    return float(np.mean(found))


@pytest.mark.parametrize(("rule", "unit"), [("scale", 1.0), ("scale", 300.0), ("refine", 300.0)])
@pytest.mark.parametrize("every", [4, 0])
def test_the_atlass_psnr_is_that_of_the_unpacked_atlas_on_the_fits_own_views(
    every: int, unit: float, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for all Gaussians, without, and rounded; in the object's world, and centred and scaled."""
    monkeypatch.setattr(reduction, "SIZE", 64)
    fit, config = fitted(every, unit)
    assert len(fit.prepared.heldout) == (3 if every else 0)
    views = fit.prepared.measured
    whole, small, rounded = (
        AtlasConfig(size=size, dtype=dtype, min_smoothness=0.0)
        for size, dtype in ((16, "float32"), (8, "float32"), (16, "float16"))
    )
    found = {}
    for name, into in (("whole", whole), ("small", small), ("rounded", rounded)):
        chosen = reduce(fit.gaussians, into.size**2, rule)
        made = atlas.unpack(atlas_array(atlas.pack(chosen, into).to_bytes(), into), into)
        found[name] = atlas_heldout_psnr(fit, config, into, ReduceConfig(rule))
        assert found[name] == pytest.approx(mean_psnr(fit.prepared.recall(made), views), abs=1e-3), name
    assert len(fit.gaussians) > 100
    assert found["whole"] == fit.stats["psnr"]
    lost = {"scale": 0.01, "refine": 0.0}[rule]  # 64 of 200 Gaussians are left
    assert found["small"] < found["whole"] - lost
    assert found["rounded"] != found["whole"]


def test_in_a_world_that_must_be_kept_the_atlas_is_measured_where_the_fit_was() -> None:
    """Lengths of a thousandth would all lie before the near plane."""
    fit, config = fitted(4, 1e-3, "never")
    into = AtlasConfig(size=10, min_smoothness=0.0)
    assert np.abs(fit.gaussians.means).max() < 1e-3
    assert atlas_heldout_psnr(fit, config, into, ReduceConfig()) > 10


def test_without_an_atlas_there_is_no_psnr_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fit, config = fitted(4)
    few = dataclasses.replace(fit, gaussians=fit.gaussians[np.arange(7)])
    into = AtlasConfig(size=16, dtype="float16", min_smoothness=0.0)
    assert atlas_heldout_psnr(few, config, into, ReduceConfig()) == -1
