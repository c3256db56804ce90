// The exponent of a Gaussian's alpha in the pixels of a tile, which has four blocks of 4 x 4 pixels, each in one vector.
#pragma once
#include "view.h"

#define UNROLL _Pragma("GCC unroll 4")

alignas(64) static const float BLOCK_X[LANES] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
alignas(64) static const float BLOCK_Y[LANES] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};

// Pixels of the block at (left, top) that belong to the image
INLINE M inside(const Camera& camera, int left, int top) {
  if (left + 4 <= camera.width && top + 4 <= camera.height) return lanes_below(LANES);
  const M right = gt(set(float(camera.width - left)), load(BLOCK_X));
  return gt(right, set(float(camera.height - top)), load(BLOCK_Y));
}

// The exponent of alpha in the four blocks of a tile, from what columns and rows of blocks share
struct Ellipse {
  F dx[2], dy[2], level[2], slope[2], c;

  __attribute__((always_inline)) Ellipse(const float* r, F x, F y) {
    dx[0] = x - set(r[X]), dy[0] = y - set(r[Y]);
    dx[1] = dx[0] + 4.f, dy[1] = dy[0] + 4.f;
    c = set(r[QC]);
    for (int k = 0; k < 2; k++) {
      level[k] = fma(set(r[QA]) * dx[k], dx[k], set(r[LOG2_OPACITY]));
      slope[k] = set(r[QB]) * dx[k];
    }
  }
  __attribute__((always_inline)) F at(int block) const {
    const F y = dy[block >> 1];
    return fma(y, fma(c, y, slope[block & 1]), level[block & 1]);
  }
};
