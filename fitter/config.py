"""Configuration of fits: frozen dataclasses, checked when made, loaded from a profile's TOML file."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gaussianverse import foreign
from gaussianverse.atlas.configuration import (
    ConfigError,
    check_at_least,
    check_choice,
    check_fraction,
    check_whole,
    from_table,
)

MODELS = ("anchors", "plain")
INITS = ("hull", "depth", "random")
RANKINGS = ("gaussian+anchor", "gaussian", "opacity", "random", "none")
LPIPS_MIN_SIDE = {"none": 1, "vgg": 16, "alex": 31, "squeeze": 17}
"""Least image side in pixels by backbone; below it, the last layer is empty."""
LPIPS_NETS = tuple(LPIPS_MIN_SIDE)
BACKGROUNDS = ("random", "white", "black")
INPUTS: dict[str, tuple[str, ...]] = {
    "opaque": (),
    "premultiplied": ("mend",),
    "orientation": ("apply",),
    "sizes": (),
    "rounded": (),
}
"""Faults of views that are recognised, and the ways to mend each."""
HELDOUT = ("every", "test")
NORMALISE = ("auto", "never", "always")
POSE_GATES = ("refuse", "warn", "off")
BACKENDS = ("auto", "gsplat", "cpu", "reference")
REDUCTIONS = ("refine", "contribution", "scale")
TABLES = ("fit", "atlas", "reduce", "run", "splats", "ray", "policy", "store")
"""Names of the tables of a profile."""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss (paper eq. 2 and A.1): l1 L1 + ssim (1 - SSIM) + lpips LPIPS + volume R."""

    l1: float = 0.8
    """Weight of the mean absolute difference of renders and views; at least 0."""
    ssim: float = 0.2
    """Weight of 1 - SSIM; at least 0."""
    lpips: float = 0.02
    """Weight of LPIPS, which needs `lpips_weights`; at least 0."""
    volume: float = 0.01
    """Weight of the mean volume of the Gaussians that are drawn, in cubed units of the fit's world; at least 0."""
    l2: float = 0.0
    """Weight of the mean squared difference, which PSNR is of, in the last part of the fit; at least 0;
    0 = none, as in the paper. With it, L1 has half of its weight there."""
    l2_from: float = 0.7
    """Where that part begins, as a fraction of the steps; 0 to 1."""
    lpips_net: str = "vgg"
    """Backbone of LPIPS: "vgg", "alex", "squeeze"; "none" = no LPIPS, in the loss or the metrics."""
    lpips_weights: str = ""
    """Absolute path of the backbone's state dict; must exist on every node unless `lpips_net` is "none"."""
    lpips_every: int = 1
    """LPIPS is in the loss at every n-th step, with n times its weight; at least 1."""
    lpips_crop: int = 0
    """Side in pixels of the random square of the picture that LPIPS in the loss compares; 0 = the whole picture,
    else at least 16 (vgg), 17 (squeeze), 31 (alex)."""
    lpips_bf16: bool = False
    """LPIPS in the loss computes in bfloat16 where torch's autocast holds that safe; reported LPIPS never does."""

    def __post_init__(self) -> None:
        check_choice("loss.lpips_net", self.lpips_net, LPIPS_NETS)
        check_fraction("loss.l2_from", self.l2_from)
        for name in ("l1", "l2", "ssim", "lpips", "volume"):
            check_at_least(f"loss.{name}", getattr(self, name), 0)
        check_whole("loss.lpips_every", self.lpips_every, 1)
        check_whole("loss.lpips_crop", self.lpips_crop, 0)
        least = LPIPS_MIN_SIDE[self.lpips_net]
        if 0 < self.lpips_crop < least:
            raise ConfigError(
                f"loss.lpips_crop is {self.lpips_crop}, and LPIPS with {self.lpips_net} needs at least {least}, or 0"
            )
        if self.lpips_weights and not Path(self.lpips_weights).is_absolute():
            raise ConfigError(
                f"loss.lpips_weights is {self.lpips_weights!r}, expected an absolute path, since workers run in "
                "other folders"
            )


@dataclass(frozen=True)
class RateConfig:
    """Adam's learning rates as (start, end), with exponential decay over the fit.

    `offsets` and `means` are multiplied by the cameras' extent.
    """

    offsets: tuple[float, float] = (0.01, 1e-4)
    """Offsets of Gaussians from their anchors; both at least 0."""
    features: tuple[float, float] = (0.0075, 0.0075)
    """Features of the anchors; both at least 0."""
    scalings: tuple[float, float] = (0.007, 0.007)
    """Logarithms of the anchors' extents; both at least 0."""
    opacity_head: tuple[float, float] = (0.002, 2e-5)
    """Weights of the network that makes opacities of features; both at least 0."""
    covariance_head: tuple[float, float] = (0.004, 0.004)
    """Weights of the network that makes scales and rotations of features; both at least 0."""
    color_head: tuple[float, float] = (0.008, 5e-5)
    """Weights of the network that makes colours of features; both at least 0."""
    means: tuple[float, float] = (1.6e-3, 1.6e-5)
    """Means of plain Gaussians: after baking, or with `model` "plain"; both at least 0."""
    log_scales: tuple[float, float] = (0.005, 0.005)
    """Logarithms of their scales; both at least 0."""
    quats: tuple[float, float] = (0.001, 0.001)
    """Their quaternions; both at least 0."""
    logits: tuple[float, float] = (0.05, 0.05)
    """Logits of their opacities; both at least 0."""
    colors: tuple[float, float] = (0.0025, 0.0025)
    """Their colours; both at least 0."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            pair = tuple(float(x) for x in getattr(self, f.name))
            if len(pair) != 2 or not all(0 <= x < math.inf for x in pair):
                raise ConfigError(f"rates.{f.name} is {getattr(self, f.name)!r}, expected two numbers >= 0")
            object.__setattr__(self, f.name, pair)


@dataclass(frozen=True)
class GrowthConfig:
    """Growing and pruning of anchors (Scaffold-GS 3.3); `*_from` and `*_until` are fractions of the fit's steps."""

    statistics_from: float = 500 / 30000
    """When gradients and visibility begin to be counted; 0 to 1."""
    adjust_from: float = 1500 / 30000
    """When anchors begin to grow and to be pruned; 0 to 1, not before `statistics_from`."""
    adjust_until: float = 0.5
    """When that ends; 0 to 1, not before `adjust_from`."""
    adjust_every: int = 100
    """Steps between two adjustments; at least 1."""
    gradient_threshold: float = 2e-4
    """Least mean gradient by the position on the screen, in half-images, of a Gaussian that asks for a new anchor in
    the coarsest grid; twice that for each finer one; at least 0."""
    success: float = 0.8
    """Share of the steps between two adjustments in which an anchor must have been seen to be judged; at least 0."""
    min_opacity: float = 0.005
    """Least mean opacity, summed over an anchor's Gaussians, below which it is pruned; at least 0."""
    voxel: float = 0.001
    """Side of a voxel, a length in the fit's world; above 0."""
    cells: tuple[int, ...] = (16, 4, 1)
    """Sides of the growth grids, in voxels, coarse to fine; each at least 1."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "cells", tuple(self.cells))
        check_whole("growth.adjust_every", self.adjust_every, 1)
        check_at_least("growth.voxel", self.voxel, 1e-9)
        for name in ("gradient_threshold", "success", "min_opacity"):
            check_at_least(f"growth.{name}", getattr(self, name), 0)
        for name in ("statistics_from", "adjust_from", "adjust_until"):
            check_fraction(f"growth.{name}", getattr(self, name))
        if not self.statistics_from <= self.adjust_from <= self.adjust_until:
            raise ConfigError(
                "growth: statistics_from <= adjust_from <= adjust_until is expected, got "
                f"{self.statistics_from!r}, {self.adjust_from!r}, {self.adjust_until!r}"
            )
        if not self.cells or any(type(c) is not int or c < 1 for c in self.cells):
            raise ConfigError(f"growth.cells is {self.cells!r}, expected at least one whole number, each at least 1")


@dataclass(frozen=True)
class CountConfig:
    """Rules by which the number of plain Gaussians follows the object, below the bound tau."""

    epsilon: float = 0.0
    """Gaussians are pruned whose removal changes the training renders by less than this share of the squared error
    (`plain_fit.worthless`); at least 0; 0 prunes none, and a fit then fills its bound."""
    prune_at: tuple[float, ...] = (0.15, 0.3, 0.45, 0.6)
    """When Gaussians are pruned, as fractions of the fit's steps; each 0 to 1."""
    recycle: float = 0.0
    """Share of the Gaussians with the least blending weight that makes room for splits at each relocation, if their
    weight is under half the median; 0 to 1. Without `epsilon` only at the bound."""
    grow_share: float = 0.1
    """Largest growth at a relocation, as a fraction of the Gaussians; at least 0."""
    grow_until: float = 0.8
    """Fraction of the steps of plain Gaussians after which their number no longer grows; 0 to 1."""
    exact: bool = False
    """The result has exactly tau Gaussians: where the last step leaves fewer visible, the most opaque are doubled."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "prune_at", tuple(float(share) for share in self.prune_at))
        check_at_least("counts.epsilon", self.epsilon, 0)
        if self.exact and self.epsilon > 0:
            raise ConfigError("counts.exact is true and counts.epsilon above 0, which prunes; set one of them")
        check_at_least("counts.grow_share", self.grow_share, 0)
        for name in ("recycle", "grow_until"):
            check_fraction(f"counts.{name}", getattr(self, name))
        for share in self.prune_at:
            check_fraction("counts.prune_at", share)


@dataclass(frozen=True)
class ReduceConfig:
    """Reduction of an object that has more Gaussians than its atlas has cells."""

    rule: str = "scale"
    """"refine" keeps what changes renders of all Gaussians the most, and trains it on these renders; "contribution"
    keeps those with the most blending weight in them; "scale" those with the largest mean scale (paper B.1)."""

    def __post_init__(self) -> None:
        check_choice("reduce.rule", self.rule, REDUCTIONS)


@dataclass(frozen=True)
class InputsConfig:
    """What is done with views that are wrong in a way that can be recognised.

    Each can be refused by name, or kept as it is where the recognition is mistaken.
    """

    opaque: str = "refuse"
    """Alpha is 255 in every pixel of every view, or inverted, so that the background belongs to the object: "refuse",
    "keep"."""
    premultiplied: str = "mend"
    """Colours are multiplied by alpha, so that rims are too dark: "mend" divides them, "refuse", "keep"."""
    orientation: str = "refuse"
    """An image has an EXIF orientation, by which viewers turn it: "refuse", "apply" turns it, "keep" does not."""
    sizes: str = "refuse"
    """Width and height in a camera's file have another ratio than the image, or are swapped: "refuse", "keep" scales
    both axes by themselves."""
    rounded: str = "refuse"
    """Camera positions were rounded to float32 so far from the origin that they jump: "refuse", "keep"."""

    def __post_init__(self) -> None:
        for name, mends in INPUTS.items():
            check_choice(f"inputs.{name}", getattr(self, name), ("refuse", *mends, "keep"))


@dataclass(frozen=True)
class FitConfig:
    """Configuration of a fit; it determines the result together with views and seed.

    Defaults are the paper's (section 3, A.1).
    """

    backend: str = "auto"
    """Rasteriser: "gsplat" on an NVIDIA GPU, "cpu", "reference" (slow, for tests); "auto" = gsplat where there is a
    GPU, else cpu."""
    size: int = 512
    """Longer side, in pixels, to which views are shrunk; smaller views stay as they are; at least 1."""
    model: str = "anchors"
    """"anchors" grow Gaussians from anchors by small networks, as in the paper; "plain" trains Gaussians
    themselves."""
    k: int = 4
    """Offsets, and therefore Gaussians, per anchor; at least 1."""
    tau: int = 192 * 192
    """The bound: largest number of alive Gaussians with opacity > 0 at the start, after every adjust step and at the
    end; at least 1. Between two adjust steps a few more may gain opacity."""
    initial_anchors: int = 96 * 96
    """Number of initial anchors or plain Gaussians; at least 1, and no more than `tau` leaves room for."""
    init: str = "hull"
    """Initial positions: "hull", in the visual hull of the silhouettes; "depth", by depth maps; "random"."""
    feature_dim: int = 32
    """Length of an anchor's features; at least 1."""
    steps: int = 20_000
    """Training steps; at least 1."""
    bake_at: float = 1.0
    """Fraction of the steps after which anchors are baked into plain Gaussians; 0 to 1; 1 = at the end."""
    relocate_every: int = 0
    """Plain Gaussians only: number of steps between relocations of dead Gaussians; 0 = never."""
    average: float = 0.0
    """Plain Gaussians only: share of the steps, at the end, over which their values are averaged; 0 to 1; 0 = not."""
    ranking: str = "gaussian+anchor"
    """Which Gaussians stay where there are more than `tau`: "gaussian+anchor" (the paper), "gaussian", "opacity",
    "random"; "none" = the first."""
    background: str = "random"
    """Background of views and renders in the loss: "random" per step, "white", "black"."""
    max_alpha: float = 0.999
    """Largest alpha of one Gaussian in a pixel; above 0 and below 1."""
    start_size: int = 0
    """Longer side, in pixels, of views in the first `start_until` of the steps; 0 = full resolution."""
    start_until: float = 0.0
    """Fraction of the steps after which views have full resolution; 0 to 1."""
    heldout: str = "every"
    """Which views are held out for the reported metrics: "every" `heldout_every`-th, or "test", the data's own test
    split (transforms_test.json), as published figures do; an object without one is refused."""
    heldout_every: int = 0
    """Hold out every k-th distinct view; 0 trains on all, 1 is refused. Not used where `heldout` is "test"."""
    normalise: str = "auto"
    """Which objects are published centred and scaled: "auto", those whose world is unlike GObjaverse's; or "never",
    "always"."""
    min_views: int = 3
    """Least number of views of an object; one with fewer is refused; at least 1."""
    pose_gate: str = "refuse"
    """Before a fit, ask whether cameras and silhouettes agree: "refuse" views that do not and leave out single wrong
    ones; "warn" fits all and only records what is wrong; "off" does not ask."""
    max_bad_views: float = 0.25
    """Largest share of an object's views that may be broken or contradict the others; they are left out; 0 to 1."""
    compared_views: int = 0
    """Number of views, evenly spaced among those with depth and normals, in which these are read and compared with
    each other and with the mask (columns `normal_agreement`, `mask_agreement`); 0 = none."""
    min_gaussians: int = 16
    """Least number of Gaussians of a fit; one with fewer is refused; at least 1."""
    min_psnr: float = 0.0
    """Least mean PSNR on white, in dB; a worse fit is refused; at least 0."""
    inputs: InputsConfig = field(default_factory=InputsConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    rates: RateConfig = field(default_factory=RateConfig)
    growth: GrowthConfig = field(default_factory=GrowthConfig)
    counts: CountConfig = field(default_factory=CountConfig)

    def __post_init__(self) -> None:
        check_choice("backend", self.backend, BACKENDS)
        check_choice("model", self.model, MODELS)
        check_choice("init", self.init, INITS)
        check_choice("ranking", self.ranking, RANKINGS)
        check_choice("pose_gate", self.pose_gate, POSE_GATES)
        check_choice("heldout", self.heldout, HELDOUT)
        check_choice("background", self.background, BACKGROUNDS)
        check_choice("normalise", self.normalise, NORMALISE)
        for name in (
            "size", "k", "tau", "initial_anchors", "feature_dim", "steps", "min_views", "min_gaussians",
        ):  # fmt: skip
            check_whole(name, getattr(self, name), 1)
        for name in ("relocate_every", "start_size", "heldout_every", "compared_views"):
            check_whole(name, getattr(self, name), 0)
        check_at_least("min_psnr", self.min_psnr, 0)
        if self.heldout_every == 1:
            raise ConfigError("heldout_every is 1, which leaves no training views; use 0 or at least 2")
        if not 0 < self.max_alpha < 1:
            raise ConfigError(f"max_alpha is {self.max_alpha!r}, expected between 0 and 1")
        for name in ("bake_at", "average", "start_until", "max_bad_views"):
            check_fraction(name, getattr(self, name))
        if self.counts.exact and self.tau < self.min_gaussians:
            raise ConfigError(
                f"counts.exact is true and tau {self.tau!r} is below min_gaussians, {self.min_gaussians!r}"
            )


def profile_path(profile: str | Path) -> Path:
    """Find the TOML file of a shipped profile, such as `quick`, or at a path.

    Raises:
        ConfigError: there is neither.
    """
    shipped = Path(__file__).parent / "profiles" / f"{profile}.toml"
    if shipped.is_file():
        return shipped
    if Path(profile).is_file():
        return Path(profile)
    names = ", ".join(sorted(p.stem for p in shipped.parent.glob("*.toml")))
    raise ConfigError(f"no profile {str(profile)!r}; expected one of {names}, or a path to a TOML file")


def load_profile(profile: str | Path) -> dict[str, Any]:
    """Read all tables of a profile, without a check of their values.

    Raises:
        ConfigError: there is no such profile, it is not TOML, or a table is not one of `TABLES`.
    """
    path = profile_path(profile)
    try:
        tables = tomllib.loads(foreign.read_text(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error
    for name, table in tables.items():
        if name not in TABLES or not isinstance(table, dict):
            raise ConfigError(f"{path}: no table [{name}]; a profile has {', '.join(TABLES)}")
    return tables


def load_fit_config(profile: str | Path) -> FitConfig:
    """Read the [fit] table of a profile.

    Raises:
        ConfigError: as `load_profile` and `from_table` raise, or there is no table [fit].
    """
    tables = load_profile(profile)
    if "fit" not in tables:
        raise ConfigError(f"{profile_path(profile)}: no table [fit]")
    return from_table(FitConfig, tables["fit"], "fit")
