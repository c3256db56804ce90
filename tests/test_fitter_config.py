"""Configuration: the paper's defaults, profiles that load, and errors that name the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from fitter.config import ConfigError, FitConfig, load_profile


@pytest.mark.parametrize("profile", ["paper", "fast", "cpu", "test"])
def test_shipped_profiles_load(profile: str) -> None:
    config = FitConfig.from_dict(load_profile(profile)["fit"])
    assert FitConfig.from_dict(config.to_dict()) == config


def test_the_paper_profile_is_the_papers() -> None:
    config = FitConfig.from_dict(load_profile("paper")["fit"])
    assert (config.k, config.tau, config.steps, config.initial_anchors) == (4, 36864, 20_000, 9216)
    assert (config.loss.l1, config.loss.ssim, config.loss.lpips, config.loss.volume) == (0.8, 0.2, 0.02, 0.01)
    assert (config.model, config.bake_at, config.ranking, config.loss.lpips_net) == (
        "anchors", 1.0, "gaussian+anchor", "vgg",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"taus": 3}, "has no field 'taus'"),
        ({"tau": 0}, "tau is 0, expected at least 1"),
        ({"tau": "many"}, r"\[fit\] tau is 'many', expected int"),
        ({"model": "mesh"}, "model is 'mesh', expected one of anchors, plain"),
        ({"heldout_every": 1}, "leaves nothing to train on"),
        ({"bake_at": 1.5}, "bake_at is 1.5"),
        ({"growth": {"cells": [16, 0]}}, "no cell has size 0"),
        ({"growth": 3}, r"expected a table \[fit.growth\]"),
        ({"loss": {"lpips_net": "resnet"}}, "loss.lpips_net is 'resnet'"),
        ({"rates": {"means": [1.0]}}, "expected two numbers"),
    ],
)
def test_impossible_values_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FitConfig.from_dict(values)


def test_missing_and_broken_profiles_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no profile 'gpu': expected one of cpu, fast, paper, test"):
        load_profile("gpu")
    (tmp_path / "mine.toml").write_text("[fit\n")
    with pytest.raises(ConfigError, match="not a TOML file"):
        load_profile(tmp_path / "mine.toml")
