"""LPIPS (Zhang et al. 2018) through the `lpips` package, with backbone weights from a named local file.

Nothing is downloaded. lpips needs torchvision for the layers of its backbones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gaussianverse import foreign
from gaussianverse.fitter.config import LPIPS_NETS
from gaussianverse.fitter.vision import import_torchvision

PUBLISHED = {
    "vgg": "torchvision's vgg16-397923af.pth",
    "alex": "torchvision's alexnet-owt-7be5be79.pth",
    "squeeze": "torchvision's squeezenet1_1-b8a52dc0.pth",
}


class LpipsUnavailable(RuntimeError):
    """LPIPS cannot be loaded; the message names the missing file and where it is published."""


def _read_weights(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".npz":
        with foreign.opened(path) as file, np.load(file, allow_pickle=False) as archive:
            state = {name: torch.from_numpy(archive[name]) for name in archive.files}
    else:
        with foreign.opened(path) as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    prefix = "features."
    if any(name.startswith(prefix) for name in state):
        state = {name[len(prefix) :]: t for name, t in state.items() if name.startswith(prefix)}
    return state


def load_lpips(net: str, weights: str | Path, device: torch.device) -> tuple[Callable[[Tensor, Tensor], Tensor], str]:
    """Load LPIPS once per process; see `_load_lpips` for arguments and errors."""
    path = Path(weights)
    changed = path.stat().st_mtime_ns if str(weights) and path.is_file() else 0
    return _load_lpips(net, str(weights), device, changed)


@lru_cache(maxsize=2)
def _load_lpips(
    net: str, weights: str, device: torch.device, _changed: int
) -> tuple[Callable[[Tensor, Tensor], Tensor], str]:
    """Load LPIPS as a function of two images [B, H, W, 3] in [0, 1] that returns their mean distance.

    Args:
        net: "vgg", "alex" or "squeeze".
        weights: torchvision's state dict (.pth, whole model or its `features`), or an .npz with the same names.
        device: device of the model.
        _changed: modification time of the file, so that a changed file is read again.

    Returns:
        The function, and the SHA-256 of the weights.

    Raises:
        LpipsUnavailable: the file does not exist, or does not hold this backbone's weights.
    """
    if net not in LPIPS_NETS or net == "none":
        raise LpipsUnavailable(f"loss.lpips_net is {net!r}, expected vgg, alex or squeeze")
    path = Path(weights)
    if not weights or not path.is_file():
        raise LpipsUnavailable(
            f"LPIPS with {net} needs its backbone's weights, and the file {weights!r} does not exist: set "
            f"loss.lpips_weights to a copy of {PUBLISHED[net]} (published at download.pytorch.org/models), or set "
            "loss.lpips_net = 'none'"
        )
    try:
        state = _read_weights(path)
    except Exception as error:
        raise LpipsUnavailable(f"{path}: cannot be read as weights: {error}") from error
    import_torchvision()
    import lpips

    model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    # lpips splits the backbone into slices, and keeps the layers' numbers as names
    own = dict(model.net.named_parameters())
    by_number = {name.split(".", 1)[1]: name for name in own}
    if set(by_number) != set(state):
        missing, surplus = sorted(set(by_number) - set(state)), sorted(set(state) - set(by_number))
        raise LpipsUnavailable(f"{path}: not the weights of {net}: missing {missing[:4]}, unknown {surplus[:4]}")
    with torch.no_grad():
        for number, name in by_number.items():
            if own[name].shape != state[number].shape:
                raise LpipsUnavailable(
                    f"{path}: {number} has shape {tuple(state[number].shape)}, {net} needs {tuple(own[name].shape)}"
                )
            own[name].copy_(state[number])
    model = model.to(device).eval().requires_grad_(False)

    def distance(image: Tensor, reference: Tensor) -> Tensor:
        planes, targets = image.permute(0, 3, 1, 2), reference.permute(0, 3, 1, 2)
        result: Tensor = model(planes, targets, normalize=True).mean()
        return result

    return distance, hashlib.sha256(foreign.read_bytes(path)).hexdigest()
