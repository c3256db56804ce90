"""Loads the native kernels for this processor: plain C functions, called by ctypes."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_void_p
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaussianverse.fitter.errors import BackendUnavailable
from gaussianverse.fitter.native.sources import INSTRUCTION_SETS, digest, library_path

_MEND = "compile them by `make setup`, `pip install -e .`, or in a checkout `python setup.py build_ext --inplace`"

LANES, WINDOW = 16, 11
"""Floats of the kernels' vectors, and pixels a side of SSIM's window: `LANES` and `WINDOW` of the sources."""


class NativeUnavailable(BackendUnavailable):
    """The native kernels cannot be loaded here; the message gives the reason and the remedy."""


class Camera(ctypes.Structure):
    """One camera and the limits of its picture, as `view.h` has it."""

    _fields_ = (
        ("view", c_float * 12), ("fx", c_float), ("fy", c_float), ("cx", c_float), ("cy", c_float),
        ("eps2d", c_float), ("near_plane", c_float), ("far_plane", c_float), ("max_alpha", c_float),
        ("background", c_float * 3), ("width", c_int32), ("height", c_int32),
    )  # fmt: skip


class Gaussians(ctypes.Structure):
    """Rows of Gaussians, as `api.cpp` has them."""

    _fields_ = (
        ("means", c_void_p), ("quats", c_void_p), ("scales", c_void_p), ("opacities", c_void_p), ("colors", c_void_p),
        ("count", c_int64),
    )  # fmt: skip


class Gradients(ctypes.Structure):
    """Gradients of rows of Gaussians, as `api.cpp` has them."""

    _fields_ = tuple((name, c_void_p) for name in ("means", "quats", "scales", "opacities", "colors", "means2d"))


class Training(ctypes.Structure):
    """Trained values, their moments and the weights of one step, as `step.h` has them."""

    _fields_ = (
        *((name, c_void_p) for name in ("values", "first_moments", "second_moments", "gradients")),
        *((name, c_void_p) for name in ("screen", "views", "weights")),
        ("stride", c_int64), ("count", c_int64),
        ("rates", c_float * 14), ("unbias", c_float),
        ("l1", c_float), ("l2", c_float), ("ssim", c_float), ("volume", c_float),
    )  # fmt: skip


_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "gv_sources": (c_char_p, ()),
    "gv_instruction_set": (c_char_p, ()),
    "gv_processor": (c_int, ()),
    "gv_exp2": (None, (c_int64, c_void_p, c_void_p)),
    "gv_log2": (None, (c_int64, c_void_p, c_void_p)),
    "gv_view_new": (c_void_p, ()),
    "gv_view_free": (None, (c_void_p,)),
    "gv_view_begin": (c_int, (c_void_p, POINTER(Camera), c_int64, c_int)),
    "gv_project": (None, (c_int64, c_int64, c_void_p, POINTER(Gaussians), c_void_p, c_void_p)),
    "gv_list_tiles": (c_int, (c_void_p,)),
    "gv_blend": (None, (c_int64, c_int64, c_void_p, c_void_p)),
    "gv_backward_begin": (c_int, (c_void_p,)),
    "gv_blend_backward": (None, (c_int64, c_int64, c_void_p, c_void_p, c_void_p, c_void_p)),
    "gv_project_backward": (None, (c_int64, c_int64, c_void_p, POINTER(Gaussians), POINTER(Gradients))),
    "gv_photometric": (
        c_int, (c_void_p, c_void_p, c_int64, c_int64, c_int * 4, c_float, c_float, c_float, c_void_p, c_double * 3),
    ),
    "gv_fit_new": (c_void_p, ()),
    "gv_fit_free": (None, (c_void_p,)),
    "gv_removal": (
        c_int, (c_void_p, POINTER(Training), POINTER(Camera), c_void_p, c_void_p, POINTER(c_double)),
    ),
    "gv_step": (
        c_int,
        (
            c_void_p, POINTER(Training), POINTER(Camera), c_void_p, c_int * 4, c_float, c_int, c_int, c_double * 4,
        ),
    ),
}  # fmt: skip


@lru_cache
def load(instruction_set: str) -> Any:
    """Load the library for an instruction set, whether or not this processor has it.

    Raises:
        NativeUnavailable: there is no such library, it does not load, or it was made of other sources.
    """
    path = library_path(instruction_set)
    if not path.is_file():
        raise NativeUnavailable(f"the native kernels are not compiled: there is no {path}; {_MEND}")
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise NativeUnavailable(f"the native kernels cannot be loaded: {error}; {_MEND}") from error
    sources = digest()
    if sources and library.gv_sources().decode() != sources:
        raise NativeUnavailable(f"{path} was compiled of other sources than lie beside it; {_MEND}")
    return library


@lru_cache
def instruction_set() -> str:
    """Best instruction set of `INSTRUCTION_SETS` that this processor has.

    Raises:
        NativeUnavailable: as of `load`.
    """
    return INSTRUCTION_SETS[load("portable").gv_processor()]


def kernels() -> Any:
    """The native kernels for this processor; all instruction sets give the same bits.

    Raises:
        NativeUnavailable: as of `load`.
    """
    return load(instruction_set())


def camera_of(
    view: NDArray[np.float32], K: NDArray[np.float32], width: int, height: int, background: Any, *,
    eps2d: float = 0.3, near_plane: float = 0.01, far_plane: float = 1e10, max_alpha: float,
) -> Camera:  # fmt: skip
    """One camera of a world-to-camera matrix [4, 4] and intrinsics [3, 3] in pixels."""
    rows = [float(x) for x in view[:3].reshape(-1)]
    return Camera(
        (c_float * 12)(*rows), K[0, 0], K[1, 1], K[0, 2], K[1, 2], eps2d, near_plane, far_plane, max_alpha,
        (c_float * 3)(*(float(x) for x in background)), width, height,
    )  # fmt: skip


def enough(result: int) -> None:
    """Raise MemoryError if a kernel found no memory."""
    if not result:
        raise MemoryError("the native kernels found no memory for the lists of a view")
