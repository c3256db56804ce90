"""Configuration: the paper's defaults, profiles that load, and errors that name the field."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from gaussianverse.atlas.configuration import ConfigError, from_table
from gaussianverse.fitter.config import FitConfig, load_fit_config, load_profile


@pytest.mark.parametrize("profile", ["paper", "fast", "cpu", "quick", "fixed", "unbounded", "test"])
def test_shipped_profiles_load(profile: str) -> None:
    config = from_table(FitConfig, load_profile(profile)["fit"])
    assert from_table(FitConfig, asdict(config)) == config


def test_the_paper_profile_is_the_papers() -> None:
    config = from_table(FitConfig, load_profile("paper")["fit"])
    assert (config.k, config.tau, config.steps, config.initial_anchors) == (4, 36864, 20_000, 9216)
    assert (config.loss.l1, config.loss.ssim, config.loss.lpips, config.loss.volume) == (0.8, 0.2, 0.02, 0.01)
    assert (config.model, config.bake_at, config.ranking, config.loss.lpips_net) == (
        "anchors", 1.0, "gaussian+anchor", "vgg",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"taus": 3}, "has no field 'taus'"),
        ({"tau": 0}, "tau is 0, expected a whole number of at least 1"),
        ({"min_psnr": float("nan")}, "min_psnr is nan"),
        ({"growth": {"cells": [16.9, 4]}}, "expected at least one whole number"),
        ({"growth": {"adjust_from": 0.9, "adjust_until": 0.1}}, "adjust_from <= adjust_until"),
        ({"growth": {"adjust_until": 5.0}}, "growth.adjust_until is 5.0, expected a fraction"),
        ({"growth": {"success": -1.0}}, "growth.success is -1.0"),
        ({"rates": {"means": [float("inf"), 1.0]}}, "expected two numbers"),
        ({"loss": {"lpips_weights": "vgg.pth"}}, "expected an absolute path"),
        ({"tau": "many"}, r"fit\.tau is 'many', expected int"),
        ({"model": "mesh"}, "model is 'mesh', expected one of anchors, plain"),
        ({"heldout_every": 1}, "leaves no training views"),
        ({"heldout": "val"}, "heldout is 'val', expected one of every, test"),
        ({"counts": {"exact": True, "epsilon": 1e-5}}, "counts.exact is true and counts.epsilon above 0"),
        ({"counts": {"exact": True}, "tau": 9}, "tau 9 is below min_gaussians, 16"),
        ({"counts": {"exact": 1}}, "counts.exact is 1, expected bool"),
        ({"bake_at": 1.5}, "bake_at is 1.5"),
        ({"growth": {"cells": [16, 0]}}, "expected at least one whole number"),
        ({"growth": 3}, r"expected a table \[fit.growth\]"),
        ({"loss": {"lpips_net": "resnet"}}, "loss.lpips_net is 'resnet'"),
        ({"loss": {"l2": -1.0}}, "loss.l2 is -1.0"),
        ({"loss": {"l2_from": 1.1}}, "loss.l2_from is 1.1"),
        ({"average": 2.0}, "average is 2.0"),
        ({"loss": {"lpips_every": 0}}, "loss.lpips_every is 0"),
        ({"loss": {"lpips_crop": -1}}, "loss.lpips_crop is -1"),
        ({"rates": {"means": [1.0]}}, "expected two numbers"),
    ],
)
def test_impossible_values_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_table(FitConfig, values, "fit")


def test_missing_and_broken_profiles_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="no profile 'gpu'; expected one of cpu, fast, fixed, paper, quick, test, unbounded"
    ):
        load_profile("gpu")
    (tmp_path / "mine.toml").write_text("[fit\n")
    with pytest.raises(ConfigError, match="not a TOML file"):
        load_profile(tmp_path / "mine.toml")


def test_a_table_in_the_wrong_place_is_named(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    for text, fault in (
        ("[growth]\nvoxel = 1.0\n", r"no table \[growth\]"),
        ("fit = 3\n", r"no table \[fit\]"),
        ("[run]\nseed = 1\n", r"no table \[fit\]"),
    ):
        own.write_text(text)
        with pytest.raises(ConfigError, match=fault):
            load_fit_config(own)
    assert load_fit_config("quick").size == 256
