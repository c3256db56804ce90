"""NumPy's files to bytes and back. What comes back was published, fetched or given by somebody: NumPy's own reader
fails on damage with whatever it stumbles over, and with the memory that a damaged header asks for.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.errors import AtlasError

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_NUMBERS = "biuf"
"""Kinds of dtype: truth values, whole and floating-point numbers."""


def npy(array: npt.ArrayLike) -> bytes:
    """The .npy file of an array; the same array always gives the same bytes."""
    sink = io.BytesIO()
    np.save(sink, np.asarray(array), allow_pickle=False)
    return sink.getvalue()


def npz(arrays: Mapping[str, npt.ArrayLike]) -> bytes:
    """The uncompressed .npz file of arrays of numbers by name; the same arrays always give the same bytes."""
    sink, members = io.BytesIO(), {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in members.items():
        if array.dtype.kind not in _NUMBERS:
            raise TypeError(f"{name} is {array.dtype}, expected numbers")
    # not `allow_pickle=False`, which older versions take for one more array
    keywords: dict[str, Any] = members
    np.savez(sink, **keywords)
    return sink.getvalue()


def read_npy(data: bytes | memoryview) -> npt.NDArray[Any]:
    """The array of a .npy file; what stands behind it is not looked at.

    Raises:
        AtlasError: it is no such file, is cut short, or holds something else than numbers.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"version {version}, expected one of {', '.join(map(str, _HEADERS))}")
        shape, fortran, dtype = _HEADERS[version](stream)
        if dtype.kind not in _NUMBERS or min(shape, default=0) < 0:
            raise ValueError(f"{dtype} {shape} is no array of numbers")
    except (
        Exception
    ) as fault:  # the header is Python text, and its parser raises what any parser of Python does
        raise AtlasError(f"not a .npy file: {fault}") from fault
    count, start = math.prod(shape), stream.tell()
    needed = count * dtype.itemsize
    if len(data) - start < needed:
        raise AtlasError(f"the .npy file is cut short: {needed} bytes of numbers, {len(data) - start} there")
    try:
        array = np.frombuffer(data, dtype, count, start).reshape(shape, order="F" if fortran else "C")
    except (ValueError, TypeError, OverflowError) as fault:
        raise AtlasError(f"not a .npy file: no array has the shape {shape}") from fault
    return array.copy()


def read_npz(data: bytes | memoryview, names: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
    """These arrays of an uncompressed .npz file.

    Raises:
        AtlasError: it is no such file, or one of them is missing or damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [archive.getinfo(f"{name}.npy") for name in names]
            # a compressed one may have any size
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("it is compressed, which `npz` never does")
            members = {entry.filename.removesuffix(".npy"): archive.read(entry) for entry in entries}
    except MemoryError:
        raise  # the machine's fault, not the file's
    except KeyError as fault:
        raise AtlasError(f"the .npz file lacks an array: {fault.args[0]}") from fault
    except Exception as fault:  # as many sorts as the format has features
        raise AtlasError(f"not an .npz file: {fault}") from fault
    return {name: read_npy(member) for name, member in members.items()}
