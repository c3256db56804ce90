"""EWA projection of Gaussians into one camera, and its derivative (Zwicker et al. 2002), in Numba.

The record of a projected Gaussian is what the pixel loop reads, in the order in which it reads it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from fitter.rasterize.compiled import ALPHA_MIN, EXTENT_MAX, LOG2_ALPHA_MIN, LOG2E, OPTIONS, TILE, f4

# columns of the record [N, RECORD], float32
X, Y, QA, QB, QC, LOG2_OPACITY, RED, GREEN, BLUE, OPACITY, DEPTH, Y_REACH = range(12)
RECORD = 12
# columns of a pair's gradient [P, GRADIENT]: sum over pixels of s = -alpha dL/dalpha times (1, dx, dy, dx^2,
# dx dy, dy^2), then of w dL/dcolor
S, SX, SY, SXX, SXY, SYY, SR, SG, SB = range(9)
GRADIENT = 12

# scratch of one Gaussian: camera-space mean 3, covariance 6, rotation 9, unit quaternion 4, 1/|q|, then
# T = J R_view (2 x 3) and T Sigma (2 x 3)
_T, _A, _SCRATCH = 23, 29, 35


@njit(inline="always", **OPTIONS)
def _geometry(i: Any, means: Any, quats: Any, scales: Any, view: Any, out: Any) -> None:
    """Camera-space mean, world covariance (upper triangle) and rotation of Gaussian i."""
    x, y, z = means[i, 0], means[i, 1], means[i, 2]
    for k in range(3):
        out[k] = view[k, 0] * x + view[k, 1] * y + view[k, 2] * z + view[k, 3]
    w, x, y, z = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
    inverse = f4(1) / f4(math.sqrt(w * w + x * x + y * y + z * z))
    w, x, y, z = w * inverse, x * inverse, y * inverse, z * inverse
    one, two = f4(1), f4(2)
    r0, r1, r2 = one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y)
    r3, r4, r5 = two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x)
    r6, r7, r8 = two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y)
    a, b, c = scales[i, 0], scales[i, 1], scales[i, 2]
    a, b, c = a * a, b * b, c * c
    out[3] = r0 * r0 * a + r1 * r1 * b + r2 * r2 * c
    out[4] = r0 * r3 * a + r1 * r4 * b + r2 * r5 * c
    out[5] = r0 * r6 * a + r1 * r7 * b + r2 * r8 * c
    out[6] = r3 * r3 * a + r4 * r4 * b + r5 * r5 * c
    out[7] = r3 * r6 * a + r4 * r7 * b + r5 * r8 * c
    out[8] = r6 * r6 * a + r7 * r7 * b + r8 * r8 * c
    out[9], out[10], out[11] = r0, r1, r2
    out[12], out[13], out[14] = r3, r4, r5
    out[15], out[16], out[17] = r6, r7, r8
    out[18], out[19], out[20], out[21], out[22] = w, x, y, z, inverse


@njit(inline="always", **OPTIONS)
def _frustum(K: Any, width: Any, height: Any) -> Any:
    """Bounds of x/z and y/z between which the Jacobian is evaluated: 15 % beyond the image, as gsplat."""
    margin_x = f4(0.15) * f4(width) / K[0, 0]
    margin_y = f4(0.15) * f4(height) / K[1, 1]
    return (
        -(K[0, 2] / K[0, 0] + margin_x),
        (f4(width) - K[0, 2]) / K[0, 0] + margin_x,
        -(K[1, 2] / K[1, 1] + margin_y),
        (f4(height) - K[1, 2]) / K[1, 1] + margin_y,
    )


@njit(inline="always", **OPTIONS)
def _footprint(g: Any, view: Any, fx: Any, fy: Any, u_min: Any, u_max: Any, v_min: Any, v_max: Any) -> Any:
    """T and T Sigma into g; returns x/z, y/z, the two clamped to the frustum, and 1/z."""
    rz = f4(1) / g[2]
    u, v = g[0] * rz, g[1] * rz
    uc, vc = min(u_max, max(u_min, u)), min(v_max, max(v_min, v))
    j00, j11, j02, j12 = fx * rz, fy * rz, -fx * uc * rz, -fy * vc * rz
    for k in range(3):
        g[_T + k] = j00 * view[0, k] + j02 * view[2, k]
        g[_T + 3 + k] = j11 * view[1, k] + j12 * view[2, k]
    for row in range(2):
        t0, t1, t2 = g[_T + 3 * row], g[_T + 3 * row + 1], g[_T + 3 * row + 2]
        g[_A + 3 * row] = t0 * g[3] + t1 * g[4] + t2 * g[5]
        g[_A + 3 * row + 1] = t0 * g[4] + t1 * g[6] + t2 * g[7]
        g[_A + 3 * row + 2] = t0 * g[5] + t1 * g[7] + t2 * g[8]
    return u, v, uc, vc, rz


@njit(**OPTIONS)
def project(
    first: Any, last: Any, means: Any, quats: Any, scales: Any, opacities: Any, colors: Any, view: Any, K: Any,
    width: Any, height: Any, eps2d: Any, near: Any, far: Any, record: Any, tiles: Any, radii: Any,
    means2d: Any, depths: Any,
) -> None:  # fmt: skip
    """Gaussians first to last: fill record [N, RECORD], tiles [N, 4], radii and means2d [N, 2] (pixels), depths [N].

    tiles are x0, x1, y0, y1, with x0 = x1 where the Gaussian is culled.
    """
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    u_min, u_max, v_min, v_max = _frustum(K, width, height)
    g = np.empty(_SCRATCH, np.float32)
    for i in range(first, last):
        tiles[i, 0], tiles[i, 1], tiles[i, 2], tiles[i, 3] = 0, 0, 0, 0
        radii[i, 0], radii[i, 1] = 0, 0
        _geometry(i, means, quats, scales, view, g)
        z, opacity = g[2], opacities[i]
        record[i, X], record[i, Y], record[i, DEPTH] = f4(0), f4(0), z
        means2d[i, 0], means2d[i, 1], depths[i] = f4(0), f4(0), z
        if not (z > near and z < far and opacity >= ALPHA_MIN):
            continue
        u, v, _uc, _vc, _rz = _footprint(g, view, fx, fy, u_min, u_max, v_min, v_max)
        t0, t1, t2, t3, t4, t5 = g[_T], g[_T + 1], g[_T + 2], g[_T + 3], g[_T + 4], g[_T + 5]
        a0, a1, a2, b0, b1, b2 = g[_A], g[_A + 1], g[_A + 2], g[_A + 3], g[_A + 4], g[_A + 5]
        cov_xx = a0 * t0 + a1 * t1 + a2 * t2 + eps2d
        cov_xy = a0 * t3 + a1 * t4 + a2 * t5
        cov_yy = b0 * t3 + b1 * t4 + b2 * t5 + eps2d
        det = cov_xx * cov_yy - cov_xy * cov_xy
        if not det > f4(0):
            continue
        x, y = fx * u + cx, fy * v + cy
        # opacity-aware: nothing outside this ellipse reaches an alpha of 1/255
        log_opacity = f4(math.log2(opacity))
        extent = min(EXTENT_MAX, f4(math.sqrt(f4(2) / LOG2E * max(f4(0), log_opacity - LOG2_ALPHA_MIN))))
        ex, ey = extent * f4(math.sqrt(cov_xx)), extent * f4(math.sqrt(cov_yy))
        # bounds are clipped as floats: a Gaussian beside the camera overflows an integer
        left, right = (
            max(f4(0), f4(math.ceil(x - ex - f4(0.5)))),
            min(f4(width - 1), f4(math.floor(x + ex - f4(0.5)))),
        )
        top, bottom = (
            max(f4(0), f4(math.ceil(y - ey - f4(0.5)))),
            min(f4(height - 1), f4(math.floor(y + ey - f4(0.5)))),
        )
        if not (right >= left and bottom >= top):
            continue
        inverse = f4(1) / det
        record[i, X], record[i, Y] = x, y
        means2d[i, 0], means2d[i, 1] = x, y
        # exponent of alpha in base 2: log2 o + QA dx^2 + QB dx dy + QC dy^2
        record[i, QA] = f4(-0.5) * LOG2E * cov_yy * inverse
        record[i, QB] = LOG2E * cov_xy * inverse
        record[i, QC] = f4(-0.5) * LOG2E * cov_xx * inverse
        record[i, LOG2_OPACITY] = log_opacity
        record[i, Y_REACH] = ey + f4(0.01)  # a hair of slack: a row too many costs time, one too few pixels
        record[i, RED], record[i, GREEN], record[i, BLUE] = colors[i, 0], colors[i, 1], colors[i, 2]
        record[i, OPACITY] = opacity
        tiles[i, 0], tiles[i, 1] = int(left) // TILE, int(right) // TILE + 1
        tiles[i, 2], tiles[i, 3] = int(top) // TILE, int(bottom) // TILE + 1
        radii[i, 0], radii[i, 1] = int(min(math.ceil(ex), 1e9)), int(min(math.ceil(ey), 1e9))


@njit(**OPTIONS)
def project_backward(
    first: Any, last: Any, record: Any, tiles: Any, slots: Any, pair_gradients: Any, means: Any, quats: Any,
    scales: Any, view: Any, K: Any, width: Any, height: Any,
    g_means: Any, g_quats: Any, g_scales: Any, g_opacities: Any, g_colors: Any, g_means2d: Any,
) -> None:  # fmt: skip
    """Gaussians first to last: add this camera's gradients to g_*; g_means2d [N, 2] is written.

    A Gaussian's pair gradients are summed in slot order, whatever thread made them: bit-reproducible.
    """
    fx, fy = K[0, 0], K[1, 1]
    u_min, u_max, v_min, v_max = _frustum(K, width, height)
    two, half = f4(2), f4(0.5)
    g = np.empty(_SCRATCH, np.float32)
    acc = np.empty(9, np.float32)
    v_cov = np.empty(9, np.float32)
    v_rot = np.empty(9, np.float32)
    for i in range(first, last):
        g_means2d[i, 0], g_means2d[i, 1] = f4(0), f4(0)
        if not tiles[i, 1] > tiles[i, 0]:
            continue
        for k in range(9):
            acc[k] = f4(0)
        for s in range(slots[i, 0], slots[i, 1]):
            for k in range(9):
                acc[k] += pair_gradients[s, k]
        nothing = True
        for k in range(9):
            nothing = nothing and acc[k] == f4(0)
        if nothing:  # hidden behind others in all of its tiles
            continue
        conic_a = record[i, QA] * f4(-2) / LOG2E
        conic_b = record[i, QB] * f4(-1) / LOG2E
        conic_c = record[i, QC] * f4(-2) / LOG2E
        vx = -(conic_a * acc[SX] + conic_b * acc[SY])
        vy = -(conic_b * acc[SX] + conic_c * acc[SY])
        g_means2d[i, 0], g_means2d[i, 1] = vx, vy
        g_opacities[i] -= acc[S] / record[i, OPACITY]
        g_colors[i, 0] += acc[SR]
        g_colors[i, 1] += acc[SG]
        g_colors[i, 2] += acc[SB]
        # conic -> 2-D covariance: V = -C G C
        ga, gb, gc = half * acc[SXX], half * acc[SXY], half * acc[SYY]
        p00, p01 = conic_a * ga + conic_b * gb, conic_a * gb + conic_b * gc
        p10, p11 = conic_b * ga + conic_c * gb, conic_b * gb + conic_c * gc
        v_xx = -(p00 * conic_a + p01 * conic_b)
        v_xy = -(p00 * conic_b + p01 * conic_c)
        v_yy = -(p10 * conic_b + p11 * conic_c)
        _geometry(i, means, quats, scales, view, g)
        u, v, uc, vc, rz = _footprint(g, view, fx, fy, u_min, u_max, v_min, v_max)
        t0, t1, t2, t3, t4, t5 = g[_T], g[_T + 1], g[_T + 2], g[_T + 3], g[_T + 4], g[_T + 5]
        a0, a1, a2, b0, b1, b2 = g[_A], g[_A + 1], g[_A + 2], g[_A + 3], g[_A + 4], g[_A + 5]
        # 2-D covariance = T Sigma T^T with T = J R_view
        u0, u1, u2 = v_xx * t0 + v_xy * t3, v_xx * t1 + v_xy * t4, v_xx * t2 + v_xy * t5
        w0, w1, w2 = v_xy * t0 + v_yy * t3, v_xy * t1 + v_yy * t4, v_xy * t2 + v_yy * t5
        v_cov[0], v_cov[1], v_cov[2] = t0 * u0 + t3 * w0, t0 * u1 + t3 * w1, t0 * u2 + t3 * w2
        v_cov[3], v_cov[4], v_cov[5] = t1 * u0 + t4 * w0, t1 * u1 + t4 * w1, t1 * u2 + t4 * w2
        v_cov[6], v_cov[7], v_cov[8] = t2 * u0 + t5 * w0, t2 * u1 + t5 * w1, t2 * u2 + t5 * w2
        q0, q1, q2 = (
            two * (v_xx * a0 + v_xy * b0),
            two * (v_xx * a1 + v_xy * b1),
            two * (v_xx * a2 + v_xy * b2),
        )
        q3, q4, q5 = (
            two * (v_xy * a0 + v_yy * b0),
            two * (v_xy * a1 + v_yy * b1),
            two * (v_xy * a2 + v_yy * b2),
        )
        v_j00 = q0 * view[0, 0] + q1 * view[0, 1] + q2 * view[0, 2]
        v_j02 = q0 * view[2, 0] + q1 * view[2, 1] + q2 * view[2, 2]
        v_j11 = q3 * view[1, 0] + q4 * view[1, 1] + q5 * view[1, 2]
        v_j12 = q3 * view[2, 0] + q4 * view[2, 1] + q5 * view[2, 2]
        rz2 = rz * rz
        # camera-space mean, through the pixel position and through the Jacobian; where the frustum clamp
        # holds uc fixed, j02 depends on z alone
        v_x = fx * rz * vx
        v_y = fy * rz * vy
        v_z = -(fx * g[0] * vx + fy * g[1] * vy) * rz2
        v_z -= rz2 * (fx * v_j00 + fy * v_j11)
        if uc == u:
            v_x -= fx * rz2 * v_j02
            v_z += two * fx * uc * rz2 * v_j02
        else:
            v_z += fx * uc * rz2 * v_j02
        if vc == v:
            v_y -= fy * rz2 * v_j12
            v_z += two * fy * vc * rz2 * v_j12
        else:
            v_z += fy * vc * rz2 * v_j12
        for k in range(3):
            g_means[i, k] += view[0, k] * v_x + view[1, k] * v_y + view[2, k] * v_z
        for k in range(3):
            total, scale = f4(0), scales[i, k]
            for r in range(3):
                column = (
                    two
                    * scale
                    * (v_cov[3 * r] * g[9 + k] + v_cov[3 * r + 1] * g[12 + k] + v_cov[3 * r + 2] * g[15 + k])
                )
                total += column * g[9 + 3 * r + k]
                v_rot[3 * r + k] = column * scale
            g_scales[i, k] += total
        w, x, y, z = g[18], g[19], g[20], g[21]
        o0 = two * (x * (v_rot[7] - v_rot[5]) + y * (v_rot[2] - v_rot[6]) + z * (v_rot[3] - v_rot[1]))
        o1 = two * (
            -two * x * (v_rot[4] + v_rot[8])
            + y * (v_rot[1] + v_rot[3])
            + z * (v_rot[2] + v_rot[6])
            + w * (v_rot[7] - v_rot[5])
        )
        o2 = two * (
            x * (v_rot[1] + v_rot[3])
            - two * y * (v_rot[0] + v_rot[8])
            + z * (v_rot[5] + v_rot[7])
            + w * (v_rot[2] - v_rot[6])
        )
        o3 = two * (
            x * (v_rot[2] + v_rot[6])
            + y * (v_rot[5] + v_rot[7])
            - two * z * (v_rot[0] + v_rot[4])
            + w * (v_rot[3] - v_rot[1])
        )
        # through the normalisation of the quaternion
        dot, inverse = o0 * w + o1 * x + o2 * y + o3 * z, g[22]
        g_quats[i, 0] += (o0 - dot * w) * inverse
        g_quats[i, 1] += (o1 - dot * x) * inverse
        g_quats[i, 2] += (o2 - dot * y) * inverse
        g_quats[i, 3] += (o3 - dot * z) * inverse
