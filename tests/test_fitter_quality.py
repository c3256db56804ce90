"""Quality columns of views, against their definitions written out pixel by pixel."""

import dataclasses
import hashlib
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from analytic import ball_views, write_views
from numpy.typing import NDArray

from gaussianverse.atlas.configuration import from_table
from gaussianverse.fitter import fit_object, load_views
from gaussianverse.fitter.config import FitConfig, load_profile
from gaussianverse.fitter.prepare import prepare
from gaussianverse.fitter.quality import quality
from gaussianverse.fitter.views import Views


def posed(images: NDArray[np.uint8]) -> Views:
    views = ball_views(count=len(images), size=images.shape[1])
    return dataclasses.replace(views, images=images)


def by_definition(views: Views) -> dict[str, float]:
    """The three columns in float64, one pixel at a time."""
    inside, per_view = [], []
    for image in views.images / 255.0:
        alpha = image[..., 3]
        grey = image[..., :3] * alpha[..., None] + 0.5 * (1 - alpha[..., None])
        Y = grey @ [0.2126, 0.7152, 0.0722]
        mask = alpha * 255 >= min(128, max(1, alpha.max() * 255 / 2))
        H, W = mask.shape
        magnitudes = []
        for i in range(H):
            for j in range(W):
                if not mask[i, j]:
                    continue
                inside.append(grey[i, j])
                if not (0 < i < H - 1 and 0 < j < W - 1 and mask[i - 1 : i + 2, j - 1 : j + 2].all()):
                    continue
                P = Y[i - 1 : i + 2, j - 1 : j + 2]
                right = (P[:, 2] - P[:, 0]) @ [1, 2, 1] / 8
                down = (P[2] - P[0]) @ [1, 2, 1] / 8
                magnitudes.append((right**2 + down**2) ** 0.5)
        if magnitudes:
            per_view.append(np.mean(magnitudes))
    return {
        "coverage": float(views.images[..., 3].mean() / 255),
        "colour_std": float(np.sqrt(np.var(inside, axis=0).mean())),
        "complexity": float(np.mean(per_view)),
    }


@pytest.mark.parametrize("seed", range(5))
def test_columns_are_as_defined(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (4, 14, 14, 4), np.uint8)
    images[..., 3] = np.where(rng.random((4, 14, 14)) < 0.9, images[..., 3] // 2 + 128, images[..., 3] // 4)
    images[0, 3:12, 2:13, 3] = 255  # a patch with an inner part in any case
    found, expected = quality(posed(images)), by_definition(posed(images))
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=2e-6), name


def test_a_silhouette_alone_is_not_complex_and_detail_is() -> None:
    views = ball_views(count=6, size=48)
    flat = views.images.copy()
    flat[..., :3] = (200, 40, 90)
    plain = quality(posed(flat))
    # half-transparent pixels of the antialiased rim are all that differs
    assert plain["complexity"] < 0.002
    assert plain["coverage"] == quality(views)["coverage"]
    striped = flat.copy()
    striped[:, :, ::4, :3] = striped[:, :, 1::4, :3] = 0
    assert quality(posed(striped))["complexity"] > 0.05 > quality(views)["complexity"] > plain["complexity"]


def test_what_cannot_be_measured_is_unknown() -> None:
    images = np.zeros((3, 16, 16, 4), np.uint8)
    assert quality(posed(images)) == {"coverage": 0.0, "colour_std": -1.0, "complexity": -1.0}
    images[:, 4, 4] = 255  # one pixel is all rim
    found = quality(posed(images))
    assert (found["colour_std"], found["complexity"]) == (0.0, -1.0)


def test_columns_are_over_training_views_at_the_fits_size() -> None:
    views = ball_views(count=12, size=48)
    config = FitConfig(size=24, heldout_every=4)
    prepared = prepare(views, config)
    assert prepared.train.images.shape[:2] == (9, 24)
    stats = {name: prepared.stats[name] for name in ("coverage", "colour_std", "complexity")}
    assert stats == quality(prepared.train)
    assert stats != quality(prepared.heldout)


def test_the_input_has_one_hash_in_any_container(tmp_path: Path) -> None:
    folder = write_views(ball_views(count=6, size=24), tmp_path / "a")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for path in sorted(folder.rglob("*"), reverse=True):
            tar.add(path, arcname=str(path.relative_to(folder)), recursive=False)
    whole = load_views(folder).input_sha256
    assert len(whole) == 64
    assert load_views(tmp_path / "a.tar").input_sha256 == whole
    assert load_views(folder, size=12).input_sha256 == whole
    assert load_views(folder)[np.arange(3)].input_sha256 == whole


def test_the_hash_is_over_lengths_and_bytes_in_the_order_of_reading(tmp_path: Path) -> None:
    folder = write_views(ball_views(count=4, size=24), tmp_path / "a")
    expected = hashlib.sha256()
    cameras = sorted(folder.glob("transforms*.json"))
    images = sorted(folder.rglob("*.png"))
    for path in [*cameras, *images]:
        data = path.read_bytes()
        expected.update(len(data).to_bytes(8, "little") + data)
    assert load_views(folder).input_sha256 == expected.hexdigest()


def test_every_byte_of_the_input_counts(tmp_path: Path) -> None:
    folder = write_views(ball_views(count=4, size=24), tmp_path / "a")
    hashes = {load_views(folder).input_sha256}
    for path in sorted(folder.rglob("*.*")):
        changed = tmp_path / "b"
        shutil.rmtree(changed, ignore_errors=True)
        shutil.copytree(folder, changed)
        with (changed / path.relative_to(folder)).open("ab") as file:
            file.write(b" ")
        hashes.add(load_views(changed).input_sha256)
    assert len(hashes) == 1 + len(list(folder.rglob("*.*")))


def test_a_fit_says_what_it_was_made_of(tmp_path: Path) -> None:
    views = load_views(write_views(ball_views(count=10, size=24), tmp_path / "a"))
    fit = fit_object(views, from_table(FitConfig, {**load_profile("test")["fit"], "size": 24, "min_psnr": 0.0}))
    assert fit.stats["input_sha256"] == views.input_sha256
    sides = np.ptp(fit.gaussians.means.astype(np.float64), axis=0)
    assert fit.stats["thinness"] == sides.min() / sides.max() > 0
    assert 0 < float(fit.stats["coverage"]) < 1
    assert float(fit.stats["complexity"]) > 0
