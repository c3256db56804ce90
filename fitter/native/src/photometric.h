// L1, L2 and SSIM between a picture and its reference.
#pragma once
#include "view.h"

constexpr int WINDOW = 11, WINDOW_REACH = WINDOW - 1;

// The reference: planes of floats, or RGBA bytes with straight alpha that are composited over a background.
struct Reference {
  const float* planes = nullptr;  // [3][height][width]
  const uint8_t* rgba = nullptr;  // [height][width][4]
  float background[3] = {0, 0, 0};
  int64_t width = 0, height = 0;

  void row(int channel, int64_t y, int64_t x0, int64_t x1, float* to) const;
};

// Scratch memory of `photometric`
struct Rows { Buffer<float> data; };

// Sums of |x - y|, of (x - y)^2 and of SSIM - 1 over the box y0, y1, x0, x1 of three planes, which holds a window at
// least. Outside it picture and reference must be equal, so that SSIM is 1 and flat. Writes the slopes of the sums,
// each times its weight, to `slopes`. Planes are `plane` floats apart, rows `pitch`.
bool photometric(Rows& rows, const float* image, int64_t pitch, int64_t plane, const Reference& reference, const int* box,
                 float w_l1, float w_l2, float w_ssim, float* slopes, double sums[3]);
