// Front-to-back alpha blending of one tile after the other, forward and backward.
//
// A tile has four blocks of 4 x 4 pixels, each in one vector. Backward also goes front to back: the colour behind a
// Gaussian is the finished image less what has been drawn, so no pixel stores what it met.
#include "ellipse.h"

// Blends tiles first to last into image [3 or 4][plane]: RGB over the background, and alpha if asked for. `within`, if
// not null, are rows and columns y0, y1, x0, x1 outside which tiles are left as they are.
void blend(const View& view, int64_t first, int64_t last, const int* within, float* image, bool alpha) {
  const Camera& camera = view.camera;
  const F threshold = set(LOG2_ALPHA_MIN), most = set(camera.max_alpha), least = set(TRANSMITTANCE_MIN), zero = set(0.f);
  const F lane_x = load(BLOCK_X) + 0.5f, lane_y = load(BLOCK_Y) + 0.5f;
  const Pair* pairs = view.pairs.data;
  const float* records = view.records.data;
  for (int64_t t = first; t < last; t++) {
    const int left = int(t % view.tiles_x) * TILE, top = int(t / view.tiles_x) * TILE;
    if (within && (top + TILE <= within[0] || top >= within[1] || left + TILE <= within[2] || left >= within[3])) continue;
    const F x = lane_x + float(left), y = lane_y + float(top);
    F T[4], red[4], green[4], blue[4];
    M live[4];
    uint32_t alive = 0;
    UNROLL for (int k = 0; k < 4; k++) {
      T[k] = set(1.f), red[k] = green[k] = blue[k] = zero;
      live[k] = inside(camera, left + (k & 1) * 4, top + (k >> 1) * 4);
      alive |= uint32_t(any(live[k])) << k;
    }
    int64_t j = view.offsets[size_t(t)];
    const int64_t end = view.offsets[size_t(t) + 1];
    for (; j < end && alive; j++) {
      const float* r = records + size_t(pairs[j] >> 4) * RECORD;
      __builtin_prefetch(records + size_t(pairs[j + 4] >> 4) * RECORD);
      const uint32_t blocks = pairs[j] & alive;
      const Ellipse ellipse(r, x, y);
      UNROLL for (int k = 0; k < 4; k++) {
        if (!(blocks >> k & 1)) continue;
        const F e = ellipse.at(k), before = T[k];
        const M met = ge(live[k], e, threshold);  // not asked whether any: a branch costs more than the work
        const F a = min(exp2(e), most);
        // a pixel stops before the Gaussian that would reduce its transmittance to 1e-4
        const M drawn = gt(met, fnma(a, before, before), least);
        const F w = only(drawn, a * before);
        T[k] = before - w;
        red[k] = fma(w, set(r[RED]), red[k]), green[k] = fma(w, set(r[GREEN]), green[k]), blue[k] = fma(w, set(r[BLUE]), blue[k]);
        const M stopped = but_not(met, drawn);
        if (any(stopped)) {
          live[k] = but_not(live[k], stopped);
          if (!any(live[k])) alive &= ~(1u << k);
        }
      }
    }
    view.ends.data[t] = j;
    UNROLL for (int k = 0; k < 4; k++) {
      float* to = image + size_t(top + (k >> 1) * 4) * view.pitch + left + (k & 1) * 4;
      store_block(to, view.pitch, fma(T[k], set(camera.background[0]), red[k]));
      store_block(to + view.plane, view.pitch, fma(T[k], set(camera.background[1]), green[k]));
      store_block(to + 2 * view.plane, view.pitch, fma(T[k], set(camera.background[2]), blue[k]));
      if (alpha) store_block(to + 3 * view.plane, view.pitch, 1.f - T[k]);
    }
  }
}

// Adds the gradients of tiles first to last to the Gaussians' sums, or writes them to the pairs' slots. `slopes`
// [3][plane] is dL/dcolor of the image; alpha_slopes [plane] that of its alpha, the image's fourth plane, or null.
void blend_backward(View& view, int64_t first, int64_t last, const float* image, const float* slopes, const float* alpha_slopes) {
  const Camera& camera = view.camera;
  const F threshold = set(LOG2_ALPHA_MIN), most = set(camera.max_alpha), least = set(TRANSMITTANCE_MIN), zero = set(0.f);
  const F lane_x = load(BLOCK_X) + 0.5f, lane_y = load(BLOCK_Y) + 0.5f;
  const Pair* pairs = view.pairs.data;
  const float* records = view.records.data;
  for (int64_t t = first; t < last; t++) {
    int64_t j = view.offsets[size_t(t)];
    const int64_t end = view.offsets[size_t(t) + 1], drawn_end = view.ends[size_t(t)];
    if (j == end) continue;
    const int left = int(t % view.tiles_x) * TILE, top = int(t / view.tiles_x) * TILE;
    const F x = lane_x + float(left), y = lane_y + float(top);
    F T[4], behind[4], v_red[4], v_green[4], v_blue[4];
    M live[4];
    UNROLL for (int k = 0; k < 4; k++) {
      const size_t at = size_t(top + (k >> 1) * 4) * view.pitch + left + (k & 1) * 4;
      auto block = [&](const float* plane) { return load_block(plane + at, view.pitch); };
      live[k] = inside(camera, left + (k & 1) * 4, top + (k >> 1) * 4);
      T[k] = set(1.f);
      v_red[k] = only(live[k], block(slopes)), v_green[k] = only(live[k], block(slopes + view.plane));
      v_blue[k] = only(live[k], block(slopes + 2 * view.plane));
      behind[k] = fma(v_red[k], block(image), fma(v_green[k], block(image + view.plane), v_blue[k] * block(image + 2 * view.plane)));
      if (alpha_slopes) behind[k] = fnma(1.f - block(image + 3 * view.plane), only(live[k], block(alpha_slopes)), behind[k]);
    }
    for (; j < drawn_end; j++) {
      const size_t g = pairs[j] >> 4, next = pairs[j + 4] >> 4;
      const float* r = records + g * RECORD;
      __builtin_prefetch(records + next * RECORD);
      __builtin_prefetch(view.sums.data + next * RECORD);
      const Ellipse ellipse(r, x, y);
      // sums over the rows of a column of blocks; dx, which they share, comes in at the end
      F s[2] = {zero, zero}, sy[2] = {zero, zero}, syy = zero, sr = zero, sg = zero, sb = zero, sw = zero;
      bool drew = false;
      UNROLL for (int k = 0; k < 4; k++) {
        if (!(pairs[j] >> k & 1)) continue;
        const F e = ellipse.at(k), before = T[k];
        const M met = ge(live[k], e, threshold);
        if (!any(met)) continue;
        const F raw = exp2(e), a = min(raw, most);
        const M drawn = gt(met, fnma(a, before, before), least);
        live[k] = but_not(live[k], but_not(met, drawn));
        drew = true;
        const F w = only(drawn, a * before);
        const F q = fma(set(r[RED]), v_red[k], fma(set(r[GREEN]), v_green[k], set(r[BLUE]) * v_blue[k]));
        const F rest = fnma(w, q, behind[k]);
        T[k] = before - w, behind[k] = rest;
        // s = -alpha dL/dalpha; a clamped alpha has no gradient
        const F slope = only(ge(drawn, most, raw), fnma(w, q, a * (rest / (1.f - a))));
        const F slope_y = slope * ellipse.dy[k >> 1];
        s[k & 1] = s[k & 1] + slope, sy[k & 1] = sy[k & 1] + slope_y, syy = fma(slope_y, ellipse.dy[k >> 1], syy);
        sr = fma(w, v_red[k], sr), sg = fma(w, v_green[k], sg), sb = fma(w, v_blue[k], sb), sw = sw + w;
      }
      float* to = view.slots ? &view.slot_sums[size_t(view.pair_slots[size_t(j)]) * RECORD] : &view.sums[g * RECORD];
      if (view.slots) store(to, zero);
      if (!drew) continue;
      const F *dx = ellipse.dx, sx0 = s[0] * dx[0], sx1 = s[1] * dx[1];
      const F sums[10] = {s[0] + s[1], sx0 + sx1, sy[0] + sy[1], fma(sx0, dx[0], sx1 * dx[1]), fma(sy[0], dx[0], sy[1] * dx[1]), syy, sr, sg, sb, sw};
      add_sums(to, sums);
    }
    if (view.slots)
      for (; j < end; j++) store(&view.slot_sums[size_t(view.pair_slots[size_t(j)]) * RECORD], zero);
  }
}
