import numpy as np
import pytest

from gaussianverse import atlas
from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.gaussians import Gaussians, canonical_quats
from gaussianverse.pipeline.dataset.members import atlas_array
from gaussianverse.pipeline.run.around import FOV, viewmats_around
from gaussianverse.pipeline.run.fidelity import _DIRECTIONS, atlas_psnr


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
