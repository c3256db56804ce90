// One camera's view of Gaussians: what projection, tile lists and blending hand to each other.
#pragma once
#include <stddef.h>
#include <stdlib.h>

#include "lanes.h"

constexpr int TILE = 8;      // pixels
constexpr int NEAR_ROWS = 4;  // rows of tiles of a Gaussian that are found while it is projected
constexpr float ALPHA_MIN = 1.f / 255, LOG2_ALPHA_MIN = -7.994353436858858f;
constexpr float TRANSMITTANCE_MIN = 1e-4f;
// sqrt(2 ln 255), beyond which even an opacity of 1 gives alpha below 1/255; rounded to 3.33 as in gsplat
constexpr float EXTENT_MAX = 3.33f;

// Memory that grows and keeps nothing. No std::vector: code of the standard library that was compiled for AVX-512
// could be linked into the library for AVX2.
template <class T>
struct Buffer {
  T* data = nullptr;
  size_t capacity = 0;

  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { free(data); }

  // Room for n elements; false if there is no memory.
  bool room(size_t n) {
    if (n <= capacity) return true;
    free(data);
    const size_t wanted = n + n / 4, bytes = (wanted * sizeof(T) + 63) / 64 * 64;
    data = static_cast<T*>(aligned_alloc(64, bytes));
    capacity = data ? wanted : 0;
    return data != nullptr;
  }
  T& operator[](size_t i) { return data[i]; }
  const T& operator[](size_t i) const { return data[i]; }
};

// Shared with Python (ctypes).
struct Camera {
  float view[12];  // rows of the world-to-camera matrix
  float fx, fy, cx, cy;
  float eps2d, near_plane, far_plane, max_alpha;
  float background[3];
  int32_t width, height;
};

// Columns of a projected Gaussian's record, one cache line. The exponent of alpha in base 2 is
// LOG2_OPACITY + QA dx^2 + QB dx dy + QC dy^2. The last four describe the ellipse alpha >= 1/255 (`row_span`).
enum { X, Y, QA, QB, QC, LOG2_OPACITY, RED, GREEN, BLUE, LEAN, NARROW, TALL, TURN, REACH, RECORD = 16 };

// Gradient sums of a Gaussian over its pixels: s = -alpha dL/dalpha times 1, dx, dy, dx^2, dx dy, dy^2; the blending
// weight w times dL/dcolor; and w itself. Sum k is in column place(k) of a row of RECORD floats.
enum { S, SX, SY, SXX, SXY, SYY, SR, SG, SB, SW };

// A tile has four blocks of 4 x 4 pixels, one block to a vector. What a Gaussian touches in one row of tiles: tiles
// first to end, and the blocks from .. to of the upper and the lower row of blocks.
struct TileRow { uint16_t first, end, upper, upper_end, lower, lower_end; };

// The rectangle of blocks that a Gaussian may touch, empty (x1 == 0) if it is culled, and its first rows of tiles
struct Box {
  uint16_t x0, x1, y0, y1;
  TileRow rows[NEAR_ROWS];
};

// A tile's list names a Gaussian, and in the four lowest bits the blocks that it touches: 1 top left, 2 top right,
// 4 bottom left, 8 bottom right.
typedef uint32_t Pair;

struct View {
  Camera camera;
  int64_t count = 0;                     // Gaussians
  int64_t shown = 0;                     // of them in view
  int32_t tiles_x = 0, tiles_y = 0;
  int64_t pitch = 0, plane = 0;          // floats from row to row and from plane to plane of images
  bool slots = false;                    // gradients are kept for each pair, not added up: for several threads
  Buffer<float> records, depths;         // [count][RECORD], [count]
  Buffer<Box> boxes;                     // [count]
  Buffer<uint32_t> order, keys, spare_order, spare_keys;  // of the Gaussians in view, near to far
  Buffer<int32_t> offsets, ends;         // of each tile's list: first pair, and the end of what was drawn
  Buffer<Pair> pairs;
  Buffer<float> sums;                    // [count][RECORD]
  Buffer<int64_t> first_slots, pair_slots;
  Buffer<float> slot_sums;               // [pairs][RECORD]

  int64_t tiles() const { return int64_t(tiles_x) * tiles_y; }
};

// Sixteen Gaussians
struct Sixteen { F mean[3], quat[4], scale[3], opacity, color[3]; };

// Gradients of the loss for sixteen Gaussians; `screen` for the pixel position.
struct Slopes { F mean[3], quat[4], scale[3], opacity, color[3], screen[2], weight; };

// What both directions of the projection need of sixteen Gaussians
struct Seen {
  F at[3];                   // camera-space mean
  F quat[4], inverse_norm;   // unit quaternion, 1 / |q|
  F rotation[9], scale[3];
  F t[6], a[6];              // T = J R_view, and T Sigma
  F u, v, uc, vc, rz;        // x/z, y/z; the same within the frustum; 1/z
  F xx, xy, yy;              // 2-D covariance
};

bool begin_view(View& view, const Camera& camera, int64_t count);
Seen see(const Camera& camera, const Sixteen& g);
uint32_t project(View& view, int64_t base, const Sixteen& g, float* means2d, int32_t* radii);
bool project_backward(const View& view, int64_t base, const Sixteen& g, Slopes& out);
// Blocks [first, end) that lane k's ellipse touches in a row of blocks whose first pixel centre is dy = above[k].
void row_span(F x, F x0, F x1, F lean, F narrow, F tall, F turn, F reach, F above, F& first, F& end);
// A row of tiles of spans in its two rows of blocks, either of which may be empty
struct RowOfTiles { F first, end, upper, upper_end, lower, lower_end; };
RowOfTiles row_of_tiles(M has_upper, F upper, F upper_end, M has_lower, F lower, F lower_end);

bool list_tiles(View& view);
void sum_slots(View& view, int64_t first, int64_t last);

void blend(const View& view, int64_t first, int64_t last, const int* within, float* image, bool alpha);
void blend_backward(View& view, int64_t first, int64_t last, const float* image, const float* slopes, const float* alpha_slopes);
