"""Write and read NumPy's .npy and .npz files as bytes.

Files that are read may be damaged or hostile: NumPy's own reader then raises errors of many kinds, and asks for as
much memory as a damaged header claims.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gaussianverse.atlas.errors import AtlasError

_MAGIC = b"\x93NUMPY"
_VERSIONS = {b"\1\0": (2, np.lib.format.read_array_header_1_0), b"\2\0": (4, np.lib.format.read_array_header_2_0)}
"""Number of bytes that give the header's length, and the function that parses it from there on."""
_START = len(_MAGIC) + 2
_MOST_UNPACKED = 256 << 20
"""Bytes of arrays that a compressed file may hold."""
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


def read_npy(data: bytes | memoryview, *, copy: bool = True) -> npt.NDArray[Any]:
    """The array of a .npy file.

    Args:
        data: the whole file.
        copy: False = share the memory of `data`, so that the array can be written to only where `data` can.

    Raises:
        AtlasError: it is no such file, is cut short or too long, or holds something else than numbers.
    """
    header = _header_of(data)
    dtype, shape, order = _described(header)
    count = math.prod(shape)
    needed, found = count * dtype.itemsize, len(data) - len(header)
    if found != needed:
        what = "is cut short" if found < needed else "goes on after its array"
        raise AtlasError(f"the .npy file {what}: {needed} bytes of numbers, {found} there")
    try:
        array = np.frombuffer(data, dtype, count, len(header)).reshape(shape, order=order)
    except (ValueError, TypeError, OverflowError) as error:
        raise AtlasError(f"not a .npy file: no array has the shape {shape}") from error
    return array.copy() if copy else array


def _header_of(data: bytes | memoryview) -> bytes:
    """The file's bytes before its numbers."""
    magic, version = bytes(data[: len(_MAGIC)]), bytes(data[len(_MAGIC) : _START])
    if magic != _MAGIC or len(version) < 2:
        raise AtlasError(f"not a .npy file: it begins with {magic + version!r}")
    if version not in _VERSIONS:
        raise AtlasError(f"not a .npy file: version {tuple(version)}, expected one of (1, 0), (2, 0)")
    begin = _START + _VERSIONS[version][0]
    end = begin + int.from_bytes(data[_START:begin], "little")
    if end > len(data):
        raise AtlasError(f"not a .npy file: a header of {end} bytes in a file of {len(data)}")
    return bytes(data[:end])


@lru_cache(maxsize=64)
def _described(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], Literal["C", "F"]]:
    """Dtype, shape and order by a header; all atlases of a dataset have the same, so it is parsed once."""
    _, parse = _VERSIONS[header[len(_MAGIC) : _START]]
    try:
        shape, fortran, dtype = parse(io.BytesIO(header[_START:]))
        if dtype.kind not in _NUMBERS or min(shape, default=0) < 0:
            raise ValueError(f"{dtype} {shape} is no array of numbers")
    except Exception as error:  # the header is Python text: its parser raises what any parser of Python does
        raise AtlasError(f"not a .npy file: {error}") from error
    return dtype, shape, "F" if fortran else "C"


def read_npz(data: bytes | memoryview, names: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
    """These arrays of an uncompressed .npz file.

    Raises:
        AtlasError: it is no such file, or one of them is missing or damaged.
    """
    return _arrays_of(data, [f"{name}.npy" for name in names], 0)


def read_all_npz(data: bytes | memoryview) -> dict[str, npt.NDArray[Any]]:
    """All arrays of an .npz file, which may be compressed, up to 256 MiB of arrays.

    Raises:
        AtlasError: it is no such file, or damaged, or there is more in it.
    """
    return _arrays_of(data, None, _MOST_UNPACKED)


def _arrays_of(data: bytes | memoryview, files: list[str] | None, unpacked: int) -> dict[str, npt.NDArray[Any]]:
    """These files of an archive, or all, as arrays; compressed ones up to so many bytes of arrays."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist() if files is None else [archive.getinfo(name) for name in files]
            # a compressed one may have any size
            compressed = [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
            if compressed and not unpacked:
                raise ValueError("it is compressed, which `npz` never does")
            if sum(entry.file_size for entry in compressed) > unpacked:
                raise ValueError(f"it unpacks to more than {unpacked} bytes")
            members = {entry.filename.removesuffix(".npy"): archive.read(entry) for entry in entries}
    except MemoryError:
        raise  # the machine is short of it, whatever the file holds
    except KeyError as error:
        raise AtlasError(f"the .npz file lacks an array: {error.args[0]}") from error
    except Exception as error:  # zipfile raises as many kinds as the format has features
        raise AtlasError(f"not an .npz file: {error}") from error
    return {name: read_npy(member) for name, member in members.items()}
