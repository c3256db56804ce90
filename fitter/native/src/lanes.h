// Sixteen float lanes, and what all instruction sets make of them alike.
//
// A folder of sources is compiled once for each instruction set. `F` is a vector of sixteen floats and `M` a mask of
// sixteen lanes: one register of AVX-512, two of AVX2, an array elsewhere. All three give the same bits, since every
// operation is exactly rounded, sums have one order, and no operation is one of those that processors approximate
// (reciprocals, reciprocal roots). Nothing is contracted: a product and a sum are fused where `fma` says so.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
#include "lanes_avx512.h"
#elif defined(__AVX2__)
#include "lanes_avx2.h"
#else
#include "lanes_portable.h"
#endif

constexpr int LANES = 16;

INLINE F operator+(F a, float b) { return a + set(b); }
INLINE F operator-(F a, float b) { return a - set(b); }
INLINE F operator-(float a, F b) { return set(a) - b; }
INLINE F operator*(F a, float b) { return a * set(b); }
INLINE F operator*(float a, F b) { return set(a) * b; }
INLINE F operator/(float a, F b) { return set(a) / b; }
INLINE F operator-(F a) { return set(0.f) - a; }
INLINE F clamp(F x, F low, F high) { return min(high, max(low, x)); }  // what is not a number stays so
INLINE F magnitude(F x) { return max(x, -x); }
INLINE bool any(M m) { return bits(m) != 0; }

// Sums of four, eight or sixteen lanes halve the vector again and again: lane i and i + 8, then i + 4, i + 2, i + 1.
// `add_sums` puts the sum of vector k into this place of a row of sixteen.
constexpr int place(int k) { return 4 * (k & 3) + (k >> 2); }

constexpr float LOG2E = 1.4426950408889634f;

// 2^x for x in [-126, 127], relative error under 3e-7: a minimax polynomial on [-0.5, 0.5]
INLINE F exp2(F x) {
  // adding 1.5 * 2^23 rounds to a whole number, which then stands in the lowest bits
  const F shifted = x + 12582912.f, f = x - (shifted - 12582912.f);
  F p = fma(set(0.0013276472f), f, set(0.009675541f));
  p = fma(p, f, set(0.05550713f));
  p = fma(p, f, set(0.2402212f));
  p = fma(p, f, set(0.69314694f));
  p = fma(p, f, set(1.0000001f));
  return add_to_exponent(p, shifted);
}

// log2(x) for normal x > 0, error under 2e-7 (1 + |log2 x|); undefined for others
INLINE F log2(F x) {
  // x = m 2^n with m in [0.7, 1.4), and log m = 2 artanh((m - 1) / (m + 1))
  F m;
  const F n = split_exponent(x, m), s = (m - 1.f) / (m + 1.f), t = s * s;
  F p = fma(set(0.3205989f), t, set(0.4121986f));
  p = fma(p, t, set(0.5770780f));
  p = fma(p, t, set(0.9617967f));
  p = fma(p, t, set(2.8853901f));
  return fma(s, p, n);
}
