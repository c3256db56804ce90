"""LPIPS of fits in benchmarks, by AlexNet, where its weights are at hand."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

from bench.objects import SHARED
from gaussianverse.atlas import Gaussians
from gaussianverse.fitter.lpips import load_lpips
from gaussianverse.fitter.metrics import measure
from gaussianverse.fitter.prepare import Prepared
from gaussianverse.fitter.scene import make_scene
from gaussianverse.fitter.views import Views

WEIGHTS = SHARED / "weights" / "alexnet_features.npz"
_CPU = torch.device("cpu")


@cache
def _alexnet() -> Any:
    return load_lpips("alex", str(WEIGHTS), _CPU)[0]


def lpips_on(gaussians: Gaussians, views: Views) -> float | None:
    """Mean LPIPS of views on white, in the frame of the Gaussians; None without weights."""
    if not WEIGHTS.exists():
        return None
    return float(np.mean(measure(gaussians, make_scene(views, _CPU), "cpu", _alexnet()).lpips))


def lpips_of(gaussians: Gaussians, prepared: Prepared) -> float | None:
    """Mean LPIPS of published Gaussians on the views that their fit is measured on; None without weights."""
    return lpips_on(prepared.recall(gaussians), prepared.measured)
