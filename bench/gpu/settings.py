"""Settings that are compared on a GPU: the two profiles, and `fast` with one lever moved at a time."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from gaussianverse.atlas.configuration import from_table
from gaussianverse.fitter import FitConfig, load_profile

PROFILES = ("fast", "paper")


@dataclasses.dataclass(frozen=True)
class Weights:
    """Files with LPIPS backbones; "" where there is none."""

    vgg: str = ""
    alex: str = ""

    @classmethod
    def of(cls, vgg: Path | None, alex: Path | None) -> Weights:
        """Absolute paths of the files that exist."""
        return cls(*(str(p.absolute()) if p is not None and p.is_file() else "" for p in (vgg, alex)))


def _tables(profile: str) -> dict[str, Any]:
    return {**load_profile(profile)["fit"], "backend": "gsplat", "heldout": "every", "heldout_every": 8}


def profile(name: str, weights: Weights) -> FitConfig:
    """A profile on gsplat with every eighth view held out; LPIPS by the best backbone whose weights are there.

    `paper` asks for VGG. With AlexNet in its place time is not the paper's; without either, quality neither.
    """
    table = _tables(name)
    loss = dict(table["loss"])
    if loss["lpips_net"] != "none":
        net = "vgg" if weights.vgg else "alex" if weights.alex else "none"
        loss |= {"lpips_net": net, "lpips_weights": getattr(weights, net, "")}
    return from_table(FitConfig, {**table, "loss": loss})


def levers(weights: Weights) -> dict[str, FitConfig]:
    """`fast` with one change each, those first that are thought to matter the most."""
    base = _tables("fast")
    changes: dict[str, dict[str, Any]] = {
        "steps_1500": {"steps": 1500},
        "steps_6000": {"steps": 6000},
        "bake_at_0.1": {"bake_at": 0.1},
        "bake_never": {"bake_at": 1.0},
        "full_size_from_the_start": {"start_size": 0, "start_until": 0.0},
        "small_for_half": {"start_until": 0.5},
        "init_random": {"init": "random"},
        "tau_16384": {"tau": 16384, "initial_anchors": 4096},
    }
    made = {name: from_table(FitConfig, {**base, **change}) for name, change in changes.items()}
    made = {"recipe_of_cpu": from_table(FitConfig, _tables("cpu")), **made}
    if weights.alex:
        on = {**base["loss"], "lpips_net": "alex", "lpips_weights": weights.alex}
        for name, more in {
            "lpips_every_step": {},
            "lpips_bf16": {"lpips_bf16": True},
            "lpips_every_4": {"lpips_every": 4},
            "lpips_crop_256": {"lpips_crop": 256},
        }.items():
            made[name] = from_table(FitConfig, {**base, "loss": {**on, **more}})
    return made
