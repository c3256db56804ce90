// Sixteen lanes in one register of AVX-512 (F, BW, DQ, VL).
#pragma once
#include <immintrin.h>

struct F { __m512 v; };
typedef __mmask16 M;

INLINE F set(float x) { return {_mm512_set1_ps(x)}; }
INLINE F load(const float* p) { return {_mm512_loadu_ps(p)}; }
INLINE void store(float* p, F a) { _mm512_storeu_ps(p, a.v); }
INLINE F operator+(F a, F b) { return {_mm512_add_ps(a.v, b.v)}; }
INLINE F operator-(F a, F b) { return {_mm512_sub_ps(a.v, b.v)}; }
INLINE F operator*(F a, F b) { return {_mm512_mul_ps(a.v, b.v)}; }
INLINE F operator/(F a, F b) { return {_mm512_div_ps(a.v, b.v)}; }
INLINE F fma(F a, F b, F c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }    // a b + c
INLINE F fnma(F a, F b, F c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }  // c - a b
INLINE F min(F a, F b) { return {_mm512_min_ps(a.v, b.v)}; }                // a < b ? a : b
INLINE F max(F a, F b) { return {_mm512_max_ps(a.v, b.v)}; }                // a > b ? a : b
INLINE F sqrt(F a) { return {_mm512_sqrt_ps(a.v)}; }
INLINE F floor(F a) { return {_mm512_roundscale_ps(a.v, 9)}; }
INLINE F ceil(F a) { return {_mm512_roundscale_ps(a.v, 10)}; }

INLINE M gt(F a, F b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ); }
INLINE M ge(F a, F b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ); }
INLINE M eq(F a, F b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ); }
INLINE M gt(M m, F a, F b) { return _mm512_mask_cmp_ps_mask(m, a.v, b.v, _CMP_GT_OQ); }  // within m
INLINE M ge(M m, F a, F b) { return _mm512_mask_cmp_ps_mask(m, a.v, b.v, _CMP_GE_OQ); }
INLINE M both(M a, M b) { return M(a & b); }
INLINE M but_not(M a, M b) { return M(a & ~b); }
INLINE M lanes_below(int n) { return n >= 16 ? M(0xFFFF) : n <= 0 ? M(0) : M((1u << n) - 1); }
INLINE M mask_of(uint32_t bits) { return M(bits); }
INLINE uint32_t bits(M m) { return m; }
INLINE F select(M m, F a, F b) { return {_mm512_mask_mov_ps(b.v, m, a.v)}; }
INLINE F only(M m, F a) { return {_mm512_maskz_mov_ps(m, a.v)}; }

INLINE F add_to_exponent(F a, F n) {
  return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a.v), _mm512_slli_epi32(_mm512_castps_si512(n.v), 23)))};
}
INLINE F split_exponent(F x, F& mantissa) {
  const __m512i i = _mm512_castps_si512(x.v), n = _mm512_srai_epi32(_mm512_sub_epi32(i, _mm512_set1_epi32(0x3F3504F3)), 23);
  mantissa = {_mm512_castsi512_ps(_mm512_sub_epi32(i, _mm512_slli_epi32(n, 23)))};
  return {_mm512_cvtepi32_ps(n)};
}

// One byte of each of sixteen RGBA pixels
INLINE F channel(const uint8_t* pixels, int k) {
  const __m512i words = _mm512_loadu_si512((const void*)pixels);
  return {_mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srl_epi32(words, _mm_cvtsi32_si128(8 * k)), _mm512_set1_epi32(255)))};
}

// A block of 4 x 4 pixels of a plane: lane 4 y + x
INLINE F load_block(const float* p, size_t pitch) {
  const __m128 a = _mm_loadu_ps(p), b = _mm_loadu_ps(p + pitch), c = _mm_loadu_ps(p + 2 * pitch), d = _mm_loadu_ps(p + 3 * pitch);
  const __m256 low = _mm256_insertf128_ps(_mm256_castps128_ps256(a), b, 1), high = _mm256_insertf128_ps(_mm256_castps128_ps256(c), d, 1);
  return {_mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1)};
}
INLINE void store_block(float* p, size_t pitch, F a) {
  _mm_storeu_ps(p, _mm512_castps512_ps128(a.v));
  _mm_storeu_ps(p + pitch, _mm512_extractf32x4_ps(a.v, 1));
  _mm_storeu_ps(p + 2 * pitch, _mm512_extractf32x4_ps(a.v, 2));
  _mm_storeu_ps(p + 3 * pitch, _mm512_extractf32x4_ps(a.v, 3));
}

INLINE float sum(F a) {
  const __m256 s = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 t = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  const __m128 u = _mm_add_ps(t, _mm_movehl_ps(t, t));
  return _mm_cvtss_f32(_mm_add_ss(u, _mm_shuffle_ps(u, u, 1)));
}

// Adds the sums of ten vectors to a row of sixteen floats; the sum of s[k] goes to row[place(k)].
INLINE void add_sums(float* row, const F* s) {
  auto halves = [](F a, F b) {  // eight lanes of a, eight of b
    return _mm512_add_ps(_mm512_shuffle_f32x4(a.v, b.v, 0x44), _mm512_shuffle_f32x4(a.v, b.v, 0xEE));
  };
  auto quarters = [](__m512 p, __m512 q) {  // four lanes of each of four
    return _mm512_add_ps(_mm512_shuffle_f32x4(p, q, 0x88), _mm512_shuffle_f32x4(p, q, 0xDD));
  };
  const __m512 u = quarters(halves(s[0], s[1]), halves(s[2], s[3])), v = quarters(halves(s[4], s[5]), halves(s[6], s[7]));
  const __m512 w = quarters(halves(s[8], s[9]), _mm512_setzero_ps());
  const __m512 p = _mm512_add_ps(_mm512_unpacklo_ps(u, v), _mm512_unpackhi_ps(u, v));
  const __m512 q = _mm512_add_ps(_mm512_unpacklo_ps(w, _mm512_setzero_ps()), _mm512_unpackhi_ps(w, _mm512_setzero_ps()));
  const __m512d pd = _mm512_castps_pd(p), qd = _mm512_castps_pd(q);
  const __m512 sums = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(pd, qd)), _mm512_castpd_ps(_mm512_unpackhi_pd(pd, qd)));
  _mm512_storeu_ps(row, _mm512_add_ps(_mm512_loadu_ps(row), sums));
}

// Column k of sixteen rows of sixteen floats
INLINE F column(const float* rows, int k) {
  const __m512i at = _mm512_setr_epi32(0, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240);
  return {_mm512_i32gather_ps(at, rows + k, 4)};
}
