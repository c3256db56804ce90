"""Compiler options, constants and float functions of the CPU kernels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

f4 = np.float32
i4 = np.int32

# NaN and infinity keep their meaning: values that are not finite fail every comparison, so they are not drawn.
OPTIONS: dict[str, Any] = {
    "fastmath": {"nsz", "contract", "arcp", "reassoc", "afn"},
    "nogil": True,
    "error_model": "numpy",
}

TILE = 8
TILE_PIXELS = TILE * TILE
# width of vectorised loops: one register of AVX-512, or two of AVX2
LANES = 16
LOG2E = f4(1.4426950408889634)
ALPHA_MIN = f4(1.0 / 255.0)
LOG2_ALPHA_MIN = f4(math.log2(1.0 / 255.0))
TRANSMITTANCE_MIN = f4(1e-4)
# sqrt(2 ln 255), beyond which even an opacity of 1 gives alpha below 1/255; rounded to 3.33 as in gsplat
EXTENT_MAX = f4(3.33)


@intrinsic
def float_of_bits(_context: Any, bits: Any) -> Any:
    """Reinterpret an int32 as the float32 of the same bits."""

    def generate(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def bits_of_float(_context: Any, value: Any) -> Any:
    """Reinterpret a float32 as the int32 of the same bits."""

    def generate(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), generate


@njit(inline="always", **OPTIONS)
def exp2(x: Any) -> Any:
    """2**x for x in [-126, 126], relative error under 3e-7.

    Numba from PyPI has no vectorised exponential, so a call of `math.exp` would keep the pixel loop scalar. The
    polynomial is the minimax fit of 2**f on [-0.5, 0.5]; the integer part goes into the exponent bits.
    """
    n = f4(math.floor(x + f4(0.5)))
    f = x - n
    p = f4(1.535336188319500e-4)
    p = p * f + f4(1.339887440266574e-3)
    p = p * f + f4(9.618437357674640e-3)
    p = p * f + f4(5.550332471162809e-2)
    p = p * f + f4(2.402264791363012e-1)
    p = p * f + f4(6.931472028550421e-1)
    p = p * f + f4(1.0)
    return float_of_bits(i4(bits_of_float(p) + (i4(n) << i4(23))))


@njit(inline="always", **OPTIONS)
def log2(x: Any) -> Any:
    """log2(x) for normal x > 0, error under 2e-7 (1 + |log2 x|), undefined for others; vectorises like `exp2`."""
    # x = m 2**n with m in [0.7, 1.4), and log m = 2 artanh((m - 1) / (m + 1))
    bits = bits_of_float(x)
    n = i4(i4(bits - i4(0x3F3504F3)) >> i4(23))
    s = float_of_bits(i4(bits - i4(n << i4(23))))
    s = (s - f4(1)) / (s + f4(1))
    t = s * s
    p = f4(0.3205989)
    p = p * t + f4(0.4121986)
    p = p * t + f4(0.5770780)
    p = p * t + f4(0.9617967)
    p = p * t + f4(2.8853901)
    return f4(n) + s * p
