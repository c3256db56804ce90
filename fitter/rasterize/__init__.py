"""One rasteriser signature, three backends: `gsplat` (CUDA), `cpu` (native), `reference` (float64 oracle)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gaussianverse.fitter.errors import BackendUnavailable as BackendUnavailable

BACKENDS = ("gsplat", "cpu", "reference")
RENDER_MODES = ("RGB", "RGB+D", "RGB+ED")


MAX_ALPHA = 0.999
"""Value that gsplat 1.5 has compiled in."""
_NO_CUDA = (
    "backend 'gsplat' needs a CUDA device and torch finds none; use backend 'cpu' (profile cpu), or install the "
    "CUDA build of torch on a machine with an NVIDIA GPU"
)


@dataclass(frozen=True)
class Drawing:
    """Gaussians, cameras and limits of one call; see `rasterization` for shapes and units."""

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    viewmats: Tensor
    Ks: Tensor
    width: int
    height: int
    backgrounds: Tensor
    eps2d: float
    near_plane: float
    far_plane: float
    max_alpha: float


Backend = Callable[[Drawing], tuple[Tensor, Tensor, dict[str, Any]]]
"""`rasterize` of a backend: renders RGB over the backgrounds, and alpha."""


def device_and_backend(backend: str) -> tuple[torch.device, str]:
    """Resolve a backend of `BACKENDS` or "auto" (gsplat if torch finds a CUDA device, else cpu), and its device.

    Raises:
        BackendUnavailable: the backend cannot run here.
    """
    cuda = torch.cuda.is_available()
    if backend == "gsplat" and not cuda:
        raise BackendUnavailable(_NO_CUDA)
    device = torch.device("cuda" if backend == "gsplat" or (backend == "auto" and cuda) else "cpu")
    return device, default_backend(device) if backend == "auto" else backend


def default_backend(device: torch.device) -> str:
    """Backend for tensors on `device`: gsplat on a CUDA device, the CPU kernels on all others."""
    return "gsplat" if device.type == "cuda" else "cpu"


def _load(backend: str, device: torch.device) -> Backend:
    if backend == "gsplat":
        if not torch.cuda.is_available():
            raise BackendUnavailable(_NO_CUDA)
        if device.type != "cuda":
            raise BackendUnavailable(f"backend 'gsplat' needs CUDA tensors, these are on {device}; move them")
        try:
            from gaussianverse.fitter.rasterize import gsplat_cuda
        except ImportError as error:
            raise BackendUnavailable(
                f"backend 'gsplat' cannot be imported: {error}; pip install 'gaussianverse[build]'"
            ) from error
        return gsplat_cuda.rasterize
    if device.type != "cpu":
        raise BackendUnavailable(f"backend {backend!r} needs tensors on the CPU, these are on {device}; move them")
    if backend == "cpu":
        from gaussianverse.fitter.rasterize import cpu

        return cpu.rasterize
    from gaussianverse.fitter.rasterize import reference

    return reference.rasterize


def _check_shapes(drawing: Drawing) -> None:
    n, c = drawing.means.shape[0], drawing.viewmats.shape[0]
    expected: dict[str, tuple[tuple[int, ...], ...]] = {
        "means": ((n, 3),),
        "quats": ((n, 4),),
        "scales": ((n, 3),),
        "opacities": ((n,),),
        "colors": ((n, 3), (c, n, 3)),
        "viewmats": ((c, 4, 4),),
        "Ks": ((c, 3, 3),),
        "backgrounds": ((c, 3),),
    }
    for name, shapes in expected.items():
        shape = tuple(getattr(drawing, name).shape)
        if shape not in shapes:
            raise ValueError(f"{name} has shape {shape}, expected {' or '.join(map(str, shapes))}")


def rasterization(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4]
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    colors: Tensor,  # [N, 3] or [C, N, 3]
    viewmats: Tensor,  # [C, 4, 4]
    Ks: Tensor,  # [C, 3, 3]
    width: int,
    height: int,
    *,
    backgrounds: Tensor | None = None,  # [C, 3]
    backend: str | None = None,
    render_mode: str = "RGB",
    eps2d: float = 0.3,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    max_alpha: float = MAX_ALPHA,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render Gaussians from C cameras; names, shapes and conventions are gsplat's.

    Pixel centres are at +0.5; a Gaussian is skipped in pixels where its alpha is below 1/255; a pixel stops
    before its transmittance would fall to 1e-4 (Kerbl et al. 2023). Gaussians whose mean, rotation, scale or opacity
    is not finite, or whose quaternion is zero, are not drawn.

    Args:
        means: world positions, [N, 3].
        quats: rotations, wxyz, of any norm, [N, 4].
        scales: standard deviations, linear, > 0, [N, 3].
        opacities: in [0, 1], [N].
        colors: RGB, [N, 3] for all cameras or [C, N, 3].
        viewmats: world-to-camera, OpenCV (x right, y down, z forward), [C, 4, 4].
        Ks: pinhole intrinsics in pixels, [C, 3, 3].
        width: image width in pixels.
        height: image height in pixels.
        backgrounds: RGB behind each image, [C, 3]; black if None.
        backend: one of `BACKENDS`, or None for `default_backend`.
        render_mode: "RGB"; "RGB+D" appends accumulated z-depth; "RGB+ED" that depth over alpha.
        eps2d: variance in square pixels added to each footprint.
        near_plane: Gaussians nearer than this along the optical axis are not drawn.
        far_plane: Gaussians farther than this are not drawn.
        max_alpha: largest alpha; 0.999 in gsplat 1.5, 0.99 in its later versions.

    Returns:
        colors [C, H, W, 3 or 4], alphas [C, H, W, 1], and meta: `means2d` [C, N, 2] (pixels; after backward its
        `.grad` is the screen gradient), `radii` int32 [C, N, 2] (0 if culled).

    Raises:
        BackendUnavailable: the backend cannot run here.
        ValueError: a wrong shape, backend or render mode; for "cpu", a side longer than 262,136 pixels.

    Example:
        >>> import torch
        >>> view, K = torch.eye(4)[None], torch.tensor([[[32.0, 0, 16], [0, 32, 16], [0, 0, 1]]])
        >>> image, alpha, meta = rasterization(
        ...     torch.tensor([[0.0, 0, 2]]), torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), 0.1),
        ...     torch.tensor([0.9]), torch.tensor([[1.0, 0, 0]]), view, K, 32, 32, backend="cpu")
        >>> image.shape, round(float(alpha.max()), 2)
        (torch.Size([1, 32, 32, 3]), 0.86)
    """
    backend = backend or default_backend(means.device)
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}, expected one of {BACKENDS}")
    if render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode is {render_mode!r}, expected one of {RENDER_MODES}")
    if backgrounds is None:
        backgrounds = torch.zeros((len(viewmats), 3), device=means.device, dtype=means.dtype)
    drawing = Drawing(
        means, quats, scales, opacities, colors, viewmats, Ks, width, height, backgrounds, eps2d, near_plane,
        far_plane, max_alpha,
    )  # fmt: skip
    _check_shapes(drawing)
    rasterize = _load(backend, means.device)
    image, alpha, meta = rasterize(drawing)
    if render_mode != "RGB":
        # z is linear in the mean, so depth is rendered as a colour and torch derives its gradient; the second pass
        # is needed only for depth
        z = torch.einsum("ck,nk->cn", viewmats[:, 2, :3], means) + viewmats[:, 2, 3:]
        as_colors = replace(drawing, colors=z[..., None].expand(-1, -1, 3), backgrounds=torch.zeros_like(backgrounds))
        depth = rasterize(as_colors)[0][..., :1]
        if render_mode == "RGB+ED":
            depth = depth / alpha.clamp(min=1e-10)
        image = torch.cat([image, depth.to(image.dtype)], -1)
    return image, alpha, meta
