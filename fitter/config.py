"""What a fit is told: frozen dataclasses, checked when made, loaded from a profile's TOML file."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MODELS = ("anchors", "plain")
INITS = ("hull", "depth", "random")
RANKINGS = ("gaussian+anchor", "gaussian", "opacity", "random", "none")
LPIPS_NETS = ("none", "vgg", "alex", "squeeze")
BACKGROUNDS = ("random", "white", "black")
BACKENDS = ("auto", "gsplat", "cpu", "reference")
TABLES = ("fit", "atlas", "run", "ray", "policy", "store")
"""Of a profile."""


class ConfigError(ValueError):
    """A configuration value is impossible; the message names the field, the value and what is allowed."""


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(allowed)}")


def _at_least(name: str, value: float, low: float) -> None:
    if not low <= value < math.inf:
        raise ConfigError(f"{name} is {value!r}, expected at least {low}")


def _whole(name: str, value: Any, low: int) -> None:
    if type(value) is not int or value < low:
        raise ConfigError(f"{name} is {value!r}, expected a whole number of at least {low}")


def _fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} is {value!r}, expected a fraction between 0 and 1")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss (paper eq. 2 and A.1): l1 L1 + ssim (1 - SSIM) + lpips LPIPS + volume R."""

    l1: float = 0.8
    ssim: float = 0.2
    lpips: float = 0.02
    volume: float = 0.01
    lpips_net: str = "vgg"
    lpips_weights: str = ""
    """Absolute path of the backbone's state dict; must exist, on every node, unless `lpips_net` is "none"."""

    def __post_init__(self) -> None:
        _choice("loss.lpips_net", self.lpips_net, LPIPS_NETS)
        for name in ("l1", "ssim", "lpips", "volume"):
            _at_least(f"loss.{name}", getattr(self, name), 0)
        if self.lpips_weights and not Path(self.lpips_weights).is_absolute():
            raise ConfigError(
                f"loss.lpips_weights is {self.lpips_weights!r}, expected an absolute path: workers run elsewhere"
            )


@dataclass(frozen=True)
class RateConfig:
    """Adam's learning rates; a pair decays exponentially over the fit. `offsets` and `means` times extent."""

    offsets: tuple[float, float] = (0.01, 1e-4)
    features: tuple[float, float] = (0.0075, 0.0075)
    scalings: tuple[float, float] = (0.007, 0.007)
    opacity_head: tuple[float, float] = (0.002, 2e-5)
    covariance_head: tuple[float, float] = (0.004, 0.004)
    color_head: tuple[float, float] = (0.008, 5e-5)
    # plain Gaussians, after baking or with model = "plain"
    means: tuple[float, float] = (1.6e-3, 1.6e-5)
    log_scales: tuple[float, float] = (0.005, 0.005)
    quats: tuple[float, float] = (0.001, 0.001)
    logits: tuple[float, float] = (0.05, 0.05)
    colors: tuple[float, float] = (0.0025, 0.0025)

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            pair = tuple(float(x) for x in getattr(self, f.name))
            if len(pair) != 2 or not all(0 <= x < math.inf for x in pair):
                raise ConfigError(f"rates.{f.name} is {getattr(self, f.name)!r}, expected two numbers >= 0")
            object.__setattr__(self, f.name, pair)


@dataclass(frozen=True)
class GrowthConfig:
    """When and where anchors are added and removed (Scaffold-GS 3.3), as fractions of the fit's steps."""

    statistics_from: float = 500 / 30000
    adjust_from: float = 1500 / 30000
    adjust_until: float = 0.5
    adjust_every: int = 100
    gradient_threshold: float = 2e-4
    success: float = 0.8
    min_opacity: float = 0.005
    voxel: float = 0.001
    cells: tuple[int, ...] = (16, 4, 1)
    """Sides of the three growth grids, in voxels, coarse to fine."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "cells", tuple(self.cells))
        _whole("growth.adjust_every", self.adjust_every, 1)
        _at_least("growth.voxel", self.voxel, 1e-9)
        for name in ("gradient_threshold", "success", "min_opacity"):
            _at_least(f"growth.{name}", getattr(self, name), 0)
        for name in ("statistics_from", "adjust_from", "adjust_until"):
            _fraction(f"growth.{name}", getattr(self, name))
        if not self.statistics_from <= self.adjust_from <= self.adjust_until:
            raise ConfigError(
                "growth: statistics_from <= adjust_from <= adjust_until is expected, got "
                f"{self.statistics_from!r}, {self.adjust_from!r}, {self.adjust_until!r}"
            )
        if not self.cells or any(type(c) is not int or c < 1 for c in self.cells):
            raise ConfigError(
                f"growth.cells is {self.cells!r}, expected whole numbers >= 1: no cell has size 0"
            )


@dataclass(frozen=True)
class FitConfig:
    """Everything that decides a fit besides its views and seed. Defaults are the paper's (section 3, A.1)."""

    backend: str = "auto"
    size: int = 512
    """The longer side, in pixels, to which views are shrunk; smaller views stay as they are."""
    model: str = "anchors"
    k: int = 4
    """Offsets, so Gaussians, per anchor."""
    tau: int = 192 * 192
    """The bound: at the start, after every adjust step and at the end no more Gaussians than this are alive and
    have opacity > 0. Between two adjust steps a few more may gain opacity."""
    initial_anchors: int = 96 * 96
    init: str = "hull"
    feature_dim: int = 32
    steps: int = 20_000
    bake_at: float = 1.0
    """Fraction of the steps after which anchors are baked into plain Gaussians; 1 = only at the end."""
    relocate_every: int = 0
    """Plain Gaussians only: every so many steps dead ones move to where opacity is; 0 = never."""
    ranking: str = "gaussian+anchor"
    background: str = "random"
    max_alpha: float = 0.999
    start_size: int = 0
    """Resolution of the first `start_until` of the steps; 0 = full resolution from the start."""
    start_until: float = 0.0
    heldout_every: int = 0
    """Hold out every k-th distinct view for the reported metrics; 0 trains on all."""
    min_views: int = 3
    min_gaussians: int = 16
    min_psnr: float = 0.0
    """A fit whose mean PSNR on white is lower is refused."""
    loss: LossConfig = field(default_factory=LossConfig)
    rates: RateConfig = field(default_factory=RateConfig)
    growth: GrowthConfig = field(default_factory=GrowthConfig)

    def __post_init__(self) -> None:
        _choice("backend", self.backend, BACKENDS)
        _choice("model", self.model, MODELS)
        _choice("init", self.init, INITS)
        _choice("ranking", self.ranking, RANKINGS)
        _choice("background", self.background, BACKGROUNDS)
        for name in (
            "size",
            "k",
            "tau",
            "initial_anchors",
            "feature_dim",
            "steps",
            "min_views",
            "min_gaussians",
        ):
            _whole(name, getattr(self, name), 1)
        for name in ("relocate_every", "start_size", "heldout_every"):
            _whole(name, getattr(self, name), 0)
        _at_least("min_psnr", self.min_psnr, 0)
        if self.heldout_every == 1:
            raise ConfigError("heldout_every is 1, which leaves nothing to train on; use 0 or at least 2")
        if not 0 < self.max_alpha < 1:
            raise ConfigError(f"max_alpha is {self.max_alpha!r}, expected between 0 and 1")
        for name in ("bake_at", "start_until"):
            _fraction(name, getattr(self, name))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FitConfig:
        """From the [fit] table of a profile.

        Raises:
            ConfigError: an unknown field, a value of the wrong type, or an impossible one.
        """
        config: FitConfig = _from_dict(cls, values, "fit")
        return config

    def to_dict(self) -> dict[str, Any]:
        """Plain nested values, as `from_dict` takes them and as JSON or TOML can hold them."""
        return dataclasses.asdict(self)


_NESTED = {"loss": LossConfig, "rates": RateConfig, "growth": GrowthConfig}


def _from_dict(cls: type[Any], values: Mapping[str, Any], where: str) -> Any:
    known = {f.name: f for f in dataclasses.fields(cls)}
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"[{where}] has no field {name!r}; it has {', '.join(sorted(known))}")
        if name in _NESTED and cls is FitConfig:
            if not isinstance(value, Mapping):
                raise ConfigError(f"[{where}] {name} is {value!r}, expected a table [{where}.{name}]")
            value = _from_dict(_NESTED[name], value, f"{where}.{name}")
        else:
            value = _typed(f"[{where}] {name}", value, getattr(cls(), name))
        arguments[name] = value
    return cls(**arguments)


def _typed(where: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in value):
            raise ConfigError(f"{where} is {value!r}, expected numbers")
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise ConfigError(f"{where} is {value!r}, expected {type(default).__name__}")
    return value


def profile_path(profile: str | Path) -> Path:
    """The TOML file of a profile: a name that ships (`cpu`, `fast`, `paper`, `test`) or a path to one's own.

    Raises:
        ConfigError: neither exists.
    """
    shipped = Path(__file__).parent / "profiles" / f"{profile}.toml"
    if shipped.is_file():
        return shipped
    if Path(profile).is_file():
        return Path(profile)
    names = ", ".join(sorted(p.stem for p in shipped.parent.glob("*.toml")))
    raise ConfigError(f"no profile {str(profile)!r}: expected one of {names}, or a path to a TOML file")


def load_profile(profile: str | Path) -> dict[str, Any]:
    """The tables of a profile: `fit`, and perhaps others (`TABLES`), which other rooms read.

    Raises:
        ConfigError: no such profile, not TOML, or a table that is none of `TABLES`.
    """
    path = profile_path(profile)
    try:
        tables = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{path}: not a TOML file: {fault}") from fault
    for name, table in tables.items():
        if name not in TABLES or not isinstance(table, dict):
            raise ConfigError(f"{path}: no table [{name}]; a profile has {', '.join(TABLES)}")
    return tables


def load_fit_config(profile: str | Path) -> FitConfig:
    """The [fit] table of a profile.

    Raises:
        ConfigError: as `load_profile` and `FitConfig.from_dict`, or there is no [fit].
    """
    tables = load_profile(profile)
    if "fit" not in tables:
        raise ConfigError(f"{profile_path(profile)}: no table [fit]")
    return FitConfig.from_dict(tables["fit"])
