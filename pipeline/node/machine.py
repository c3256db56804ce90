"""Checks that a machine can do the work of a run, by doing a little of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numba.core.errors import NumbaError

from gaussianverse import atlas
from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians, canonical_quats
from gaussianverse.fitter.agreement import check
from gaussianverse.fitter.config import FitConfig
from gaussianverse.fitter.lpips import LpipsUnavailable, load_lpips
from gaussianverse.fitter.photometric import l1_ssim
from gaussianverse.fitter.rasterize import BackendUnavailable, rasterization
from gaussianverse.pipeline.config import RunConfig
from gaussianverse.pipeline.errors import PipelineError, message
from gaussianverse.pipeline.node import gpu


def check_machine(config: FitConfig) -> None:
    """Check that this machine can fit as the configuration says.

    Raises:
        PipelineError: the gsplat backend lacks something (the first fault of `gpu.examine`), or the LPIPS weights
            are missing.
    """
    if config.backend == "gsplat" and (fault := gpu.first_fault()):
        raise PipelineError(
            f"fit.backend is gsplat, which cannot run here: {fault.text}. Or use --profile cpu, or join a cluster "
            "with GPUs by --ray-address"
        )
    if config.loss.lpips_net != "none":
        try:
            load_lpips(config.loss.lpips_net, config.loss.lpips_weights, torch.device("cpu"))
        except LpipsUnavailable as error:
            raise PipelineError(message(error)) from error


def examine_node(config: RunConfig) -> str:
    """Check this machine and compile its kernels; returns why it cannot do the work, or ""."""
    try:
        check_machine(config.fit)
        warm_up(config.fit, config.atlas)
    except PipelineError as error:
        return message(error)
    return ""


def warm_up(config: FitConfig, atlas_config: AtlasConfig) -> None:
    """Run the kernels of fits and atlases once; those of Numba are compiled, so that workers find them in the cache.

    Raises:
        PipelineError: the kernels do not load, do not compile, or cannot run here.
    """
    check_machine(replace(config, loss=replace(config.loss, lpips_net="none")))
    rng = np.random.default_rng(0)
    count = 64
    device = torch.device("cuda" if config.backend == "gsplat" else "cpu")

    def values(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(0.1, 0.4, shape).astype(np.float32)).to(device).requires_grad_()

    viewmats, Ks = torch.eye(4, device=device)[None], torch.eye(3, device=device)[None] * 16
    Ks[:, 2, 2] = 1
    means, quats, scales, colors = values(count, 3), values(count, 4), values(count, 3), values(count, 3)
    opacities = values(count)
    backend = None if config.backend == "auto" else config.backend
    try:
        image, _, _ = rasterization(means, quats, scales, opacities, colors, viewmats, Ks, 16, 16, backend=backend)
        l1, ssim = l1_ssim(image, torch.zeros_like(image))
        (l1 + ssim).backward()  # type: ignore[no-untyped-call]
        fields = [t.detach().cpu().numpy() for t in (means, scales, quats, opacities, colors)]
        fields[2] = canonical_quats(fields[2])
        gaussians = Gaussians(*fields)
        atlas.pack(gaussians, replace(atlas_config, size=8, min_smoothness=0.0))
        squares = np.zeros((2, 8, 8), np.uint8)
        squares[:, 3:5, 3:5] = 255
        check(squares, np.repeat(np.eye(4)[None], 2, 0), np.repeat(np.diag([8.0, 8.0, 1.0])[None], 2, 0))
    except (BackendUnavailable, AtlasError, NumbaError, RuntimeError) as error:  # the last is CUDA's
        raise PipelineError(f"the kernels do not run here: {message(error)}") from error
