"""Decoders of the members of families by their suffix. Nothing is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gaussianverse.atlas.arrays import read_all_npz, read_npy
from gaussianverse.atlas.errors import DatasetError

Decoder = Callable[[bytes], Any]


def decoders_of(suffixes: list[str], given: Mapping[str, Decoder]) -> dict[str, Decoder]:
    """The decoder of each suffix: that of the whole suffix, else that of its last part.

    Raises:
        DatasetError: there is none, or a decoder is given for a suffix that no member has.
    """
    known = {**_DECODERS, **given}
    found = {s: known.get(s) or known.get(s.rpartition(".")[2]) for s in suffixes}
    if unused := sorted(set(given) - {*suffixes, *(s.rpartition(".")[2] for s in suffixes)}):
        raise DatasetError(f"decode names {', '.join(unused)}, and the members are {', '.join(suffixes)}")
    for suffix, decoder in found.items():
        if decoder is None:
            raise DatasetError(
                f"no decoder for .{suffix} (there are {', '.join(_DECODERS)}): leave it out by members=[..], or pass "
                f"decode={{{suffix!r}: function of the bytes}}, where `bytes` itself keeps them"
            )
    return {suffix: decoder for suffix, decoder in found.items() if decoder is not None}


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    """A tensor, in the processor's own byte order."""
    return torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape))


def _npy(data: bytes) -> Tensor:
    return _tensor(read_npy(data))


def _npz(data: bytes) -> dict[str, Tensor]:
    return {name: _tensor(array) for name, array in read_all_npz(data).items()}


# functions of this module, which spawned workers unpickle by their names
_DECODERS: dict[str, Decoder] = {"npy": _npy, "npz": _npz, "json": json.loads, "txt": bytes.decode}
