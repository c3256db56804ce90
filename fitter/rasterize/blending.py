"""Front-to-back alpha blending of one tile at a time, forward and backward, in Numba.

The 64 pixels of a tile are the inner loop, which the compiler turns into vector code. Backward also walks front
to back: what a pixel has not yet drawn is the finished image less what it has, so no suffix sums are stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from fitter.rasterize.compiled import LOG2_ALPHA_MIN, OPTIONS, TILE, TILE_PIXELS, TRANSMITTANCE_MIN, exp2, f4
from fitter.rasterize.projection import (
    BLUE,
    GREEN,
    LOG2_OPACITY,
    QA,
    QB,
    QC,
    RED,
    SB,
    SG,
    SR,
    SX,
    SXX,
    SXY,
    SY,
    SYY,
    S,
    X,
    Y,
)

_P = TILE_PIXELS
_EXPONENT_MIN = f4(-120.0)


@njit(parallel=True, **OPTIONS)
def blend(
    record: Any, pairs: Any, offsets: Any, ends: Any, width: Any, height: Any, tiles_x: Any, tiles_y: Any,
    background: Any, max_alpha: Any, image: Any,
) -> None:  # fmt: skip
    """Fill image [4, H, W] (RGB over the background, alpha) and ends [T]: the last pair of a tile, plus one."""
    for t in prange(tiles_x * tiles_y):
        left, top = (t % tiles_x) * TILE, (t // tiles_x) * TILE
        px, py = np.empty(_P, np.float32), np.empty(_P, np.float32)
        transmittance, alive = np.empty(_P, np.float32), np.empty(_P, np.float32)
        red, green, blue = np.zeros(_P, np.float32), np.zeros(_P, np.float32), np.zeros(_P, np.float32)
        for p in range(_P):
            x, y = left + p % TILE, top + p // TILE
            px[p], py[p] = f4(x) + f4(0.5), f4(y) + f4(0.5)
            transmittance[p] = f4(1)
            alive[p] = f4(1) if (x < width and y < height) else f4(0)
        end = offsets[t]
        for j in range(offsets[t], offsets[t + 1]):
            g = pairs[j, 0]
            gx, gy, a, b, c = record[g, X], record[g, Y], record[g, QA], record[g, QB], record[g, QC]
            log_opacity = record[g, LOG2_OPACITY]
            r_, g_, b_ = record[g, RED], record[g, GREEN], record[g, BLUE]
            still = f4(0)
            for p in range(_P):
                dx, dy = px[p] - gx, py[p] - gy
                e = log_opacity + dx * (a * dx + b * dy) + c * dy * dy
                raw = exp2(max(e, _EXPONENT_MIN))
                alpha = raw if raw < max_alpha else max_alpha
                alpha = alpha if e >= LOG2_ALPHA_MIN else f4(0)
                before, live = transmittance[p], alive[p]
                alpha = alpha * live
                after = before * (f4(1) - alpha)
                stop = after <= TRANSMITTANCE_MIN
                alpha = f4(0) if stop else alpha
                live = f4(0) if stop else live
                after = before if stop else after
                w = alpha * before
                red[p] += w * r_
                green[p] += w * g_
                blue[p] += w * b_
                transmittance[p] = after
                alive[p] = live
                still += live
            end = j + 1
            if still == f4(0):
                break
        ends[t] = end
        for p in range(_P):
            x, y = left + p % TILE, top + p // TILE
            if x < width and y < height:
                rest = transmittance[p]
                image[0, y, x] = red[p] + rest * background[0]
                image[1, y, x] = green[p] + rest * background[1]
                image[2, y, x] = blue[p] + rest * background[2]
                image[3, y, x] = f4(1) - rest


@njit(parallel=True, **OPTIONS)
def blend_backward(
    record: Any, pairs: Any, offsets: Any, ends: Any, width: Any, height: Any, tiles_x: Any, tiles_y: Any,
    max_alpha: Any, image: Any, g_image: Any, pair_gradients: Any,
) -> None:  # fmt: skip
    """Fill pair_gradients [P, GRADIENT] by slot; g_image [4, H, W] is dL/d(image)."""
    for t in prange(tiles_x * tiles_y):
        if offsets[t] == offsets[t + 1]:
            continue
        left, top = (t % tiles_x) * TILE, (t // tiles_x) * TILE
        px, py = np.empty(_P, np.float32), np.empty(_P, np.float32)
        transmittance, alive = np.empty(_P, np.float32), np.zeros(_P, np.float32)
        v_red, v_green, v_blue = np.zeros(_P, np.float32), np.zeros(_P, np.float32), np.zeros(_P, np.float32)
        behind = np.zeros(_P, np.float32)
        for p in range(_P):
            x, y = left + p % TILE, top + p // TILE
            px[p], py[p] = f4(x) + f4(0.5), f4(y) + f4(0.5)
            transmittance[p] = f4(1)
            if x < width and y < height:
                alive[p] = f4(1)
                v_red[p], v_green[p], v_blue[p] = g_image[0, y, x], g_image[1, y, x], g_image[2, y, x]
                behind[p] = (
                    image[0, y, x] * v_red[p]
                    + image[1, y, x] * v_green[p]
                    + image[2, y, x] * v_blue[p]
                    - (f4(1) - image[3, y, x]) * g_image[3, y, x]
                )
        for j in range(offsets[t], ends[t]):
            g, slot = pairs[j, 0], pairs[j, 1]
            gx, gy, a, b, c = record[g, X], record[g, Y], record[g, QA], record[g, QB], record[g, QC]
            log_opacity = record[g, LOG2_OPACITY]
            r_, g_, b_ = record[g, RED], record[g, GREEN], record[g, BLUE]
            s, sx, sy, sxx, sxy, syy = f4(0), f4(0), f4(0), f4(0), f4(0), f4(0)
            sr, sg, sb = f4(0), f4(0), f4(0)
            for p in range(_P):
                dx, dy = px[p] - gx, py[p] - gy
                e = log_opacity + dx * (a * dx + b * dy) + c * dy * dy
                raw = exp2(max(e, _EXPONENT_MIN))
                alpha = raw if raw < max_alpha else max_alpha
                alpha = alpha if e >= LOG2_ALPHA_MIN else f4(0)
                before, live = transmittance[p], alive[p]
                alpha = alpha * live
                rest = f4(1) - alpha
                after = before * rest
                stop = after <= TRANSMITTANCE_MIN
                alpha = f4(0) if stop else alpha
                live = f4(0) if stop else live
                after = before if stop else after
                w = alpha * before
                vr, vg, vb = v_red[p], v_green[p], v_blue[p]
                q = r_ * vr + g_ * vg + b_ * vb
                left_over = behind[p] - w * q
                behind[p] = left_over
                v_alpha = before * q - left_over / rest
                ws = -alpha * v_alpha
                # the clamp at max_alpha has no slope
                ws = ws if raw <= max_alpha else f4(0)
                transmittance[p] = after
                alive[p] = live
                wx, wy = ws * dx, ws * dy
                s += ws
                sx += wx
                sy += wy
                sxx += wx * dx
                sxy += wx * dy
                syy += wy * dy
                sr += w * vr
                sg += w * vg
                sb += w * vb
            pair_gradients[slot, S] = s
            pair_gradients[slot, SX] = sx
            pair_gradients[slot, SY] = sy
            pair_gradients[slot, SXX] = sxx
            pair_gradients[slot, SXY] = sxy
            pair_gradients[slot, SYY] = syy
            pair_gradients[slot, SR] = sr
            pair_gradients[slot, SG] = sg
            pair_gradients[slot, SB] = sb
        for j in range(ends[t], offsets[t + 1]):
            for k in range(9):
                pair_gradients[pairs[j, 1], k] = f4(0)
