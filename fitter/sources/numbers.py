"""Checks of numbers from untrusted JSON: text, booleans and values that are not finite are refused."""

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaussianverse.fitter.errors import BadInput


def numbers(value: Any, shape: tuple[int, ...], where: str, key: str) -> NDArray[np.float64]:
    """Convert `value` to float64 of `shape`; `where` and `key` name it in errors.

    Raises:
        BadInput: it has a different shape, or an entry is not a finite number.
    """
    return np.array(_checked(value, shape, f"{where}: {key!r}"), np.float64).reshape(shape)


def number(value: Any, where: str, key: str) -> float:
    """Convert `value` to a float; raises as `numbers`."""
    return float(numbers(value, (), where, key))


def focal_length(angle: float, side: int) -> float:
    """Focal length in pixels of a side of an image that spans `angle`, radians in (0, pi); infinite if nearly 0."""
    half = float(np.tan(angle / 2))
    return side / 2 / half if half > 1e-304 else math.inf


def _checked(value: Any, shape: tuple[int, ...], what: str) -> Any:
    if shape:
        if not isinstance(value, list) or len(value) != shape[0]:
            raise BadInput(f"{what} is {_shown(value)}, expected {' x '.join(map(str, shape))} numbers")
        return [_checked(entry, shape[1:], what) for entry in value]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        raise BadInput(f"{what} has {_shown(value)}, expected a finite number")
    try:
        return float(value)
    except OverflowError as error:
        raise BadInput(f"{what} has {_shown(value)}, expected a number below 1e308") from error


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
