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

// Rows of tiles y to y + 15 of Gaussian g, which is larger than most
__attribute__((noinline)) static void far_rows(const View& view, size_t g, int y, TileRow* rows) {
  const Box& box = view.boxes[g];
  const float* r = &view.records[g * RECORD];
  alignas(64) float iota[LANES], found[6][LANES];
  for (int k = 0; k < LANES; k++) iota[k] = float(2 * (y + k));
  F firsts[2], ends[2];
  M has[2];
  for (int half = 0; half < 2; half++) {
    const F block_y = load(iota) + float(half);
    row_span(set(r[X]), set(float(box.x0)), set(float(box.x1)), set(r[LEAN]), set(r[NARROW]), set(r[TALL]), set(r[TURN]),
             set(r[REACH]), block_y * 4.f + 0.5f - set(r[Y]), firsts[half], ends[half]);
    has[half] = gt(gt(set(float(box.y1)), block_y), ends[half], firsts[half]);
  }
  const RowOfTiles all = row_of_tiles(has[0], firsts[0], ends[0], has[1], firsts[1], ends[1]);
  const F columns[6] = {all.first, all.end, all.upper, all.upper_end, all.lower, all.lower_end};
  for (int k = 0; k < 6; k++) store(found[k], columns[k]);
  for (int k = 0; k < LANES; k++)
    rows[k] = {uint16_t(found[0][k]), uint16_t(found[1][k]), uint16_t(found[2][k]),
               uint16_t(found[3][k]), uint16_t(found[4][k]), uint16_t(found[5][k])};
}

// Calls use(y, row) for each row of tiles that Gaussian g touches.
template <class Use>
static inline __attribute__((always_inline)) void each_row(const View& view, size_t g, Use use) {
  const Box& box = view.boxes[g];
  const int y0 = box.y0 / 2, y1 = (box.y1 + 1) / 2, near = y1 - y0 < NEAR_ROWS ? y1 : y0 + NEAR_ROWS;
  for (int y = y0; y < near; y++) use(y, box.rows[y - y0]);
  TileRow rows[LANES];
  for (int y = near; y < y1; y += LANES) {
    far_rows(view, g, y, rows);
    for (int k = 0; k < LANES && y + k < y1; k++) use(y + k, rows[k]);
  }
}

// Bits of the blocks from .. to of a tile's left and right column
static inline uint32_t columns_of(int tile, int from, int to) {
  const int left = 2 * tile;
  return uint32_t(left >= from && left < to) | uint32_t(left + 1 >= from && left + 1 < to) << 1;
}

bool list_tiles(View& view) {
  if (!sort_by_depth(view)) return false;
  const int64_t tiles = view.tiles(), tiles_x = view.tiles_x, shown = view.shown;
  int32_t *offsets = view.offsets.data, *ends = view.ends.data;
  const uint32_t* order = view.order.data;
  const bool slots = view.slots;
  if (slots && !view.first_slots.room(size_t(view.count) + 1)) return false;
  memset(offsets, 0, sizeof(int32_t) * size_t(tiles + 1));
  int64_t total = 0;
  for (size_t g = 0; g < size_t(view.count); g++) {
    if (slots) view.first_slots[g] = total;
    if (view.boxes[g].x1 == 0) continue;
    each_row(view, g, [&](int y, const TileRow& row) {
      int32_t* counts = offsets + y * tiles_x + 1;
      for (int x = row.first; x < row.end; x++) counts[x]++;
      total += row.end > row.first ? row.end - row.first : 0;
    });
  }
  if (slots) view.first_slots[size_t(view.count)] = total;
  if (total > INT32_MAX - 8 || !view.pairs.room(size_t(total) + 8)) return false;
  if (slots && !(view.pair_slots.room(size_t(total) + 1) && view.slot_sums.room(size_t(total) * RECORD + RECORD))) return false;
  for (int64_t t = 0; t < tiles; t++) offsets[t + 1] += offsets[t], ends[t] = offsets[t];
  Pair* pairs = view.pairs.data;
  int64_t* pair_slots = view.pair_slots.data;
  for (int64_t k = 0; k < shown; k++) {
    const uint32_t g = order[k];
    if (k + 8 < shown) __builtin_prefetch(&view.boxes[order[k + 8]]);
    int64_t slot = slots ? view.first_slots[g] : 0;
    each_row(view, g, [&](int y, const TileRow& row) {
      int32_t* places = ends + y * tiles_x;
      for (int x = row.first; x < row.end; x++) {
        const int32_t at = places[x]++;
        pairs[at] = g << 4 | columns_of(x, row.lower, row.lower_end) << 2 | columns_of(x, row.upper, row.upper_end);
        if (slots) pair_slots[at] = slot++;
      }
    });
  }
  // what is prefetched beyond the end
  for (int64_t k = 0; k < 8; k++) pairs[total + k] = 0;
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
