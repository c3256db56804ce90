"""EWA projection of Gaussians into one camera, and its derivative (Zwicker et al. 2002), in Numba.

The record of a projected Gaussian has the values that the pixel loop reads, in that order.

Gaussians are processed in groups of 16, one per lane of a vector register: a scalar loop loads a group's values into
planes, a loop without branches computes all lanes at once, and a scalar loop stores the results. Results of culled
lanes are undefined and not used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gaussianverse.atlas.compiled import kernel
from gaussianverse.fitter.rasterize.compiled import (
    ALPHA_MIN,
    EXTENT_MAX,
    LANES,
    LOG2_ALPHA_MIN,
    LOG2E,
    OPTIONS,
    TILE,
    f4,
    log2,
)

# columns of the record [N, RECORD], float32
X, Y, QA, QB, QC, LOG2_OPACITY, RED, GREEN, BLUE, OPACITY, X_REACH, Y_REACH = range(12)
RECORD = 12
# columns of the tiles [N, TILES], int16: the rectangle of tiles that the Gaussian may touch, empty if it is
# culled, and the span of tiles that it touches in each of the rectangle's first two rows
X0, X1, Y0, Y1, SPANS = range(5)
TILES = 8
SPAN_ROWS = 2
# columns of a pair's gradient [P, GRADIENT]: sum over pixels of s = -alpha dL/dalpha times (1, dx, dy, dx^2,
# dx dy, dy^2), then of w dL/dcolor
S, SX, SY, SXX, SXY, SYY, SR, SG, SB = range(9)
GRADIENT = 12

# planes of a group: mean 3, quaternion 4, scales 3, opacity; forward, then columns of the record and of the tiles,
# depth and radii
_MEAN, _QUAT, _SCALE, _ALPHA, _RECORD = (LANES * k for k in (0, 3, 7, 10, 11))
_TILES, _DEPTH, _RADII, _PLANES = (_RECORD + LANES * (RECORD + k) for k in (0, TILES, TILES + 1, TILES + 3))
# backward, the record's quadratic form and six sums over pairs are inputs, and the screen gradient is an output
_CONIC, _SUMS, _SCREEN, _PLANES_BACK = (LANES * k for k in (11, 14, 20, 22))


@njit(inline="always", **OPTIONS)
def _camera(view: Any, K: Any, width: Any, height: Any) -> Any:
    """View rows, intrinsics, and the Jacobian's bounds of x/z and y/z, 15 % beyond the image as in gsplat."""
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    margin_x, margin_y = f4(0.15) * f4(width) / fx, f4(0.15) * f4(height) / fy
    return (
        (view[0, 0], view[0, 1], view[0, 2], view[0, 3]),
        (view[1, 0], view[1, 1], view[1, 2], view[1, 3]),
        (view[2, 0], view[2, 1], view[2, 2], view[2, 3]),
        (fx, fy, cx, cy),
        (-(cx / fx + margin_x), (f4(width) - cx) / fx + margin_x),
        (-(cy / fy + margin_y), (f4(height) - cy) / fy + margin_y),
    )


@njit(inline="always", **OPTIONS)
def _load(lane: Any, i: Any, means: Any, quats: Any, scales: Any, planes: Any) -> None:
    """Load Gaussian i into a lane."""
    for k in range(3):
        planes[_MEAN + k * LANES + lane] = means[i, k]
        planes[_SCALE + k * LANES + lane] = scales[i, k]
    for k in range(4):
        planes[_QUAT + k * LANES + lane] = quats[i, k]


@njit(inline="always", **OPTIONS)
def _seen(lane: Any, planes: Any, camera: Any) -> Any:
    """Intermediate values of a lane's projection.

    Camera-space mean; unit quaternion and 1/|q|; rotation; scales; T = J R_view; T Sigma; x/z and y/z, both clamped
    to the frustum, and 1/z.
    """
    m0, m1, m2 = planes[_MEAN + lane], planes[_MEAN + LANES + lane], planes[_MEAN + 2 * LANES + lane]
    w, x = planes[_QUAT + lane], planes[_QUAT + LANES + lane]
    y, z = planes[_QUAT + 2 * LANES + lane], planes[_QUAT + 3 * LANES + lane]
    s0, s1, s2 = planes[_SCALE + lane], planes[_SCALE + LANES + lane], planes[_SCALE + 2 * LANES + lane]
    (v00, v01, v02, v03), (v10, v11, v12, v13), (v20, v21, v22, v23) = camera[0], camera[1], camera[2]
    fx, fy, _cx, _cy = camera[3]
    one, two = f4(1), f4(2)
    x_cam = v00 * m0 + v01 * m1 + v02 * m2 + v03
    y_cam = v10 * m0 + v11 * m1 + v12 * m2 + v13
    z_cam = v20 * m0 + v21 * m1 + v22 * m2 + v23
    inverse = one / np.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w * inverse, x * inverse, y * inverse, z * inverse
    r0, r1, r2 = one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y)
    r3, r4, r5 = two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x)
    r6, r7, r8 = two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y)
    a, b, c = s0 * s0, s1 * s1, s2 * s2
    # upper triangle of the world covariance
    c0 = r0 * r0 * a + r1 * r1 * b + r2 * r2 * c
    c1 = r0 * r3 * a + r1 * r4 * b + r2 * r5 * c
    c2 = r0 * r6 * a + r1 * r7 * b + r2 * r8 * c
    c3 = r3 * r3 * a + r4 * r4 * b + r5 * r5 * c
    c4 = r3 * r6 * a + r4 * r7 * b + r5 * r8 * c
    c5 = r6 * r6 * a + r7 * r7 * b + r8 * r8 * c
    rz = one / z_cam
    u, v = x_cam * rz, y_cam * rz
    uc, vc = min(camera[4][1], max(camera[4][0], u)), min(camera[5][1], max(camera[5][0], v))
    j00, j11, j02, j12 = fx * rz, fy * rz, -fx * uc * rz, -fy * vc * rz
    t0, t1, t2 = j00 * v00 + j02 * v20, j00 * v01 + j02 * v21, j00 * v02 + j02 * v22
    t3, t4, t5 = j11 * v10 + j12 * v20, j11 * v11 + j12 * v21, j11 * v12 + j12 * v22
    a0, a1, a2 = t0 * c0 + t1 * c1 + t2 * c2, t0 * c1 + t1 * c3 + t2 * c4, t0 * c2 + t1 * c4 + t2 * c5
    b0, b1, b2 = t3 * c0 + t4 * c1 + t5 * c2, t3 * c1 + t4 * c3 + t5 * c4, t3 * c2 + t4 * c4 + t5 * c5
    return (
        (x_cam, y_cam, z_cam),
        (w, x, y, z, inverse),
        (r0, r1, r2, r3, r4, r5, r6, r7, r8),
        (s0, s1, s2),
        (t0, t1, t2, t3, t4, t5),
        (a0, a1, a2, b0, b1, b2),
        (u, v, uc, vc, rz),
    )


@njit(inline="always", **OPTIONS)
def row_span(
    x: Any, x0: Any, x1: Any, a: Any, b: Any, c: Any, level: Any, reach: Any, above: Any, below: Any
) -> Any:  # fmt: skip
    """Tiles between x0 and x1 that an ellipse touches in one row of tiles: first and end, as floats.

    Args:
        x: x of the centre.
        x0, x1: first and end of the tiles of its bounding box.
        a, b, c, level: a dx^2 + b dx dy + c dy^2 <= level.
        reach: largest dx.
        above, below: dy of the row's first and last pixel centres.
    """
    y_at_reach = -b / (f4(2) * c) * reach
    half = f4(0.5) / a
    # the largest x is at the ellipse's own extreme, or on the row of pixels nearest to it
    y_right, y_left = min(max(y_at_reach, above), below), min(max(-y_at_reach, above), below)
    root_right = np.sqrt(max(f4(0), b * b * y_right * y_right - f4(4) * a * (c * y_right * y_right - level)))
    root_left = np.sqrt(max(f4(0), b * b * y_left * y_left - f4(4) * a * (c * y_left * y_left - level)))
    right = reach if y_right == y_at_reach else (-b * y_right + root_right) * half
    left = -reach if y_left == -y_at_reach else (-b * y_left - root_left) * half
    # a little slack: a tile too many costs time, a tile too few loses pixels
    first_x = max(x0 * f4(TILE), np.ceil(x + left - f4(0.505)))
    last_x = min(x1 * f4(TILE) - f4(1), np.floor(x + right - f4(0.495)))
    first, end = min(x1, np.floor(first_x / f4(TILE))), np.floor(last_x / f4(TILE)) + f4(1)
    return first, end if last_x >= first_x else first


@kernel(**OPTIONS)
def project(
    first: Any, last: Any, means: Any, quats: Any, scales: Any, opacities: Any, colors: Any, view: Any, K: Any,
    width: Any, height: Any, eps2d: Any, near: Any, far: Any, record: Any, tiles: Any, radii: Any,
    means2d: Any, depths: Any,
) -> None:  # fmt: skip
    """Project Gaussians first to last: fill record, tiles, radii and means2d [N, 2] in pixels, and depths [N]."""
    camera = _camera(view, K, width, height)
    planes = np.zeros(_PLANES, np.float32)
    for base in range(first, last, LANES):
        count = min(LANES, last - base)
        for lane in range(count):
            _load(lane, base + lane, means, quats, scales, planes)
            planes[_ALPHA + lane] = opacities[base + lane]
        _project_lanes(planes, camera, f4(width), f4(height), eps2d, near, far)
        for lane in range(count):
            i = base + lane
            for k in range(RECORD):
                record[i, k] = planes[_RECORD + k * LANES + lane]
            record[i, RED], record[i, GREEN], record[i, BLUE] = colors[i, 0], colors[i, 1], colors[i, 2]
            for k in range(TILES):
                tiles[i, k] = int(planes[_TILES + k * LANES + lane])
            radii[i, 0], radii[i, 1] = int(planes[_RADII + lane]), int(planes[_RADII + LANES + lane])
            means2d[i, 0], means2d[i, 1] = record[i, X], record[i, Y]
            depths[i] = planes[_DEPTH + lane]


@njit(inline="always", **OPTIONS)
def _project_lanes(planes: Any, camera: Any, width: Any, height: Any, eps2d: Any, near: Any, far: Any) -> None:
    """Compute the record, tiles and radii of a group."""
    fx, fy, cx, cy = camera[3]
    zero, one, half, tile = f4(0), f4(1), f4(0.5), f4(TILE)
    for lane in range(LANES):
        mean, _quat, _rotation, _scales, t, a, ray = _seen(lane, planes, camera)
        z, opacity = mean[2], planes[_ALPHA + lane]
        cov_xx = a[0] * t[0] + a[1] * t[1] + a[2] * t[2] + eps2d
        cov_xy = a[0] * t[3] + a[1] * t[4] + a[2] * t[5]
        cov_yy = a[3] * t[3] + a[4] * t[4] + a[5] * t[5] + eps2d
        det = cov_xx * cov_yy - cov_xy * cov_xy
        x, y = fx * ray[0] + cx, fy * ray[1] + cy
        # opacity-aware: outside this ellipse, alpha is below 1/255
        log_opacity = log2(opacity)
        level = log_opacity - LOG2_ALPHA_MIN
        extent = min(EXTENT_MAX, np.sqrt(f4(2) / LOG2E * max(zero, level)))
        ex, ey = extent * np.sqrt(cov_xx), extent * np.sqrt(cov_yy)
        left, right = max(zero, np.ceil(x - ex - half)), min(width - one, np.floor(x + ex - half))
        top, bottom = max(zero, np.ceil(y - ey - half)), min(height - one, np.floor(y + ey - half))
        # NaN fails every comparison; `&`, since `and` would be a branch
        drawn = (
            (z > near)
            & (z < far)
            & (opacity >= ALPHA_MIN)
            & (opacity < f4(np.inf))
            & (det > zero)
            & (right >= left)
            & (bottom >= top)
        )
        inverse = LOG2E / det
        # exponent of alpha in base 2: log2 o + QA dx^2 + QB dx dy + QC dy^2
        qa, qb, qc = -half * cov_yy * inverse, cov_xy * inverse, -half * cov_xx * inverse
        planes[_RECORD + X * LANES + lane] = x if drawn else zero
        planes[_RECORD + Y * LANES + lane] = y if drawn else zero
        planes[_RECORD + QA * LANES + lane] = qa
        planes[_RECORD + QB * LANES + lane] = qb
        planes[_RECORD + QC * LANES + lane] = qc
        planes[_RECORD + LOG2_OPACITY * LANES + lane] = log_opacity
        planes[_RECORD + OPACITY * LANES + lane] = opacity
        planes[_DEPTH + lane] = z
        planes[_RECORD + X_REACH * LANES + lane] = ex
        # a hair of slack: a row too many costs time, one too few pixels
        planes[_RECORD + Y_REACH * LANES + lane] = ey + f4(0.01)
        x0, y0 = np.floor(left / tile), np.floor(top / tile)
        x1, y1 = np.floor(right / tile) + one, np.floor(bottom / tile) + one
        planes[_TILES + X0 * LANES + lane] = x0 if drawn else zero
        planes[_TILES + X1 * LANES + lane] = x1 if drawn else zero
        planes[_TILES + Y0 * LANES + lane] = y0 if drawn else zero
        planes[_TILES + Y1 * LANES + lane] = y1 if drawn else zero
        for row in range(SPAN_ROWS):
            above = (y0 + f4(row)) * tile + half - y
            begin, end = row_span(x, x0, x1, -qa, -qb, -qc, level, ex, above, above + f4(TILE - 1))
            planes[_TILES + (SPANS + 2 * row) * LANES + lane] = begin if drawn else zero
            planes[_TILES + (SPANS + 1 + 2 * row) * LANES + lane] = end if drawn else zero
        planes[_RADII + lane] = min(np.ceil(ex), f4(1e9)) if drawn else zero
        planes[_RADII + LANES + lane] = min(np.ceil(ey), f4(1e9)) if drawn else zero


@kernel(**OPTIONS)
def project_backward(
    first: Any, last: Any, record: Any, slots: Any, pair_gradients: Any, means: Any, quats: Any,
    scales: Any, view: Any, K: Any, width: Any, height: Any,
    g_means: Any, g_quats: Any, g_scales: Any, g_opacities: Any, g_colors: Any, g_means2d: Any,
) -> None:  # fmt: skip
    """Add this camera's gradients of Gaussians first to last to g_*, and write g_means2d [N, 2].

    A Gaussian's pair gradients are summed in slot order, so the result is bit-reproducible for any number of
    threads. Gaussians with a non-zero gradient are gathered into groups; hidden ones have none.
    """
    camera = _camera(view, K, width, height)
    planes, group = np.zeros(_PLANES_BACK, np.float32), np.empty(LANES, np.int64)
    sums, count = np.empty(9, np.float32), 0
    for i in range(first, last):
        g_means2d[i, 0], g_means2d[i, 1] = f4(0), f4(0)
        for k in range(9):
            sums[k] = f4(0)
        for slot in range(slots[i, 0], slots[i, 1]):
            for k in range(9):
                sums[k] += pair_gradients[slot, k]
        nothing = True
        for k in range(9):
            nothing = nothing and sums[k] == f4(0)
        if not nothing:
            g_opacities[i] -= sums[S] / record[i, OPACITY]
            for k in range(3):
                g_colors[i, k] += sums[SR + k]
            _load(count, i, means, quats, scales, planes)
            for k in range(3):
                planes[_CONIC + k * LANES + count] = record[i, QA + k]
            for k in range(6):
                planes[_SUMS + k * LANES + count] = sums[k]
            group[count] = i
            count += 1
        if count == LANES or i == last - 1:
            _project_lanes_backward(planes, camera)
            for lane in range(count):
                g = group[lane]
                for k in range(3):
                    g_means[g, k] += planes[_MEAN + k * LANES + lane]
                    g_scales[g, k] += planes[_SCALE + k * LANES + lane]
                for k in range(4):
                    g_quats[g, k] += planes[_QUAT + k * LANES + lane]
                g_means2d[g, 0], g_means2d[g, 1] = planes[_SCREEN + lane], planes[_SCREEN + LANES + lane]
            count = 0


@njit(inline="always", **OPTIONS)
def _project_lanes_backward(planes: Any, camera: Any) -> None:
    """Replace means, quaternions and scales by their gradients, and write those of the screen position."""
    (v00, v01, v02, _), (v10, v11, v12, _), (v20, v21, v22, _) = camera[0], camera[1], camera[2]
    fx, fy, _cx, _cy = camera[3]
    two, half = f4(2), f4(0.5)
    for lane in range(LANES):
        mean, (w, x, y, z, inverse), (r0, r1, r2, r3, r4, r5, r6, r7, r8), scale, t, a, ray = _seen(
            lane, planes, camera
        )
        t0, t1, t2, t3, t4, t5 = t
        a0, a1, a2, b0, b1, b2 = a
        u, v, uc, vc, rz = ray
        conic_a = planes[_CONIC + lane] * (f4(-2) / LOG2E)
        conic_b = planes[_CONIC + LANES + lane] * (f4(-1) / LOG2E)
        conic_c = planes[_CONIC + 2 * LANES + lane] * (f4(-2) / LOG2E)
        sx, sy = planes[_SUMS + SX * LANES + lane], planes[_SUMS + SY * LANES + lane]
        vx, vy = -(conic_a * sx + conic_b * sy), -(conic_b * sx + conic_c * sy)
        # conic -> 2-D covariance: V = -C G C
        ga = half * planes[_SUMS + SXX * LANES + lane]
        gb = half * planes[_SUMS + SXY * LANES + lane]
        gc = half * planes[_SUMS + SYY * LANES + lane]
        p00, p01 = conic_a * ga + conic_b * gb, conic_a * gb + conic_b * gc
        p10, p11 = conic_b * ga + conic_c * gb, conic_b * gb + conic_c * gc
        v_xx = -(p00 * conic_a + p01 * conic_b)
        v_xy = -(p00 * conic_b + p01 * conic_c)
        v_yy = -(p10 * conic_b + p11 * conic_c)
        # 2-D covariance = T Sigma T^T with T = J R_view
        u0, u1, u2 = v_xx * t0 + v_xy * t3, v_xx * t1 + v_xy * t4, v_xx * t2 + v_xy * t5
        w0, w1, w2 = v_xy * t0 + v_yy * t3, v_xy * t1 + v_yy * t4, v_xy * t2 + v_yy * t5
        # gradient of the world covariance, which is symmetric
        c00, c01, c02 = t0 * u0 + t3 * w0, t0 * u1 + t3 * w1, t0 * u2 + t3 * w2
        c11, c12, c22 = t1 * u1 + t4 * w1, t1 * u2 + t4 * w2, t2 * u2 + t5 * w2
        q0, q1, q2 = v_xx * a0 + v_xy * b0, v_xx * a1 + v_xy * b1, v_xx * a2 + v_xy * b2
        q3, q4, q5 = v_xy * a0 + v_yy * b0, v_xy * a1 + v_yy * b1, v_xy * a2 + v_yy * b2
        v_j00, v_j02 = two * (q0 * v00 + q1 * v01 + q2 * v02), two * (q0 * v20 + q1 * v21 + q2 * v22)
        v_j11, v_j12 = two * (q3 * v10 + q4 * v11 + q5 * v12), two * (q3 * v20 + q4 * v21 + q5 * v22)
        rz2 = rz * rz
        # camera-space mean, through the pixel position and the Jacobian; where the frustum clamps uc, j02 depends
        # on z alone
        free_u, free_v = f4(1) if uc == u else f4(0), f4(1) if vc == v else f4(0)
        v_x = fx * rz * vx - free_u * fx * rz2 * v_j02
        v_y = fy * rz * vy - free_v * fy * rz2 * v_j12
        v_z = -(fx * mean[0] * vx + fy * mean[1] * vy) * rz2 - rz2 * (fx * v_j00 + fy * v_j11)
        v_z += (f4(1) + free_u) * fx * uc * rz2 * v_j02 + (f4(1) + free_v) * fy * vc * rz2 * v_j12
        planes[_MEAN + lane] = v00 * v_x + v10 * v_y + v20 * v_z
        planes[_MEAN + LANES + lane] = v01 * v_x + v11 * v_y + v21 * v_z
        planes[_MEAN + 2 * LANES + lane] = v02 * v_x + v12 * v_y + v22 * v_z
        # covariance = R S S^T R^T: gradient of column k of R, divided by s_k^2
        e0, e3, e6 = (
            two * (c00 * r0 + c01 * r3 + c02 * r6),
            two * (c01 * r0 + c11 * r3 + c12 * r6),
            two * (c02 * r0 + c12 * r3 + c22 * r6),
        )
        e1, e4, e7 = (
            two * (c00 * r1 + c01 * r4 + c02 * r7),
            two * (c01 * r1 + c11 * r4 + c12 * r7),
            two * (c02 * r1 + c12 * r4 + c22 * r7),
        )
        e2, e5, e8 = (
            two * (c00 * r2 + c01 * r5 + c02 * r8),
            two * (c01 * r2 + c11 * r5 + c12 * r8),
            two * (c02 * r2 + c12 * r5 + c22 * r8),
        )
        planes[_SCALE + lane] = (e0 * r0 + e3 * r3 + e6 * r6) * scale[0]
        planes[_SCALE + LANES + lane] = (e1 * r1 + e4 * r4 + e7 * r7) * scale[1]
        planes[_SCALE + 2 * LANES + lane] = (e2 * r2 + e5 * r5 + e8 * r8) * scale[2]
        # gradient of R
        k0, k1, k2 = scale[0] * scale[0], scale[1] * scale[1], scale[2] * scale[2]
        e0, e3, e6, e1, e4, e7 = e0 * k0, e3 * k0, e6 * k0, e1 * k1, e4 * k1, e7 * k1
        e2, e5, e8 = e2 * k2, e5 * k2, e8 * k2
        o0 = two * (x * (e7 - e5) + y * (e2 - e6) + z * (e3 - e1))
        o1 = two * (-two * x * (e4 + e8) + y * (e1 + e3) + z * (e2 + e6) + w * (e7 - e5))
        o2 = two * (x * (e1 + e3) - two * y * (e0 + e8) + z * (e5 + e7) + w * (e2 - e6))
        o3 = two * (x * (e2 + e6) + y * (e5 + e7) - two * z * (e0 + e4) + w * (e3 - e1))
        # through the normalisation of the quaternion
        dot = o0 * w + o1 * x + o2 * y + o3 * z
        planes[_QUAT + lane] = (o0 - dot * w) * inverse
        planes[_QUAT + LANES + lane] = (o1 - dot * x) * inverse
        planes[_QUAT + 2 * LANES + lane] = (o2 - dot * y) * inverse
        planes[_QUAT + 3 * LANES + lane] = (o3 - dot * z) * inverse
        planes[_SCREEN + lane], planes[_SCREEN + LANES + lane] = vx, vy
