// EWA projection of Gaussians into one camera, and its derivative (Zwicker et al. 2002), sixteen Gaussians at once.
// Lanes of culled Gaussians have undefined values, which are not used.
#include "view.h"

bool begin_view(View& view, const Camera& camera, int64_t count) {
  const size_t rows = size_t(count + LANES - 1) / LANES * LANES;
  view.camera = camera, view.count = count;
  view.tiles_x = (camera.width + TILE - 1) / TILE, view.tiles_y = (camera.height + TILE - 1) / TILE;
  // whole tiles, and whole vectors, so that kernels need no edges
  view.pitch = (int64_t(camera.width) + LANES - 1) / LANES * LANES, view.plane = view.pitch * view.tiles_y * TILE;
  return view.records.room(rows * RECORD) && view.depths.room(rows) && view.boxes.room(rows) &&
         view.offsets.room(size_t(view.tiles()) + 1) && view.ends.room(size_t(view.tiles()) + 1);
}

Seen see(const Camera& camera, const Sixteen& g) {
  Seen q;
  const float* m = camera.view;
  for (int k = 0; k < 3; k++)
    q.at[k] = fma(set(m[4 * k]), g.mean[0], fma(set(m[4 * k + 1]), g.mean[1], fma(set(m[4 * k + 2]), g.mean[2], set(m[4 * k + 3]))));
  q.inverse_norm = 1.f / sqrt(fma(g.quat[0], g.quat[0], fma(g.quat[1], g.quat[1], fma(g.quat[2], g.quat[2], g.quat[3] * g.quat[3]))));
  for (int k = 0; k < 4; k++) q.quat[k] = g.quat[k] * q.inverse_norm;
  const F w = q.quat[0], x = q.quat[1], y = q.quat[2], z = q.quat[3];
  F* r = q.rotation;
  r[0] = 1.f - 2.f * fma(y, y, z * z), r[1] = 2.f * (x * y - w * z), r[2] = 2.f * fma(x, z, w * y);
  r[3] = 2.f * fma(x, y, w * z), r[4] = 1.f - 2.f * fma(x, x, z * z), r[5] = 2.f * (y * z - w * x);
  r[6] = 2.f * (x * z - w * y), r[7] = 2.f * fma(y, z, w * x), r[8] = 1.f - 2.f * fma(x, x, y * y);
  F variance[3];
  for (int k = 0; k < 3; k++) q.scale[k] = g.scale[k], variance[k] = g.scale[k] * g.scale[k];
  auto world = [&](int i, int j) {  // of the covariance R S S^T R^T
    return fma(r[3 * i] * r[3 * j], variance[0], fma(r[3 * i + 1] * r[3 * j + 1], variance[1], r[3 * i + 2] * r[3 * j + 2] * variance[2]));
  };
  const F c00 = world(0, 0), c01 = world(0, 1), c02 = world(0, 2), c11 = world(1, 1), c12 = world(1, 2), c22 = world(2, 2);
  q.rz = 1.f / q.at[2];
  q.u = q.at[0] * q.rz, q.v = q.at[1] * q.rz;
  // the Jacobian is evaluated up to 15 % beyond the image, as in gsplat
  const float wide = float(camera.width), high = float(camera.height);
  const float margin_x = 0.15f * wide / camera.fx, margin_y = 0.15f * high / camera.fy;
  q.uc = clamp(q.u, set(-(camera.cx / camera.fx + margin_x)), set((wide - camera.cx) / camera.fx + margin_x));
  q.vc = clamp(q.v, set(-(camera.cy / camera.fy + margin_y)), set((high - camera.cy) / camera.fy + margin_y));
  const F j00 = camera.fx * q.rz, j11 = camera.fy * q.rz, j02 = -(j00 * q.uc), j12 = -(j11 * q.vc);
  F *t = q.t, *a = q.a;
  for (int k = 0; k < 3; k++) {
    t[k] = fma(j00, set(m[k]), j02 * m[8 + k]);
    t[3 + k] = fma(j11, set(m[4 + k]), j12 * m[8 + k]);
  }
  for (int k = 0; k < 6; k += 3) {
    a[k] = fma(t[k], c00, fma(t[k + 1], c01, t[k + 2] * c02));
    a[k + 1] = fma(t[k], c01, fma(t[k + 1], c11, t[k + 2] * c12));
    a[k + 2] = fma(t[k], c02, fma(t[k + 1], c12, t[k + 2] * c22));
  }
  q.xx = fma(a[0], t[0], fma(a[1], t[1], fma(a[2], t[2], set(camera.eps2d))));
  q.xy = fma(a[0], t[3], fma(a[1], t[4], a[2] * t[5]));
  q.yy = fma(a[3], t[3], fma(a[4], t[4], fma(a[5], t[5], set(camera.eps2d))));
  return q;
}

void row_span(F x, F x0, F x1, F lean, F narrow, F tall, F turn, F reach, F above, F& first, F& end) {
  // at height dy the ellipse covers lean dy +- sqrt(narrow (tall - dy^2)); it is widest at dy = +-turn, by reach
  const F below = above + 3.f, zero = set(0.f);
  const F at_right = clamp(turn, above, below), at_left = clamp(-turn, above, below);
  F right = fma(lean, at_right, sqrt(narrow * max(fnma(at_right, at_right, tall), zero)));
  F left = lean * at_left - sqrt(narrow * max(fnma(at_left, at_left, tall), zero));
  // exact where the root loses digits
  right = select(eq(at_right, turn), reach, right), left = select(eq(at_left, -turn), -reach, left);
  // a little slack: a block too many costs time, a block too few loses pixels
  const F first_x = max(x0 * 4.f, ceil(x + left - 0.51f)), last_x = min(x1 * 4.f - 1.f, floor(x + right - 0.49f));
  first = min(x1, floor(first_x * 0.25f));
  end = select(ge(last_x, first_x), floor(last_x * 0.25f) + 1.f, first);
}

RowOfTiles row_of_tiles(M has_upper, F upper, F upper_end, M has_lower, F lower, F lower_end) {
  // an empty span lies at the start of the other, so that it widens nothing
  const F a0 = select(has_upper, upper, lower), a1 = select(has_upper, upper_end, lower);
  const F b0 = select(has_lower, lower, upper), b1 = select(has_lower, lower_end, upper);
  const M has = gt(max(a1, b1), min(a0, b0));
  const F first = only(has, floor(min(a0, b0) * 0.5f)), end = only(has, floor(max(a1, b1) * 0.5f + 0.5f));
  return {first, end, only(has, a0), only(has, a1), only(has, b0), only(has, b1)};
}

// Projects Gaussians base to base + 15 of the view; returns the lanes in view, as bits. means2d [count][2] in pixels
// and radii [count][2] may be null.
uint32_t project(View& view, int64_t base, const Sixteen& g, float* means2d, int32_t* radii) {
  const Camera& camera = view.camera;
  const Seen q = see(camera, g);
  const F zero = set(0.f), x = fma(set(camera.fx), q.u, set(camera.cx)), y = fma(set(camera.fy), q.v, set(camera.cy));
  const F determinant = q.xx * q.yy - q.xy * q.xy;
  // opacity-aware extent: outside this ellipse, alpha is below 1/255
  const F log_opacity = log2(g.opacity), level = log_opacity - LOG2_ALPHA_MIN;
  const F extent = min(set(EXTENT_MAX), sqrt(2.f / LOG2E * max(level, zero)));
  const F deviation_x = sqrt(q.xx), reach_x = extent * deviation_x, reach_y = extent * sqrt(q.yy);
  const F left = max(zero, ceil(x - reach_x - 0.5f)), right = min(set(float(camera.width - 1)), floor(x + reach_x - 0.5f));
  const F top = max(zero, ceil(y - reach_y - 0.5f)), bottom = min(set(float(camera.height - 1)), floor(y + reach_y - 0.5f));
  // what is not a number fails every comparison; min and max hand on their second operand
  M drawn = lanes_below(int(view.count - base < LANES ? view.count - base : LANES));
  drawn = gt(gt(drawn, q.at[2], set(camera.near_plane)), set(camera.far_plane), q.at[2]);
  drawn = gt(ge(drawn, g.opacity, set(ALPHA_MIN)), set(INFINITY), g.opacity);
  drawn = gt(gt(drawn, determinant, zero), set(INFINITY), determinant);
  drawn = ge(ge(drawn, right, left), bottom, top);
  const uint32_t lanes = bits(drawn);
  Box* boxes = &view.boxes[size_t(base)];
  for (int lane = 0; lane < LANES; lane++) boxes[lane].x1 = 0;

  if (means2d) {
    alignas(64) float at[2][LANES], far[2][LANES];
    store(at[0], only(drawn, x)), store(at[1], only(drawn, y));
    store(far[0], only(drawn, min(ceil(reach_x), set(1e9f)))), store(far[1], only(drawn, min(ceil(reach_y), set(1e9f))));
    for (int lane = 0; lane < LANES && base + lane < view.count; lane++)
      for (int k = 0; k < 2; k++) {
        means2d[2 * (base + lane) + k] = at[k][lane];
        radii[2 * (base + lane) + k] = int32_t(far[k][lane]);
      }
  }
  if (!lanes) return 0;

  const F inverse = LOG2E / determinant, flat = 1.f / q.yy;
  const F columns[14] = {
      x, y, -0.5f * q.yy * inverse, q.xy * inverse, -0.5f * q.xx * inverse, log_opacity, g.color[0], g.color[1], g.color[2],
      q.xy * flat, determinant * flat * flat, extent * extent * q.yy, extent * q.xy / deviation_x, reach_x};
  const F x0 = floor(left * 0.25f), x1 = floor(right * 0.25f) + 1.f, y0 = floor(top * 0.25f), y1 = floor(bottom * 0.25f) + 1.f;
  alignas(64) float values[14][LANES], edges[4][LANES], rows[NEAR_ROWS][6][LANES], depths[LANES];
  for (int k = 0; k < 14; k++) store(values[k], columns[k]);
  store(edges[0], x0), store(edges[1], x1), store(edges[2], y0), store(edges[3], y1);
  const F tile_y0 = floor(y0 * 0.5f), tall = only(drawn, y1 - 2.f * tile_y0);
  for (int row = 0; row < NEAR_ROWS && any(gt(tall, set(2.f * float(row)))); row++) {
    F firsts[2], ends[2];
    M has[2];
    for (int half = 0; half < 2; half++) {
      const F block_y = 2.f * (tile_y0 + float(row)) + float(half);
      row_span(x, x0, x1, columns[LEAN], columns[NARROW], columns[TALL], columns[TURN], columns[REACH],
               block_y * 4.f + 0.5f - y, firsts[half], ends[half]);
      has[half] = gt(gt(ge(drawn, block_y, y0), y1, block_y), ends[half], firsts[half]);
    }
    const RowOfTiles found = row_of_tiles(has[0], firsts[0], ends[0], has[1], firsts[1], ends[1]);
    const F all[6] = {found.first, found.end, found.upper, found.upper_end, found.lower, found.lower_end};
    for (int k = 0; k < 6; k++) store(rows[row][k], all[k]);
  }
  store(depths, q.at[2]);
  for (uint32_t rest = lanes; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    float* record = &view.records[size_t(base + lane) * RECORD];
    for (int k = 0; k < 14; k++) record[k] = values[k][lane];
    Box& box = boxes[lane];
    box.x0 = uint16_t(edges[0][lane]), box.x1 = uint16_t(edges[1][lane]);
    box.y0 = uint16_t(edges[2][lane]), box.y1 = uint16_t(edges[3][lane]);
    const int near = (box.y1 + 1) / 2 - box.y0 / 2 < NEAR_ROWS ? (box.y1 + 1) / 2 - box.y0 / 2 : NEAR_ROWS;
    for (int k = 0; k < near; k++)
      box.rows[k] = {uint16_t(rows[k][0][lane]), uint16_t(rows[k][1][lane]), uint16_t(rows[k][2][lane]),
                     uint16_t(rows[k][3][lane]), uint16_t(rows[k][4][lane]), uint16_t(rows[k][5][lane])};
    view.depths[size_t(base + lane)] = depths[lane];
  }
  return lanes;
}

// Gradients of Gaussians base to base + 15 from their sums; false if all are zero.
bool project_backward(const View& view, int64_t base, const Sixteen& g, Slopes& out) {
  const Camera& camera = view.camera;
  const float* row = &view.sums[size_t(base) * RECORD];
  F s[10], size = set(0.f);
  for (int k = 0; k < 10; k++) s[k] = column(row, place(k));
  for (int k = 0; k < 9; k++) size = size + magnitude(s[k]);
  const uint32_t lanes = ~bits(eq(size, set(0.f))) & 0xFFFF;  // with those that are not numbers
  out.weight = s[SW];
  if (!lanes) return false;
  const M touched = mask_of(lanes);
  const Seen q = see(camera, g);
  const F one = set(1.f);
  const F inverse = 1.f / (q.xx * q.yy - q.xy * q.xy), ca = q.yy * inverse, cb = -(q.xy * inverse), cc = q.xx * inverse;
  const F vx = -fma(ca, s[SX], cb * s[SY]), vy = -fma(cb, s[SX], cc * s[SY]);
  // conic -> 2-D covariance: V = -C G C
  const F ga = 0.5f * s[SXX], gb = 0.5f * s[SXY], gc = 0.5f * s[SYY];
  const F p00 = fma(ca, ga, cb * gb), p01 = fma(ca, gb, cb * gc), p10 = fma(cb, ga, cc * gb), p11 = fma(cb, gb, cc * gc);
  const F v_xx = -fma(p00, ca, p01 * cb), v_xy = -fma(p00, cb, p01 * cc), v_yy = -fma(p10, cb, p11 * cc);
  // 2-D covariance = T Sigma T^T
  const F *t = q.t, *a = q.a, *b = q.a + 3, *r = q.rotation;
  F left[3], right[3], e[9];
  for (int k = 0; k < 3; k++) left[k] = fma(v_xx, t[k], v_xy * t[3 + k]), right[k] = fma(v_xy, t[k], v_yy * t[3 + k]);
  auto world = [&](int i, int j) { return fma(t[i], left[j], t[3 + i] * right[j]); };  // symmetric
  const F c00 = world(0, 0), c01 = world(0, 1), c02 = world(0, 2), c11 = world(1, 1), c12 = world(1, 2), c22 = world(2, 2);
  const float* m = camera.view;
  F along_x[3], along_y[3];
  for (int k = 0; k < 3; k++) along_x[k] = fma(v_xx, a[k], v_xy * b[k]), along_y[k] = fma(v_xy, a[k], v_yy * b[k]);
  auto dot = [&](const F* p, const float* w) { return 2.f * fma(p[0], set(w[0]), fma(p[1], set(w[1]), p[2] * w[2])); };
  const F v_j00 = dot(along_x, m), v_j02 = dot(along_x, m + 8), v_j11 = dot(along_y, m + 4), v_j12 = dot(along_y, m + 8);
  // camera-space mean, through the pixel position and the Jacobian; where the frustum clamps uc, j02 depends on z alone
  const F squared = q.rz * q.rz, fx = set(camera.fx), fy = set(camera.fy);
  const F free_u = only(eq(q.uc, q.u), one), free_v = only(eq(q.vc, q.v), one);
  const F v_x = fx * q.rz * vx - free_u * fx * squared * v_j02, v_y = fy * q.rz * vy - free_v * fy * squared * v_j12;
  F v_z = fma(fx, fma(q.at[0], vx, v_j00), fy * fma(q.at[1], vy, v_j11));
  v_z = fma((one + free_u) * fx * q.uc, v_j02, (one + free_v) * fy * q.vc * v_j12) - v_z;
  v_z = v_z * squared;
  for (int k = 0; k < 3; k++) out.mean[k] = only(touched, fma(set(m[k]), v_x, fma(set(m[4 + k]), v_y, m[8 + k] * v_z)));
  // covariance = R S S^T R^T: gradient of column k of R, then times s_k^2
  for (int k = 0; k < 3; k++) {
    e[k] = 2.f * fma(c00, r[k], fma(c01, r[3 + k], c02 * r[6 + k]));
    e[3 + k] = 2.f * fma(c01, r[k], fma(c11, r[3 + k], c12 * r[6 + k]));
    e[6 + k] = 2.f * fma(c02, r[k], fma(c12, r[3 + k], c22 * r[6 + k]));
    out.scale[k] = only(touched, fma(e[k], r[k], fma(e[3 + k], r[3 + k], e[6 + k] * r[6 + k])) * q.scale[k]);
    const F variance = q.scale[k] * q.scale[k];
    e[k] = e[k] * variance, e[3 + k] = e[3 + k] * variance, e[6 + k] = e[6 + k] * variance;
  }
  const F w = q.quat[0], x = q.quat[1], y = q.quat[2], z = q.quat[3];
  const F n0 = e[7] - e[5], n1 = e[2] - e[6], n2 = e[3] - e[1], p0 = e[5] + e[7], p1 = e[2] + e[6], p2 = e[1] + e[3];
  const F o[4] = {
      2.f * fma(x, n0, fma(y, n1, z * n2)),
      2.f * fma(w, n0, fma(y, p2, fma(z, p1, -2.f * x * (e[4] + e[8])))),
      2.f * fma(w, n1, fma(x, p2, fma(z, p0, -2.f * y * (e[0] + e[8])))),
      2.f * fma(w, n2, fma(x, p1, fma(y, p0, -2.f * z * (e[0] + e[4])))),
  };
  // through the normalisation of the quaternion
  const F along = fma(o[0], w, fma(o[1], x, fma(o[2], y, o[3] * z)));
  for (int k = 0; k < 4; k++) out.quat[k] = only(touched, fnma(along, q.quat[k], o[k]) * q.inverse_norm);
  out.opacity = only(touched, -(s[S] / g.opacity));
  for (int k = 0; k < 3; k++) out.color[k] = only(touched, s[SR + k]);
  out.screen[0] = only(touched, vx), out.screen[1] = only(touched, vy);
  return true;
}
