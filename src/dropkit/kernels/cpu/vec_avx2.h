// The vector layer on AVX2 and F16C. Included inside a path's anonymous namespace; see bits.inc for the roles.
#pragma once
#include <immintrin.h>

#include "scalar.h"

#define DROPKIT_THIS_PATH path_avx2

namespace {

// ---- counters: 4 words in the low halves of 64-bit lanes; what stands in the high halves is never looked at, so that
// a 32 x 32 -> 64 bit product is its own low word.
typedef __m256i Vec;
typedef __m256i Product;
constexpr int WORDS_PER_BLOCK = 8;

inline Vec splat(uint32_t a) { return _mm256_set1_epi64x(a); }
inline Product mul(Vec a, uint32_t m) { return _mm256_mul_epu32(a, _mm256_set1_epi64x(m)); }
inline Vec high(Product a) { return _mm256_srli_epi64(a, 32); }
inline Vec low(Product a) { return a; }
inline Vec xor2(Vec a, Vec b) { return _mm256_xor_si256(a, b); }
inline Vec xor3(Vec a, Vec b, Vec c) { return xor2(xor2(a, b), c); }
inline Vec both(Vec a, Vec b) { return _mm256_and_si256(a, b); }
inline Vec without(Vec a, Vec b) { return _mm256_andnot_si256(b, a); }
inline Vec or_without(Vec a, Vec b, Vec c) { return _mm256_or_si256(a, without(b, c)); }
inline bool any(Vec a, Vec b) { return !_mm256_testz_si256(_mm256_or_si256(a, b), splat(~0u)); }

// Words w + 0, 2, 4, 6 (half 0) or w + 1, 3, 5, 7 (half 1) of a block.
inline Vec counters(uint32_t w, int half) {
    return _mm256_add_epi64(splat(w + static_cast<uint32_t>(half)), _mm256_set_epi64x(6, 4, 2, 0));
}
inline void store_block(uint32_t* out, Vec even, Vec odd) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa));
}
inline Vec load_block(const uint32_t* in, int half) {
    Vec both_halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in));
    return half ? _mm256_srli_epi64(both_halves, 32) : both_halves;
}
// Appends the words that are not zero, and their counters, to two lists; how many.
inline int pack_nonzero(uint32_t* words, uint32_t* w_lo, Vec even, Vec odd, Vec w_even, Vec w_odd) {
    uint32_t word[WORDS_PER_BLOCK], w[WORDS_PER_BLOCK];
    store_block(word, even, odd);
    store_block(w, w_even, w_odd);
    int n = 0;
    for (int i = 0; i < WORDS_PER_BLOCK; ++i) {
        words[n] = word[i];
        w_lo[n] = w[i];
        n += word[i] != 0;
    }
    return n;
}

// ---- data: 8 floats or 4 doubles.
struct F {
    __m256 v;
    static constexpr int lanes = 8;
    typedef float scalar;
};
struct D {
    __m256d v;
    static constexpr int lanes = 4;
    typedef double scalar;
};

inline F operator+(F a, F b) { return {_mm256_add_ps(a.v, b.v)}; }
inline F operator-(F a, F b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline F operator*(F a, F b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline F operator/(F a, F b) { return {_mm256_div_ps(a.v, b.v)}; }
inline D operator+(D a, D b) { return {_mm256_add_pd(a.v, b.v)}; }
inline D operator*(D a, D b) { return {_mm256_mul_pd(a.v, b.v)}; }
// a * b + c, rounded once where the machine can.
inline F multiply_add(F a, F b, F c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline F fill(F, float a) { return {_mm256_set1_ps(a)}; }
inline D fill(D, double a) { return {_mm256_set1_pd(a)}; }
// If an argument is NaN these return the second.
inline F least(F a, F b) { return {_mm256_min_ps(a.v, b.v)}; }
inline F most(F a, F b) { return {_mm256_max_ps(a.v, b.v)}; }
inline D most(D a, D b) { return {_mm256_max_pd(a.v, b.v)}; }
// b where a > 0, else 0.
inline F where_positive(F a, F b) { return {_mm256_and_ps(_mm256_cmp_ps(a.v, _mm256_setzero_ps(), _CMP_GT_OQ), b.v)}; }
inline D where_positive(D a, D b) { return {_mm256_and_pd(_mm256_cmp_pd(a.v, _mm256_setzero_pd(), _CMP_GT_OQ), b.v)}; }
// 2^n for a whole n in [-126, 127], and 0 for -127.
inline F power_of_two(F n) {
    return {
        _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127)), 23))};
}

// All ones in the lanes whose keep bit is set.
inline __m256 lanes_of(F, const uint8_t* bits, int64_t i) {
    const __m256i lane = _mm256_set_epi32(128, 64, 32, 16, 8, 4, 2, 1);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits[i / 8]), lane), lane));
}
inline __m256d lanes_of(D, const uint8_t* bits, int64_t i) {
    const __m256i lane = _mm256_set_epi64x(8, 4, 2, 1);
    __m256i mask = _mm256_and_si256(_mm256_set1_epi64x(bits[i / 8] >> (i & 4)), lane);
    return _mm256_castsi256_pd(_mm256_cmpeq_epi64(mask, lane));
}
// a where the keep bit of elements i .. is set, else +0, or b. `i` is a multiple of the lanes.
inline F keep(F a, const uint8_t* bits, int64_t i) { return {_mm256_and_ps(a.v, lanes_of(a, bits, i))}; }
inline D keep(D a, const uint8_t* bits, int64_t i) { return {_mm256_and_pd(a.v, lanes_of(a, bits, i))}; }
inline F keep(F a, F b, const uint8_t* bits, int64_t i) { return {_mm256_blendv_ps(b.v, a.v, lanes_of(a, bits, i))}; }
inline D keep(D a, D b, const uint8_t* bits, int64_t i) { return {_mm256_blendv_pd(b.v, a.v, lanes_of(a, bits, i))}; }

inline F load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline D load(const double* p) { return {_mm256_loadu_pd(p)}; }
inline F load(const Float16* p) { return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
inline F load(const BFloat16* p) {
    __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16))};
}
inline void store(float* p, F a) { _mm256_storeu_ps(p, a.v); }
inline void store(double* p, D a) { _mm256_storeu_pd(p, a.v); }
inline void store(Float16* p, F a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
// Round to nearest even in integers. A NaN that comes from bfloat16 operands has an empty lower half, which the
// rounding cannot carry out of.
inline void store(BFloat16* p, F a) {
    __m256i bits = _mm256_castps_si256(a.v);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    bits = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
    __m128i half = _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), half);
}

}  // namespace
