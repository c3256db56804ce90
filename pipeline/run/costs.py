"""Seconds per object that were measured once, by profile and device."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

from gaussianverse.atlas.configuration import from_table
from gaussianverse.fitter.config import FitConfig, load_profile

COSTS = "costs.json"
"""Kept seconds by profile and device, beside this module; `bench/costs.py` makes it from results of benchmarks."""
OF_ATLAS, OF_REDUCTION = "", "refine"
"""Entries of `COSTS` for the atlas, and for `reduce` by the rule "refine" of what exceeds its cells."""


@dataclass(frozen=True)
class Cost:
    """Seconds of one object that were measured once."""

    profile: str
    device: str
    seconds: float
    objects: int
    """Objects that the mean is of."""
    source: str
    """File and entry that the number stands in."""
    commit: str
    """Commit of the code that was measured."""


def costs() -> dict[str, Cost]:
    """The kept costs by profile; those of an atlas and of a reduction under `OF_ATLAS` and `OF_REDUCTION`."""
    table = json.loads(files("gaussianverse.pipeline.run").joinpath(COSTS).read_text())
    return {entry["profile"]: Cost(**entry) for entry in table["costs"]}


def cost_of(config: FitConfig) -> Cost | None:
    """The kept cost of a fit with exactly these settings; None if they are those of no profile that was measured."""
    kept = (cost for name, cost in costs().items() if name not in (OF_ATLAS, OF_REDUCTION))
    return next((cost for cost in kept if config == settings_of(cost.profile)), None)


def settings_of(profile: str) -> FitConfig:
    """Settings of the fits of a profile."""
    return from_table(FitConfig, load_profile(profile)["fit"], "fit")
