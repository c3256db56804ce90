"""Import of torchvision beside a CPU build of torch: for lpips, and in loops and examples for what others import."""

from __future__ import annotations

import sys
from typing import Any

import torch

# keeps the library alive: deleting it would undo its definitions
_operators: list[Any] = []


def import_torchvision() -> None:
    """Import torchvision; where its own operators are missing, without them, which nothing here calls.

    PyPI's torchvision is compiled for another build of torch than its CPU index has, and then its import fails on
    `nms`. What imports torchvision later finds it.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        _operators.append(library)
        import torchvision  # noqa: F401
