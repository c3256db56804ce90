// The interface that Python calls (ctypes): plain C, no exceptions. Functions that can run out of memory return 0 then.
#include "step.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#define API extern "C" __attribute__((visibility("default")))

// Headers of C only, and no operator new: the kernels need nothing of C++'s library, to be compiled or to run.
inline void* operator new(size_t, void* at) noexcept { return at; }

namespace {

// Numbers under 1e-38 count as zero while a kernel runs: x86 is a hundred times slower with them, and moments of
// Gaussians that no view sees decay to such.
struct FlushDenormals {
#if defined(__x86_64__)
  const unsigned before = _mm_getcsr();
  FlushDenormals() { _mm_setcsr(before | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(before); }
#else
  FlushDenormals() {}
#endif
};

#if defined(__x86_64__)
// Sets of registers that the operating system saves
uint64_t saved_registers() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t(high) << 32 | low;
}
#endif

// Gaussians as torch has them: rows. `colors` are of one camera.
struct Gaussians {
  const float *means, *quats, *scales, *opacities, *colors;
  int64_t count;
};

struct Gradients { float *means, *quats, *scales, *opacities, *colors, *means2d; };

// Sixteen rows of n floats as columns; rows beyond the count are zeros, which are never drawn.
template <int n>
void columns(const float* rows, int64_t base, int64_t count, F* out) {
  alignas(64) float planes[n][LANES] = {};
  for (int lane = 0; lane < LANES && base + lane < count; lane++)
    for (int k = 0; k < n; k++) planes[k][lane] = rows[(base + lane) * n + k];
  for (int k = 0; k < n; k++) out[k] = load(planes[k]);
}

template <int n>
void add_rows(const F* in, int64_t base, int64_t count, float* rows) {
  alignas(64) float planes[n][LANES];
  for (int k = 0; k < n; k++) store(planes[k], in[k]);
  for (int lane = 0; lane < LANES && base + lane < count; lane++)
    for (int k = 0; k < n; k++) rows[(base + lane) * n + k] += planes[k][lane];
}

Sixteen rows_of(const Gaussians& g, int64_t base) {
  Sixteen s;
  columns<3>(g.means, base, g.count, s.mean), columns<4>(g.quats, base, g.count, s.quat);
  columns<3>(g.scales, base, g.count, s.scale), columns<1>(g.opacities, base, g.count, &s.opacity);
  columns<3>(g.colors, base, g.count, s.color);
  return s;
}

template <class T>
T* create() {
  void* at = malloc(sizeof(T));
  return at ? new (at) T : nullptr;
}
template <class T>
void destroy(T* object) {
  object->~T();
  free(object);
}

}  // namespace

// Hash of the sources that this library was made of
API const char* gv_sources() { return GV_SOURCES; }
API const char* gv_instruction_set() { return GV_INSTRUCTION_SET; }

// The best instruction set that this processor has: 0 none of those below, 1 AVX2 with FMA, 2 AVX-512
API int gv_processor() {
#if defined(__x86_64__)
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1) || !(c >> 12 & 1)) return 0;  // xgetbv, FMA
  const uint64_t saved = saved_registers();
  if ((saved & 6) != 6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b >> 5 & 1)) return 0;
  const bool wide = (saved & 0xE0) == 0xE0 && (b >> 16 & 1) && (b >> 17 & 1) && (b >> 30 & 1) && (b >> 31 & 1);  // F DQ BW VL
  return wide ? 2 : 1;
#else
  return 0;
#endif
}

// The exponential and the logarithm of the kernels, for tests
API void gv_exp2(int64_t count, const float* x, float* out) {
  for (int64_t i = 0; i + LANES <= count; i += LANES) store(out + i, exp2(load(x + i)));
}
API void gv_log2(int64_t count, const float* x, float* out) {
  for (int64_t i = 0; i + LANES <= count; i += LANES) store(out + i, log2(load(x + i)));
}

API View* gv_view_new() { return create<View>(); }
API void gv_view_free(View* view) { destroy(view); }

API int gv_view_begin(View* view, const Camera* camera, int64_t count, int slots) {
  view->slots = slots != 0;
  return begin_view(*view, *camera, count);
}
// Groups first to last of sixteen Gaussians
API void gv_project(int64_t first, int64_t last, View* view, const Gaussians* gaussians, float* means2d, int32_t* radii) {
  const FlushDenormals flush;
  for (int64_t k = first; k < last; k++) project(*view, k * LANES, rows_of(*gaussians, k * LANES), means2d, radii);
}
API int gv_list_tiles(View* view) { return list_tiles(*view); }
// Tiles first to last
API void gv_blend(int64_t first, int64_t last, const View* view, float* image) {
  const FlushDenormals flush;
  blend(*view, first, last, nullptr, image, true);
}
API int gv_backward_begin(View* view) {
  const size_t rows = size_t(view->count + LANES - 1) / LANES * LANES * RECORD;
  if (!view->sums.room(rows)) return 0;
  memset(view->sums.data, 0, sizeof(float) * rows);
  return 1;
}
// Tiles first to last; in order, unless the view has slots
API void gv_blend_backward(int64_t first, int64_t last, View* view, const float* image, const float* slopes, const float* alpha_slopes) {
  const FlushDenormals flush;
  blend_backward(*view, first, last, image, slopes, alpha_slopes);
}
// Groups first to last of sixteen Gaussians; adds to all gradients, and writes those of the screen position.
API void gv_project_backward(int64_t first, int64_t last, View* view, const Gaussians* gaussians, const Gradients* to) {
  const FlushDenormals flush;
  const int64_t count = view->count;
  for (int64_t k = first; k < last; k++) {
    const int64_t base = k * LANES;
    if (view->slots) sum_slots(*view, base, base + LANES < count ? base + LANES : count);
    Slopes slopes;
    slopes.screen[0] = slopes.screen[1] = set(0.f);
    if (project_backward(*view, base, rows_of(*gaussians, base), slopes)) {
      add_rows<3>(slopes.mean, base, count, to->means), add_rows<4>(slopes.quat, base, count, to->quats);
      add_rows<3>(slopes.scale, base, count, to->scales), add_rows<1>(&slopes.opacity, base, count, to->opacities);
      add_rows<3>(slopes.color, base, count, to->colors), add_rows<2>(slopes.screen, base, count, to->means2d);
    }
  }
}

// L1, L2 and SSIM of planes [3][height][width] within a box; see `photometric`.
API int gv_photometric(const float* image, const float* target, int64_t width, int64_t height, const int* box, float w_l1,
                       float w_l2, float w_ssim, float* slopes, double* sums) {
  const FlushDenormals flush;
  Rows rows;
  Reference reference;
  reference.planes = target, reference.width = width, reference.height = height;
  return photometric(rows, image, width, width * height, reference, box, w_l1, w_l2, w_ssim, slopes, sums);
}

API Fit* gv_fit_new() { return create<Fit>(); }
API void gv_fit_free(Fit* fit) { destroy(fit); }
API int gv_step(Fit* fit, const Training* training, const Camera* camera, const uint8_t* rgba, const int* silhouette, float share,
                int first, int last, double* losses) {
  const FlushDenormals flush;
  return step(*fit, *training, *camera, rgba, silhouette, share, first != 0, last != 0, losses);
}
// Adds the squared change of a view's image without each Gaussian to costs [count]; error: of the image as it is.
API int gv_removal(Fit* fit, const Training* training, const Camera* camera, const uint8_t* rgba, float* costs, double* error) {
  const FlushDenormals flush;
  return removal(*fit, *training, *camera, rgba, costs, *error);
}
