"""Front-to-back alpha blending of one tile at a time, forward and backward, in Numba.

A tile is 8 x 8 pixels and is drawn in two halves of 8 x 4, of which a small Gaussian often touches only one.
The inner loop runs over 16 lanes, two rows of eight pixels, with the loop over further rows unrolled inside it:
one vector register of AVX-512, or two of AVX2. All values of a pixel are in one array, plane after plane, so that
the compiler can prove that lanes are independent.

Backward also goes front to back: the colour behind a Gaussian is the finished image less the colour drawn so far,
so no suffix sums are stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gaussianverse.atlas.compiled import kernel
from gaussianverse.fitter.rasterize.compiled import (
    LANES,
    LOG2_ALPHA_MIN,
    OPTIONS,
    TILE,
    TILE_PIXELS,
    TRANSMITTANCE_MIN,
    exp2,
    f4,
)
from gaussianverse.fitter.rasterize.projection import (
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
    Y_REACH,
    S,
    X,
    Y,
)

_P = TILE_PIXELS
_HALF = _P // 2
_EXPONENT_MIN = f4(-120.0)

# planes of a tile's pixels: transmittance, and 1 while the pixel is alive; forward, then the colour; backward, then
# the gradient of the loss with respect to it, and the gradient-weighted colour behind the Gaussian
_ALIVE, _RED, _GREEN, _BLUE, _BEHIND, _PLANES = _P, 2 * _P, 3 * _P, 4 * _P, 5 * _P, 6 * _P


def _make_draw(steps: int) -> Any:
    """Make a kernel that draws one Gaussian onto 16 * steps pixels of a tile."""

    @njit(inline="always", **OPTIONS)
    def draw(
        pixels: Any, base: Any, x0: Any, y0: Any, a: Any, b: Any, c: Any, log_opacity: Any,
        red: Any, green: Any, blue: Any, max_alpha: Any,
    ) -> Any:  # fmt: skip
        """Draw onto pixels base, base + 1, ..; return the number that are alive.

        (x0, y0) is the centre of the first pixel less the Gaussian's.
        """
        alive = f4(0)
        for lane in range(LANES):
            dx = x0 + f4(lane & 7)
            lane_y = y0 + f4(lane >> 3)
            at_x = log_opacity + a * dx * dx
            slope = b * dx
            for step in range(steps):
                p = base + step * LANES + lane
                dy = lane_y + f4(2 * step)
                e = at_x + dy * (slope + c * dy)
                raw = exp2(max(e, _EXPONENT_MIN))
                alpha = raw if raw < max_alpha else max_alpha
                alpha = alpha if e >= LOG2_ALPHA_MIN else f4(0)
                before, live = pixels[p], pixels[p + _ALIVE]
                alpha = alpha * live
                after = before * (f4(1) - alpha)
                stop = after <= TRANSMITTANCE_MIN
                alpha = f4(0) if stop else alpha
                live = f4(0) if stop else live
                after = before if stop else after
                w = alpha * before
                pixels[p + _RED] += w * red
                pixels[p + _GREEN] += w * green
                pixels[p + _BLUE] += w * blue
                pixels[p] = after
                pixels[p + _ALIVE] = live
                alive += live
        return alive

    return draw


def _make_slopes(steps: int) -> Any:
    """Make a kernel that computes one Gaussian's gradient over 16 * steps pixels of a tile."""

    @njit(inline="always", **OPTIONS)
    def slopes(
        pixels: Any, base: Any, x0: Any, y0: Any, a: Any, b: Any, c: Any, log_opacity: Any,
        red: Any, green: Any, blue: Any, max_alpha: Any, gradient: Any,
    ) -> None:  # fmt: skip
        """Fill gradient [GRADIENT]; arguments as of `draw`."""
        s, sx, sy, sxx, sxy, syy = f4(0), f4(0), f4(0), f4(0), f4(0), f4(0)
        sr, sg, sb = f4(0), f4(0), f4(0)
        for lane in range(LANES):
            dx = x0 + f4(lane & 7)
            lane_y = y0 + f4(lane >> 3)
            at_x = log_opacity + a * dx * dx
            slope = b * dx
            # moments in y; those in x are the same for all rows of a lane
            m0, m1, m2 = f4(0), f4(0), f4(0)
            for step in range(steps):
                p = base + step * LANES + lane
                dy = lane_y + f4(2 * step)
                e = at_x + dy * (slope + c * dy)
                raw = exp2(max(e, _EXPONENT_MIN))
                alpha = raw if raw < max_alpha else max_alpha
                alpha = alpha if e >= LOG2_ALPHA_MIN else f4(0)
                before, live = pixels[p], pixels[p + _ALIVE]
                alpha = alpha * live
                rest = f4(1) - alpha
                after = before * rest
                stop = after <= TRANSMITTANCE_MIN
                alpha = f4(0) if stop else alpha
                live = f4(0) if stop else live
                after = before if stop else after
                w = alpha * before
                v_red, v_green, v_blue = pixels[p + _RED], pixels[p + _GREEN], pixels[p + _BLUE]
                q = red * v_red + green * v_green + blue * v_blue
                behind = pixels[p + _BEHIND] - w * q
                v_alpha = before * q - behind / rest
                ws = -alpha * v_alpha
                # clamped alpha has no gradient
                ws = ws if raw <= max_alpha else f4(0)
                pixels[p + _BEHIND] = behind
                pixels[p] = after
                pixels[p + _ALIVE] = live
                wy = ws * dy
                m0 += ws
                m1 += wy
                m2 += wy * dy
                sr += w * v_red
                sg += w * v_green
                sb += w * v_blue
            mx = m0 * dx
            s += m0
            sx += mx
            sxx += mx * dx
            sy += m1
            sxy += m1 * dx
            syy += m2
        gradient[S], gradient[SX], gradient[SY] = s, sx, sy
        gradient[SXX], gradient[SXY], gradient[SYY] = sxx, sxy, syy
        gradient[SR], gradient[SG], gradient[SB] = sr, sg, sb

    return slopes


_draw_half = _make_draw(_HALF // LANES)
_slopes_half, _slopes_tile = _make_slopes(_HALF // LANES), _make_slopes(_P // LANES)


@kernel(**OPTIONS)
def blend(
    first: Any, last: Any, record: Any, pairs: Any, offsets: Any, ends: Any, width: Any, height: Any,
    tiles_x: Any, background: Any, max_alpha: Any, image: Any,
) -> None:  # fmt: skip
    """Blend tiles first to last: fill image [4, H, W] (RGB over the background, alpha) and ends [T, 2].

    ends are the last pairs drawn onto a tile's upper and lower half, plus one.
    """
    pixels = np.empty(_PLANES, np.float32)
    for t in range(first, last):
        left, top = (t % tiles_x) * TILE, (t // tiles_x) * TILE
        pixels[:] = f4(0)
        for p in range(_P):
            x, y = left + p % TILE, top + p // TILE
            pixels[p] = f4(1)
            pixels[p + _ALIVE] = f4(1) if (x < width and y < height) else f4(0)
        above, below = f4(1), f4(1)
        end_above, end_below = offsets[t], offsets[t]
        for j in range(offsets[t], offsets[t + 1]):
            g = pairs[j, 0]
            a, b, c, log_opacity = record[g, QA], record[g, QB], record[g, QC], record[g, LOG2_OPACITY]
            red, green, blue = record[g, RED], record[g, GREEN], record[g, BLUE]
            x0, y0 = f4(left) + f4(0.5) - record[g, X], f4(top) + f4(0.5) - record[g, Y]
            reach = record[g, Y_REACH]
            if above > f4(0) and y0 + f4(3) >= -reach:
                above = _draw_half(
                    pixels, 0, x0, y0, a, b, c, log_opacity, red, green, blue, max_alpha
                )  # fmt: skip
                end_above = j + 1
            if below > f4(0) and y0 + f4(4) <= reach:
                below = _draw_half(
                    pixels, _HALF, x0, y0 + f4(4), a, b, c, log_opacity, red, green, blue, max_alpha
                )  # fmt: skip
                end_below = j + 1
            if above + below == f4(0):
                break
        ends[t, 0], ends[t, 1] = end_above, end_below
        for p in range(_P):
            x, y = left + p % TILE, top + p // TILE
            if x < width and y < height:
                rest = pixels[p]
                image[0, y, x] = pixels[p + _RED] + rest * background[0]
                image[1, y, x] = pixels[p + _GREEN] + rest * background[1]
                image[2, y, x] = pixels[p + _BLUE] + rest * background[2]
                image[3, y, x] = f4(1) - rest


@kernel(**OPTIONS)
def blend_backward(
    first: Any, last: Any, record: Any, pairs: Any, offsets: Any, ends: Any, width: Any, height: Any,
    tiles_x: Any, max_alpha: Any, image: Any, g_colors: Any, g_alpha: Any, pair_gradients: Any,
) -> None:  # fmt: skip
    """Compute the gradients of tiles first to last: fill pair_gradients [P, GRADIENT] by slot.

    g_colors [3, H, W] and g_alpha [H, W] are the gradients of the loss.
    """
    pixels = np.empty(_PLANES, np.float32)
    for t in range(first, last):
        if offsets[t] == offsets[t + 1]:
            continue
        left, top = (t % tiles_x) * TILE, (t // tiles_x) * TILE
        pixels[:] = f4(0)
        for p in range(_P):
            x, y = left + p % TILE, top + p // TILE
            pixels[p] = f4(1)
            if x < width and y < height:
                v_red, v_green, v_blue = g_colors[0, y, x], g_colors[1, y, x], g_colors[2, y, x]
                pixels[p + _ALIVE] = f4(1)
                pixels[p + _RED], pixels[p + _GREEN], pixels[p + _BLUE] = v_red, v_green, v_blue
                pixels[p + _BEHIND] = (
                    image[0, y, x] * v_red
                    + image[1, y, x] * v_green
                    + image[2, y, x] * v_blue
                    - (f4(1) - image[3, y, x]) * g_alpha[y, x]
                )
        end_above, end_below = ends[t, 0], ends[t, 1]
        for j in range(offsets[t], max(end_above, end_below)):
            g, gradient = pairs[j, 0], pair_gradients[pairs[j, 1]]
            a, b, c, log_opacity = record[g, QA], record[g, QB], record[g, QC], record[g, LOG2_OPACITY]
            red, green, blue = record[g, RED], record[g, GREEN], record[g, BLUE]
            x0, y0 = f4(left) + f4(0.5) - record[g, X], f4(top) + f4(0.5) - record[g, Y]
            reach = record[g, Y_REACH]
            above, below = j < end_above and y0 + f4(3) >= -reach, j < end_below and y0 + f4(4) <= reach
            if above and below:
                _slopes_tile(
                    pixels, 0, x0, y0, a, b, c, log_opacity, red, green, blue, max_alpha, gradient
                )  # fmt: skip
            elif above:
                _slopes_half(
                    pixels, 0, x0, y0, a, b, c, log_opacity, red, green, blue, max_alpha, gradient
                )  # fmt: skip
            elif below:
                _slopes_half(
                    pixels, _HALF, x0, y0 + f4(4), a, b, c, log_opacity, red, green, blue, max_alpha, gradient
                )  # fmt: skip
            else:
                gradient[:] = f4(0)
        for j in range(max(end_above, end_below), offsets[t + 1]):
            pair_gradients[pairs[j, 1]] = f4(0)
