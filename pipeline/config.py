"""`RunConfig`: the configuration of a run, from one TOML profile and `--set section.key=value` overrides.

`fit`, `atlas`, `reduce`, `run` and `splats` determine the bytes: they are the run's identity, hashed into run.json,
and are fixed for an output. `ray`, `policy` and `store` say how the work is done and may differ between two calls.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.configuration import ConfigError, check_at_least, check_choice, check_whole, from_table
from gaussianverse.atlas.dataset_format import MAX_VIEWS
from gaussianverse.atlas.interchange.activation import ACTIVATED
from gaussianverse.atlas.plane import pinned
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.fitter.config import FitConfig, ReduceConfig, load_profile
from gaussianverse.pipeline.policy import PolicyConfig


@dataclass(frozen=True)
class RunSettings:
    """Shards, seed and reference views."""

    shard_size: int = 256
    """Objects per shard; at least 1; a manifest in run form has its own."""
    seed: int = 0
    """Seed of the fits, from which each object's own is made; a whole number."""
    views: int = 0
    """Reference views per object, in shards of their own; 0 to 99; 0 = none."""
    views_size: int = 0
    """Side of the reference views in pixels; 0 = that of the fit (`fit.size`)."""

    def __post_init__(self) -> None:
        check_whole("run.shard_size", self.shard_size, 1)
        check_whole("run.views", self.views, 0, MAX_VIEWS)
        if self.views_size < 0 or (self.views_size and not self.views):
            raise ConfigError(f"run.views_size is {self.views_size}, expected at least 0, and 0 without run.views")

    def identity(self) -> dict[str, Any]:
        """The settings for run.json; without views, their options are left out and do not change the digest."""
        table = dataclasses.asdict(self)
        return table if self.views else {n: v for n, v in table.items() if not n.startswith("views")}


BAKE, DC = "bake", "dc"


@dataclass(frozen=True)
class SplatsConfig:
    """Objects that already are Gaussians."""

    sh: str = BAKE
    """Treatment of view-dependent colour: "bake" finds the colour that looks most like it from all around, "dc"
    takes the constant spherical harmonic."""
    min_sh_psnr: float = 0.0
    """An object is quarantined whose renders without view-dependent colour have a lower PSNR against those with it,
    in dB; at least 0."""
    activated: str = "auto"
    """Whether opacities and scales are activated already: "yes", "no"; "auto" takes no and refuses what looks like
    yes."""

    def __post_init__(self) -> None:
        check_choice("splats.sh", self.sh, (BAKE, DC))
        check_choice("splats.activated", self.activated, ACTIVATED)
        check_at_least("splats.min_sh_psnr", self.min_sh_psnr, 0)

    def identity(self) -> dict[str, Any]:
        """The settings that differ from the defaults, so that these do not change the digest of a run of fits."""
        default = SplatsConfig()
        return {n: v for n, v in dataclasses.asdict(self).items() if v != getattr(default, n)}


@dataclass(frozen=True)
class RayConfig:
    """Ray cluster or machine, and resources per task."""

    workers: int = 0
    """Cores to use on this machine; at least 0; 0 = all. Not used with `address`."""
    address: str = ""
    """Cluster to join; "" starts Ray on this machine, on 127.0.0.1."""
    gpus_per_fit: float = -1.0
    """A whole number or a fraction; -1 = one for the gsplat backend and none otherwise."""
    max_calls: int = 32
    """Fits after which a GPU worker process is replaced; at least 1."""
    object_store_mb: int = 150
    """Ray's object store on this machine, in MB; at least 80. Not used with `address`."""

    def __post_init__(self) -> None:
        for name, low in (("workers", 0), ("max_calls", 1), ("object_store_mb", 80)):
            check_whole(f"ray.{name}", getattr(self, name), low)


@dataclass(frozen=True)
class RunConfig:
    """All tables of a profile."""

    fit: FitConfig = field(default_factory=FitConfig)
    atlas: AtlasConfig = field(default_factory=AtlasConfig)
    reduce: ReduceConfig = field(default_factory=ReduceConfig)
    run: RunSettings = field(default_factory=RunSettings)
    splats: SplatsConfig = field(default_factory=SplatsConfig)
    ray: RayConfig = field(default_factory=RayConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    store: StoreOptions = field(default_factory=StoreOptions)

    def identity(self) -> dict[str, Any]:
        """The tables that determine the bytes, as JSON values; a file of plane indices is replaced by its hash."""
        tables = {
            "fit": dataclasses.asdict(self.fit),
            "atlas": dataclasses.asdict(pinned(self.atlas)),
            "run": self.run.identity(),
        }
        if splats := self.splats.identity():
            tables["splats"] = splats
        if self.reduce != ReduceConfig():  # so that runs of before this rule keep their digest
            tables["reduce"] = dataclasses.asdict(self.reduce)
        plain: dict[str, Any] = json.loads(json.dumps(tables))
        return plain

    @property
    def gpus_per_fit(self) -> float:
        """GPUs that one fit asks Ray for."""
        if self.ray.gpus_per_fit >= 0:
            return self.ray.gpus_per_fit
        return 1.0 if self.fit.backend == "gsplat" else 0.0


def digest_of(identity: Mapping[str, Any]) -> str:
    """Hex sha256 of `RunConfig.identity`."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def load(profile: str, overrides: Iterable[str] = ()) -> RunConfig:
    """Load a profile (a shipped name or a path) with overrides such as `fit.steps=500`.

    Raises:
        ConfigError: the profile does not exist, an override is malformed, or a value is not allowed.
    """
    return _overridden(load_profile(profile), overrides)


def load_over(identity: Mapping[str, Any], profile: str | None, overrides: Iterable[str] = ()) -> RunConfig:
    """Load the configuration of an output's next version: that of the output, with other settings where given.

    Args:
        identity: `RunConfig.identity` of the output.
        profile: replaces the tables that it has, but for those of `run`; None = none.
        overrides: such as `fit.steps=500`.

    Raises:
        ConfigError: as `load` raises.
    """
    tables = json.loads(json.dumps(dict(identity)))
    if profile is not None:
        tables |= {name: table for name, table in load_profile(profile).items() if name != "run"}
    return _overridden(tables, overrides)


def _overridden(tables: dict[str, Any], overrides: Iterable[str]) -> RunConfig:
    for override in overrides:
        path, equals, text = override.partition("=")
        *sections, name = path.strip().split(".")
        if not equals or not sections or not name:
            raise ConfigError(f"--set {override!r}: expected section.key=value, such as fit.steps=500")
        table = tables
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise ConfigError(f"--set {override!r}: {section} is a value, not a table")
        table[name] = _value(text.strip())
    return from_table(RunConfig, tables)


def _value(text: str) -> Any:
    """Parse a TOML value; a bare word is a string, so that no quotes are needed in a shell."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
