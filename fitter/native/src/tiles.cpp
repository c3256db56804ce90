// Depth-ordered lists of the Gaussians that touch each tile.
#include "view.h"

// Orders the Gaussians in view from near to far by a stable radix sort of the depths' bits: positive floats are
// ordered like their bits, and equal depths keep the order of their indices.
static bool sort_by_depth(View& view) {
  const size_t count = size_t(view.count);
  if (!view.order.room(count) || !view.keys.room(count) || !view.spare_order.room(count) || !view.spare_keys.room(count)) return false;
  uint32_t least = UINT32_MAX, most = 0;
  size_t m = 0;
  for (size_t i = 0; i < count; i++) {
    if (view.boxes[i].x1 == 0) continue;
    uint32_t key;
    memcpy(&key, &view.depths[i], 4);
    view.order[m] = uint32_t(i), view.keys[m++] = key;
    least = key < least ? key : least, most = key > most ? key : most;
  }
  view.shown = int64_t(m);
  if (m < 2) return true;
  // an object's depths differ in their lower bits only: two passes as a rule, and never more than three
  const int wide = 32 - __builtin_clz((most - least) | 1), passes = (wide + 11) / 12, digit = (wide + passes - 1) / passes;
  uint32_t *keys = view.keys.data, *order = view.order.data, *to_keys = view.spare_keys.data, *to_order = view.spare_order.data;
  static thread_local uint32_t places[4096];
  for (int pass = 0; pass < passes; pass++) {
    const int shift = pass * digit;
    const uint32_t mask = (1u << digit) - 1;
    memset(places, 0, sizeof(uint32_t) << digit);
    for (size_t k = 0; k < m; k++) places[(keys[k] - least) >> shift & mask]++;
    uint32_t total = 0;
    for (uint32_t bucket = 0; bucket <= mask; bucket++) {
      const uint32_t here = places[bucket];
      places[bucket] = total, total += here;
    }
    for (size_t k = 0; k < m; k++) {
      const uint32_t place = places[(keys[k] - least) >> shift & mask]++;
      to_keys[place] = keys[k], to_order[place] = order[k];
    }
    uint32_t* swap = keys;
    keys = to_keys, to_keys = swap, swap = order, order = to_order, to_order = swap;
  }
  if (order != view.order.data) memcpy(view.order.data, order, m * sizeof *order);
  return true;
}

// Calls use(tile, blocks) for each tile that Gaussian g touches, row by row.
template <class Use>
static inline void each_tile(const View& view, size_t g, Use use) {
  const Box& box = view.boxes[g];
  alignas(64) float first[LANES], end[LANES];
  int known = -1;  // first of the sixteen rows whose spans are in first and end
  auto span = [&](int y, int& from, int& to) {
    const int row = y - box.y0;
    if (row < 0 || y >= box.y1) {
      from = to = 0;
    } else if (row < SPAN_ROWS) {
      from = box.spans[2 * row], to = box.spans[2 * row + 1];
    } else {  // few Gaussians are so large; sixteen rows of one at once
      const int group = (row - SPAN_ROWS) / LANES * LANES + SPAN_ROWS;
      if (group != known) {
        const float* r = &view.records[g * RECORD];
        float iota[LANES];
        for (int k = 0; k < LANES; k++) iota[k] = float(box.y0 + group + k);
        F a, b;
        row_span(set(r[X]), set(float(box.x0)), set(float(box.x1)), set(r[LEAN]), set(r[NARROW]), set(r[TALL]), set(r[TURN]),
                 set(r[REACH]), load(iota) * 4.f + 0.5f - set(r[Y]), a, b);
        store(first, a), store(end, b);
        known = group;
      }
      from = int(first[row - group]), to = int(end[row - group]);
    }
  };
  for (int y = box.y0 >> 1; 2 * y < box.y1; y++) {
    int a0, a1, b0, b1;
    span(2 * y, a0, a1), span(2 * y + 1, b0, b1);
    if (a0 >= a1) a0 = b0, a1 = b0;
    if (b0 >= b1) b0 = a0, b1 = a0;
    const int x0 = (a0 < b0 ? a0 : b0) >> 1, x1 = ((a1 > b1 ? a1 : b1) + 1) >> 1;
    for (int x = x0; x < x1; x++) {
      const int left = 2 * x, right = left + 1;
      const uint32_t blocks = uint32_t(left >= a0 && left < a1) | uint32_t(right >= a0 && right < a1) << 1 |
                              uint32_t(left >= b0 && left < b1) << 2 | uint32_t(right >= b0 && right < b1) << 3;
      use(int64_t(y) * view.tiles_x + x, blocks);
    }
  }
}

bool list_tiles(View& view) {
  if (!sort_by_depth(view)) return false;
  const int64_t tiles = view.tiles();
  int64_t *offsets = view.offsets.data, *ends = view.ends.data;
  if (view.slots && !view.first_slots.room(size_t(view.count) + 1)) return false;
  memset(offsets, 0, sizeof(int64_t) * size_t(tiles + 1));
  int64_t total = 0;
  for (size_t g = 0; g < size_t(view.count); g++) {
    if (view.slots) view.first_slots[g] = total;
    if (view.boxes[g].x1 == 0) continue;
    each_tile(view, g, [&](int64_t tile, uint32_t) { offsets[tile + 1]++, total++; });
  }
  if (view.slots) view.first_slots[size_t(view.count)] = total;
  for (int64_t t = 0; t < tiles; t++) offsets[t + 1] += offsets[t], ends[t] = offsets[t];
  if (!view.pairs.room(size_t(total) + 8)) return false;
  if (view.slots && !(view.pair_slots.room(size_t(total) + 1) && view.slot_sums.room(size_t(total) * RECORD + RECORD))) return false;
  for (int64_t k = 0; k < view.shown; k++) {
    const uint32_t g = view.order[size_t(k)];
    int64_t slot = view.slots ? view.first_slots[g] : 0;
    each_tile(view, g, [&](int64_t tile, uint32_t blocks) {
      const int64_t at = ends[tile]++;
      view.pairs[size_t(at)] = g << 4 | blocks;
      if (view.slots) view.pair_slots[size_t(at)] = slot++;
    });
  }
  // what is prefetched beyond the end
  for (int64_t k = 0; k < 8; k++) view.pairs[size_t(total + k)] = 0;
  return true;
}

// Adds up the pairs of Gaussians first to last, in the order of their tiles, as one thread adds them.
void sum_slots(View& view, int64_t first, int64_t last) {
  for (int64_t g = first; g < last; g++) {
    F sums = set(0.f);
    for (int64_t slot = view.first_slots[size_t(g)]; slot < view.first_slots[size_t(g) + 1]; slot++)
      sums = sums + load(&view.slot_sums[size_t(slot) * RECORD]);
    store(&view.sums[size_t(g) * RECORD], sums);
  }
}
