// Sixteen lanes for any processor: the compiler's vectors, which it maps to the registers that there are.
#pragma once

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));

struct F { Floats v; };
struct M { Ints v; };  // -1 or 0

INLINE Ints bits_of(Floats x) { Ints i; memcpy(&i, &x, sizeof i); return i; }
INLINE Floats floats_of(Ints i) { Floats x; memcpy(&x, &i, sizeof x); return x; }

INLINE F set(float x) { return {x - (Floats){}}; }
INLINE F load(const float* p) { F a; memcpy(&a.v, p, sizeof a.v); return a; }
INLINE void store(float* p, F a) { memcpy(p, &a.v, sizeof a.v); }
INLINE F operator+(F a, F b) { return {a.v + b.v}; }
INLINE F operator-(F a, F b) { return {a.v - b.v}; }
INLINE F operator*(F a, F b) { return {a.v * b.v}; }
INLINE F operator/(F a, F b) { return {a.v / b.v}; }

#define EACH(expression) F r; for (int i = 0; i < 16; i++) r.v[i] = expression; return r
INLINE F fma(F a, F b, F c) { EACH(__builtin_fmaf(a.v[i], b.v[i], c.v[i])); }
INLINE F fnma(F a, F b, F c) { EACH(__builtin_fmaf(-a.v[i], b.v[i], c.v[i])); }
INLINE F sqrt(F a) { EACH(__builtin_sqrtf(a.v[i])); }
INLINE F floor(F a) { EACH(__builtin_floorf(a.v[i])); }
INLINE F ceil(F a) { EACH(__builtin_ceilf(a.v[i])); }
#undef EACH

INLINE M gt(F a, F b) { return {(Ints)(a.v > b.v)}; }
INLINE M ge(F a, F b) { return {(Ints)(a.v >= b.v)}; }
INLINE M eq(F a, F b) { return {(Ints)(a.v == b.v)}; }
INLINE M both(M a, M b) { return {a.v & b.v}; }
INLINE M but_not(M a, M b) { return {a.v & ~b.v}; }
INLINE M gt(M m, F a, F b) { return both(m, gt(a, b)); }
INLINE M ge(M m, F a, F b) { return both(m, ge(a, b)); }
INLINE M mask_of(uint32_t bits) { M m; for (int i = 0; i < 16; i++) m.v[i] = -int32_t(bits >> i & 1); return m; }
INLINE M lanes_below(int n) { return mask_of(n >= 16 ? 0xFFFF : n <= 0 ? 0 : (1u << n) - 1); }
INLINE uint32_t bits(M m) { uint32_t b = 0; for (int i = 0; i < 16; i++) b |= uint32_t(m.v[i] & 1) << i; return b; }
INLINE F select(M m, F a, F b) { return {floats_of((m.v & bits_of(a.v)) | (~m.v & bits_of(b.v)))}; }
INLINE F only(M m, F a) { return {floats_of(m.v & bits_of(a.v))}; }
// As on x86: the second operand where one is not a number.
INLINE F min(F a, F b) { return select({(Ints)(a.v < b.v)}, a, b); }
INLINE F max(F a, F b) { return select({(Ints)(a.v > b.v)}, a, b); }

INLINE F add_to_exponent(F a, F n) { return {floats_of(bits_of(a.v) + (bits_of(n.v) << 23))}; }
INLINE F split_exponent(F x, F& mantissa) {
  const Ints n = (bits_of(x.v) - 0x3F3504F3) >> 23;
  mantissa = {floats_of(bits_of(x.v) - (n << 23))};
  return {__builtin_convertvector(n, Floats)};
}

// One byte of each of sixteen RGBA pixels
INLINE F channel(const uint8_t* pixels, int k) {
  F r;
  for (int i = 0; i < 16; i++) r.v[i] = float(pixels[4 * i + k]);
  return r;
}

// A block of 4 x 4 pixels of a plane: lane 4 y + x
INLINE F load_block(const float* p, size_t pitch) {
  F r;
  for (int y = 0; y < 4; y++) memcpy((char*)&r.v + 16 * y, p + y * pitch, 16);
  return r;
}
INLINE void store_block(float* p, size_t pitch, F a) {
  for (int y = 0; y < 4; y++) memcpy(p + y * pitch, (const char*)&a.v + 16 * y, 16);
}

INLINE float sum(F a) {
  float v[16];
  store(v, a);
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; i++) v[i] = v[i] + v[i + half];
  return v[0];
}

// Adds the sums of ten vectors to a row of sixteen floats; the sum of s[k] goes to row[place(k)].
INLINE void add_sums(float* row, const F* s) {
  for (int k = 0; k < 10; k++) row[4 * (k & 3) + (k >> 2)] += sum(s[k]);
}

// Column k of sixteen rows of sixteen floats
INLINE F column(const float* rows, int k) {
  F r;
  for (int i = 0; i < 16; i++) r.v[i] = rows[16 * i + k];
  return r;
}
