// L1, L2 and SSIM in one pass over the rows of a picture, values and slopes.
//
// SSIM is that of Wang et al. 2004 with an 11 x 11 Gaussian window of sigma 1.5, no padding and data range 1, as in
// pytorch-msssim. Both directions of the window's blur are separable, and rings of the last eleven rows are all that is
// kept: a row comes in, is blurred along x, completes a row of the SSIM map, whose slopes are blurred along x in turn
// and complete a row of the picture's slopes ten rows above.
#include "photometric.h"

// exp(-(k - 5)^2 / 4.5), normalised
static const float TAPS[WINDOW] = {0.00102838012f, 0.00759875821f, 0.0360007733f, 0.109360687f, 0.213005543f, 0.266011715f,
                                   0.213005543f,  0.109360687f,   0.0360007733f, 0.00759875821f, 0.00102838012f};
#define UNROLL _Pragma("GCC unroll 11")

// One row of one channel, columns x0 to x1; may write up to fifteen floats more.
void Reference::row(int channel_, int64_t y, int64_t x0, int64_t x1, float* to) const {
  if (planes) {
    memcpy(to, planes + (size_t(channel_) * height + y) * width + x0, sizeof(float) * size_t(x1 - x0));
    return;
  }
  const uint8_t* from = rgba + (size_t(y) * width + x0) * 4;
  const F behind = set(background[channel_]), scale = set(1.f / 255);
  auto composite = [&](const uint8_t* pixels) {
    const F alpha = channel(pixels, 3) * scale;
    return fma(channel(pixels, channel_) * scale, alpha, (1.f - alpha) * behind);
  };
  int64_t x = 0;
  for (; x + LANES <= x1 - x0; x += LANES) store(to + x, composite(from + 4 * x));
  if (x < x1 - x0) {  // reads nothing beyond the row
    alignas(64) uint8_t rest[4 * LANES] = {};
    memcpy(rest, from + 4 * x, size_t(4 * (x1 - x0 - x)));
    store(to + x, composite(rest));
  }
}

namespace {

// Rows of one channel; those of a ring are found by their number modulo WINDOW.
struct Channel {
  int64_t width, columns, rows, stride;  // columns and rows of the SSIM map
  float *pictures, *references, *blurred, *spread, *squares, *products, *slopes;

  static size_t size(int64_t stride) { return size_t(stride) * (2 * WINDOW + 4 * WINDOW + 3 * WINDOW + 5); }

  Channel(float* memory, int64_t width_, int64_t height, int64_t stride_) : width(width_), columns(width_ - WINDOW_REACH), rows(height - WINDOW_REACH), stride(stride_) {
    auto next = [&](int64_t n) { float* at = memory; memory += n * stride; return at; };
    pictures = next(WINDOW), references = next(WINDOW), blurred = next(4 * WINDOW), spread = next(3 * WINDOW);
    squares = next(1), products = next(1), slopes = next(3);
  }
  float* picture(int64_t y) const { return pictures + y % WINDOW * stride; }
  float* reference(int64_t y) const { return references + y % WINDOW * stride; }
  float* blur(int64_t y) const { return blurred + y % WINDOW * 4 * stride; }
  float* back(int64_t y) const { return spread + y % WINDOW * 3 * stride; }

  // Blurs row y of the picture, of the reference, of the sum of their squares and of their product along x.
  void blur_row(int64_t y) const {
    const float *p = picture(y), *q = reference(y);
    for (int64_t x = 0; x < width; x += LANES) {
      const F a = load(p + x), b = load(q + x);
      store(squares + x, fma(a, a, b * b)), store(products + x, a * b);
    }
    float* to = blur(y);
    for (int64_t x = 0; x < columns; x += LANES) {
      F a0 = set(0.f), a1 = a0, a2 = a0, a3 = a0;
      UNROLL for (int k = 0; k < WINDOW; k++) {
        const F tap = set(TAPS[k]);
        a0 = fma(tap, load(p + x + k), a0), a1 = fma(tap, load(q + x + k), a1);
        a2 = fma(tap, load(squares + x + k), a2), a3 = fma(tap, load(products + x + k), a3);
      }
      store(to + x, a0), store(to + stride + x, a1), store(to + 2 * stride + x, a2), store(to + 3 * stride + x, a3);
    }
  }

  // Row y of the SSIM map: returns the sum of SSIM - 1, and keeps its slopes, blurred along x.
  float map_row(int64_t y) const {
    const float* from[WINDOW];
    for (int k = 0; k < WINDOW; k++) from[k] = blur(y + k);
    const F c1 = set(1e-4f), c2 = set(9e-4f), one = set(1.f);
    F total = set(0.f);
    for (int64_t x = 0; x < columns; x += LANES) {
      F mean_p = set(0.f), mean_q = mean_p, square = mean_p, product = mean_p;
      UNROLL for (int k = 0; k < WINDOW; k++) {
        const F tap = set(TAPS[k]);
        const float* v = from[k] + x;
        mean_p = fma(tap, load(v), mean_p), mean_q = fma(tap, load(v + stride), mean_q);
        square = fma(tap, load(v + 2 * stride), square), product = fma(tap, load(v + 3 * stride), product);
      }
      const F cross = mean_p * mean_q, both_squares = fma(mean_p, mean_p, mean_q * mean_q);
      const F top_mean = fma(set(2.f), cross, c1), low_mean = both_squares + c1;
      const F top_cov = fma(set(2.f), product - cross, c2), low_cov = square - both_squares + c2;
      const F scale = one / (low_mean * low_cov), value = top_mean * top_cov * scale;
      const M in = lanes_below(int(columns - x < LANES ? columns - x : LANES));
      total = total + only(in, value - one);
      const F d_top_mean = top_cov * scale, d_top_cov = top_mean * scale;
      const F d_low_mean = -(value * scale * low_cov), d_low_cov = -(value * scale * low_mean);
      float* to = slopes + WINDOW_REACH + x;
      store(to, only(in, 2.f * fma(mean_q, d_top_mean - d_top_cov, mean_p * (d_low_mean - d_low_cov))));
      store(to + stride, only(in, 2.f * d_low_cov)), store(to + 2 * stride, only(in, 2.f * d_top_cov));
    }
    // nothing comes from beyond the map
    for (int k = 0; k < 3; k++) memset(slopes + k * stride + WINDOW_REACH + columns, 0, sizeof(float) * (WINDOW_REACH + LANES));
    float* to = back(y);
    for (int64_t x = 0; x < width; x += LANES) {
      F a0 = set(0.f), a1 = a0, a2 = a0;
      UNROLL for (int k = 0; k < WINDOW; k++) {
        const F tap = set(TAPS[k]);
        const float* v = slopes + WINDOW_REACH + x - k;
        a0 = fma(tap, load(v), a0), a1 = fma(tap, load(v + stride), a1), a2 = fma(tap, load(v + 2 * stride), a2);
      }
      store(to + x, a0), store(to + stride + x, a1), store(to + 2 * stride + x, a2);
    }
    return sum(total);
  }

  // Row y of the picture's slopes; adds the sums of |x - y| and of (x - y)^2 to `sums`.
  void slope_row(int64_t y, float w_l1, float w_l2, float w_ssim, float* to, double* sums) const {
    const int64_t first = y - rows + 1 > 0 ? y - rows + 1 : 0, last = y < WINDOW_REACH ? y : WINDOW_REACH;
    const float *p = picture(y), *q = reference(y);
    const F zero = set(0.f), up = set(w_l1), down = set(-w_l1), twice = set(2.f * w_l2);
    F total = zero, squares = zero;
    for (int64_t x = 0; x < width; x += LANES) {
      F d_mean = zero, d_square = zero, d_product = zero;
      for (int64_t k = first; k <= last; k++) {
        const F tap = set(TAPS[k]);
        const float* v = back(y - k) + x;
        d_mean = fma(tap, load(v), d_mean), d_square = fma(tap, load(v + stride), d_square), d_product = fma(tap, load(v + 2 * stride), d_product);
      }
      const F a = load(p + x), b = load(q + x), difference = a - b;
      const int left = int(width - x < LANES ? width - x : LANES);
      const F off = only(lanes_below(left), difference);
      total = total + magnitude(off), squares = fma(off, off, squares);
      const F l1 = only(gt(difference, zero), up) + only(gt(zero, difference), down);
      const F slope = fma(set(w_ssim), fma(a, d_square, fma(b, d_product, d_mean)), fma(twice, difference, l1));
      if (left == LANES) {
        store(to + x, slope);
      } else {
        alignas(64) float rest[LANES];
        store(rest, slope);
        memcpy(to + x, rest, sizeof(float) * size_t(left));
      }
    }
    sums[0] += double(sum(total)), sums[1] += double(sum(squares));
  }
};

}  // namespace

bool photometric(Rows& memory, const float* image, int64_t pitch, int64_t plane, const Reference& reference, const int* box,
                 float w_l1, float w_l2, float w_ssim, float* slopes, double sums[3]) {
  const int64_t y0 = box[0], height = box[1] - box[0], x0 = box[2], width = box[3] - box[2];
  const int64_t stride = (width + 2 * WINDOW_REACH + 2 * LANES) / LANES * LANES + LANES;
  const size_t size = Channel::size(stride);
  if (!memory.data.room(size)) return false;
  memset(memory.data.data, 0, sizeof(float) * size);
  const Channel c(memory.data.data, width, height, stride);
  sums[0] = sums[1] = sums[2] = 0;
  for (int k = 0; k < 3; k++) {
    const float* from = image + k * plane + y0 * pitch + x0;
    float* to = slopes + k * plane + y0 * pitch + x0;
    // totals in double: a sum of 250,000 terms near 1 loses digits in float
    for (int64_t y = 0; y < height; y++) {
      memcpy(c.picture(y), from + y * pitch, sizeof(float) * size_t(width));
      reference.row(k, y0 + y, x0, x0 + width, c.reference(y));
      c.blur_row(y);
      if (y < WINDOW_REACH) continue;
      sums[2] += double(c.map_row(y - WINDOW_REACH));
      c.slope_row(y - WINDOW_REACH, w_l1, w_l2, w_ssim, to + (y - WINDOW_REACH) * pitch, sums);
    }
    for (int64_t y = c.rows; y < height; y++) c.slope_row(y, w_l1, w_l2, w_ssim, to + y * pitch, sums);
  }
  return true;
}
