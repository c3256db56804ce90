"""CPU milliseconds per PNG of 256 x 256 RGBA, as reference views are stored, by the decoder.

    python -m bench.decoders

in an environment that has those to be compared (opencv-python-headless, torchvision) prints a dictionary.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

SAMPLE = Path(__file__).parents[1] / "manifests/sample"
ROUNDS = 9


def stored_views(size: int, count: int) -> list[bytes]:
    """Views of the sample objects at this size, as they are published."""
    found = []
    for path in sorted(SAMPLE.glob("*/0000[0-9]/*.png"))[:count]:
        buffer = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGBA").resize((size, size), Image.Resampling.LANCZOS).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


def pillow(data: bytes) -> Any:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        return np.array(image, np.uint8)


def opencv() -> Callable[[bytes], Any]:
    import cv2

    def decode(data: bytes) -> Any:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)

    return decode


def torchvision() -> Callable[[bytes], Any]:
    import torch

    from gaussianverse.fitter.vision import import_torchvision

    import_torchvision()
    from torchvision.io import ImageReadMode, decode_png

    def decode(data: bytes) -> Any:
        image = decode_png(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB_ALPHA)
        return image.permute(1, 2, 0).numpy()

    return decode


def decoders() -> dict[str, Any]:
    """Median CPU milliseconds per view of each decoder, in turn; the reason where one is not to be had."""
    views, result = stored_views(256, 24), dict[str, Any]()
    runs: dict[str, Callable[[bytes], Any]] = {"pillow": pillow}
    for name, make in {"opencv": opencv, "torchvision": torchvision}.items():
        try:
            runs[name] = make()
            runs[name](views[0])
        except Exception as error:  # whatever stands in the way
            result[name] = f"{type(error).__name__}: {error}"
            runs.pop(name, None)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, decode in runs.items():
            start = time.process_time()
            for view in views:
                decode(view)
            times[name].append(1e3 * (time.process_time() - start) / len(views))
    for name, decode in runs.items():
        assert all((decode(view) == pillow(view)).all() for view in views), name
    return {**result, **{name: median(found) for name, found in times.items()}, "bytes": len(b"".join(views)) / 24}


if __name__ == "__main__":
    sys.stdout.write(f"{decoders()}\n")
