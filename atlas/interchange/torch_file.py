"""Arrays as `.pt` files, the only form that some projects read: one plain tensor, which loads with `weights_only`."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt


def to_pt(array: npt.NDArray[Any]) -> bytes:
    """Encode an array as a file of `torch.save`; equal arrays give equal bytes."""
    import torch

    out = io.BytesIO()
    torch.save(torch.from_numpy(np.ascontiguousarray(array)), out)
    return out.getvalue()
