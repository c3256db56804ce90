// Sixteen lanes in two registers of AVX2 with FMA: lanes 0 to 7 in a, 8 to 15 in b.
#pragma once
#include <immintrin.h>

struct F { __m256 a, b; };
struct M { __m256 a, b; };

INLINE F set(float x) { const __m256 v = _mm256_set1_ps(x); return {v, v}; }
INLINE F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
INLINE void store(float* p, F x) { _mm256_storeu_ps(p, x.a), _mm256_storeu_ps(p + 8, x.b); }
INLINE F operator+(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
INLINE F operator-(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
INLINE F operator*(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
INLINE F operator/(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
INLINE F fma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
INLINE F fnma(F x, F y, F z) { return {_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)}; }
INLINE F min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
INLINE F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
INLINE F sqrt(F x) { return {_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
INLINE F floor(F x) { return {_mm256_floor_ps(x.a), _mm256_floor_ps(x.b)}; }
INLINE F ceil(F x) { return {_mm256_ceil_ps(x.a), _mm256_ceil_ps(x.b)}; }

INLINE M gt(F x, F y) { return {_mm256_cmp_ps(x.a, y.a, _CMP_GT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_GT_OQ)}; }
INLINE M ge(F x, F y) { return {_mm256_cmp_ps(x.a, y.a, _CMP_GE_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_GE_OQ)}; }
INLINE M eq(F x, F y) { return {_mm256_cmp_ps(x.a, y.a, _CMP_EQ_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_EQ_OQ)}; }
INLINE M both(M x, M y) { return {_mm256_and_ps(x.a, y.a), _mm256_and_ps(x.b, y.b)}; }
INLINE M but_not(M x, M y) { return {_mm256_andnot_ps(y.a, x.a), _mm256_andnot_ps(y.b, x.b)}; }
INLINE M gt(M m, F x, F y) { return both(m, gt(x, y)); }
INLINE M ge(M m, F x, F y) { return both(m, ge(x, y)); }
INLINE M mask_of(uint32_t bits) {
  const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  auto lanes = [&](int byte) {
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(byte), each), each));
  };
  return {lanes(int(bits & 255)), lanes(int(bits >> 8 & 255))};
}
INLINE M lanes_below(int n) { return mask_of(n >= 16 ? 0xFFFF : n <= 0 ? 0 : (1u << n) - 1); }
INLINE uint32_t bits(M m) { return uint32_t(_mm256_movemask_ps(m.a)) | uint32_t(_mm256_movemask_ps(m.b)) << 8; }
INLINE F select(M m, F x, F y) { return {_mm256_blendv_ps(y.a, x.a, m.a), _mm256_blendv_ps(y.b, x.b, m.b)}; }
INLINE F only(M m, F x) { return {_mm256_and_ps(m.a, x.a), _mm256_and_ps(m.b, x.b)}; }

INLINE F add_to_exponent(F x, F n) {
  auto half = [](__m256 x, __m256 n) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), _mm256_slli_epi32(_mm256_castps_si256(n), 23)));
  };
  return {half(x.a, n.a), half(x.b, n.b)};
}
INLINE F split_exponent(F x, F& mantissa) {
  auto half = [](__m256 x, __m256& m) {
    const __m256i i = _mm256_castps_si256(x), n = _mm256_srai_epi32(_mm256_sub_epi32(i, _mm256_set1_epi32(0x3F3504F3)), 23);
    m = _mm256_castsi256_ps(_mm256_sub_epi32(i, _mm256_slli_epi32(n, 23)));
    return _mm256_cvtepi32_ps(n);
  };
  const __m256 a = half(x.a, mantissa.a), b = half(x.b, mantissa.b);
  return {a, b};
}

// One byte of each of sixteen RGBA pixels
INLINE F channel(const uint8_t* pixels, int k) {
  auto half = [k](const uint8_t* p) {
    const __m256i words = _mm256_loadu_si256((const __m256i*)p);
    return _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srl_epi32(words, _mm_cvtsi32_si128(8 * k)), _mm256_set1_epi32(255)));
  };
  return {half(pixels), half(pixels + 32)};
}

// A block of 4 x 4 pixels of a plane: lane 4 y + x
INLINE F load_block(const float* p, size_t pitch) {
  auto two = [pitch](const float* q) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(q)), _mm_loadu_ps(q + pitch), 1);
  };
  return {two(p), two(p + 2 * pitch)};
}
INLINE void store_block(float* p, size_t pitch, F x) {
  _mm_storeu_ps(p, _mm256_castps256_ps128(x.a));
  _mm_storeu_ps(p + pitch, _mm256_extractf128_ps(x.a, 1));
  _mm_storeu_ps(p + 2 * pitch, _mm256_castps256_ps128(x.b));
  _mm_storeu_ps(p + 3 * pitch, _mm256_extractf128_ps(x.b, 1));
}

INLINE float sum(F x) {
  const __m256 s = _mm256_add_ps(x.a, x.b);
  const __m128 t = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  const __m128 u = _mm_add_ps(t, _mm_movehl_ps(t, t));
  return _mm_cvtss_f32(_mm_add_ss(u, _mm_shuffle_ps(u, u, 1)));
}

// Adds the sums of ten vectors to a row of sixteen floats; the sum of s[k] goes to row[place(k)].
INLINE void add_sums(float* row, const F* s) {
  auto quarters = [](F x, F y) {  // four lanes of x, four of y
    const __m256 h = _mm256_add_ps(x.a, x.b), g = _mm256_add_ps(y.a, y.b);
    return _mm256_add_ps(_mm256_permute2f128_ps(h, g, 0x20), _mm256_permute2f128_ps(h, g, 0x31));
  };
  auto pairs = [](__m256 u, __m256 v) { return _mm256_add_ps(_mm256_unpacklo_ps(u, v), _mm256_unpackhi_ps(u, v)); };
  auto add = [](float* to, __m256 p, __m256 q) {
    const __m256d pd = _mm256_castps_pd(p), qd = _mm256_castps_pd(q);
    const __m256 sums = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(pd, qd)), _mm256_castpd_ps(_mm256_unpackhi_pd(pd, qd)));
    _mm256_storeu_ps(to, _mm256_add_ps(_mm256_loadu_ps(to), sums));
  };
  const __m256 none = _mm256_setzero_ps();
  add(row, pairs(quarters(s[0], s[1]), quarters(s[4], s[5])), pairs(quarters(s[8], s[9]), none));
  add(row + 8, pairs(quarters(s[2], s[3]), quarters(s[6], s[7])), none);
}

// Column k of sixteen rows of sixteen floats
INLINE F column(const float* rows, int k) {
  const __m256i at = _mm256_setr_epi32(0, 16, 32, 48, 64, 80, 96, 112);
  return {_mm256_i32gather_ps(rows + k, at, 4), _mm256_i32gather_ps(rows + 128 + k, at, 4)};
}
