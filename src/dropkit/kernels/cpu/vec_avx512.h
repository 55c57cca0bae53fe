// The vector layer on AVX-512 (F, BW, DQ, VL). Included inside a path's anonymous namespace; see bits.inc for the
// roles.
#pragma once
#include <immintrin.h>

#include "scalar.h"

#define DROPKIT_THIS_PATH path_avx512

namespace {

// ---- counters: 8 words in the low halves of 64-bit lanes; what stands in the high halves is never looked at, so that
// a 32 x 32 -> 64 bit product is its own low word.
typedef __m512i Vec;
typedef __m512i Product;
constexpr int WORDS_PER_BLOCK = 16;

inline Vec splat(uint32_t a) { return _mm512_set1_epi64(a); }
inline Product mul(Vec a, uint32_t m) { return _mm512_mul_epu32(a, _mm512_set1_epi64(m)); }
inline Vec high(Product a) { return _mm512_srli_epi64(a, 32); }
inline Vec low(Product a) { return a; }
inline Vec xor2(Vec a, Vec b) { return _mm512_xor_si512(a, b); }
inline Vec xor3(Vec a, Vec b, Vec c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
inline Vec both(Vec a, Vec b) { return _mm512_and_si512(a, b); }
inline Vec without(Vec a, Vec b) { return _mm512_andnot_si512(b, a); }
inline Vec or_without(Vec a, Vec b, Vec c) { return _mm512_ternarylogic_epi64(a, b, c, 0xf4); }  // a | (b & ~c)
inline bool any(Vec a, Vec b) {
    return _mm512_mask_test_epi32_mask(0x5555, _mm512_or_si512(a, b), _mm512_set1_epi32(-1)) != 0;
}

// Words w + 0, 2, 4 .. (half 0) or w + 1, 3, 5 .. (half 1) of a block.
inline Vec counters(uint32_t w, int half) {
    return _mm512_add_epi64(splat(w + half), _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0));
}
inline Vec join(Vec even, Vec odd) { return _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32)); }
inline void store_block(uint32_t* out, Vec even, Vec odd) { _mm512_storeu_si512(out, join(even, odd)); }
inline Vec load_block(const uint32_t* in, int half) {
    Vec both_halves = _mm512_loadu_si512(in);
    return half ? _mm512_srli_epi64(both_halves, 32) : both_halves;
}
// Appends the words that are not zero, and their counters, to two lists; how many. Compressing into a register and
// storing all of it is much faster than compressing into memory on some machines.
inline int pack_nonzero(uint32_t* words, uint32_t* w_lo, Vec even, Vec odd, Vec w_even, Vec w_odd) {
    Vec word = join(even, odd);
    __mmask16 some = _mm512_test_epi32_mask(word, word);
    _mm512_storeu_si512(words, _mm512_maskz_compress_epi32(some, word));
    _mm512_storeu_si512(w_lo, _mm512_maskz_compress_epi32(some, join(w_even, w_odd)));
    return __builtin_popcount(some);
}

// ---- data: 16 floats or 8 doubles.
struct F {
    __m512 v;
    static constexpr int lanes = 16;
    typedef float scalar;
};
struct D {
    __m512d v;
    static constexpr int lanes = 8;
    typedef double scalar;
};

inline F operator+(F a, F b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F operator-(F a, F b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F operator*(F a, F b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F operator/(F a, F b) { return {_mm512_div_ps(a.v, b.v)}; }
inline D operator+(D a, D b) { return {_mm512_add_pd(a.v, b.v)}; }
inline D operator*(D a, D b) { return {_mm512_mul_pd(a.v, b.v)}; }
// a * b + c, rounded once where the machine can.
inline F multiply_add(F a, F b, F c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F fill(F, float a) { return {_mm512_set1_ps(a)}; }
inline D fill(D, double a) { return {_mm512_set1_pd(a)}; }
// If an argument is NaN these return the second.
inline F least(F a, F b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F most(F a, F b) { return {_mm512_max_ps(a.v, b.v)}; }
inline D most(D a, D b) { return {_mm512_max_pd(a.v, b.v)}; }
// b where a > 0, else 0.
inline F where_positive(F a, F b) {
    return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.v, _mm512_setzero_ps(), _CMP_GT_OQ), b.v)};
}
inline D where_positive(D a, D b) {
    return {_mm512_maskz_mov_pd(_mm512_cmp_pd_mask(a.v, _mm512_setzero_pd(), _CMP_GT_OQ), b.v)};
}
// 2^n for a whole n in [-126, 127], and 0 for -127.
inline F power_of_two(F n) {
    return {
        _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127)), 23))};
}

inline __mmask16 lanes_of(const uint8_t* bits, int64_t i) {
    uint16_t mask;
    memcpy(&mask, bits + i / 8, 2);
    return mask;
}
// a where the keep bit of elements i .. is set, else +0, or b. `i` is a multiple of the lanes.
inline F keep(F a, const uint8_t* bits, int64_t i) { return {_mm512_maskz_mov_ps(lanes_of(bits, i), a.v)}; }
inline D keep(D a, const uint8_t* bits, int64_t i) { return {_mm512_maskz_mov_pd(bits[i / 8], a.v)}; }
inline F keep(F a, F b, const uint8_t* bits, int64_t i) { return {_mm512_mask_mov_ps(b.v, lanes_of(bits, i), a.v)}; }
inline D keep(D a, D b, const uint8_t* bits, int64_t i) { return {_mm512_mask_mov_pd(b.v, bits[i / 8], a.v)}; }

inline F load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline D load(const double* p) { return {_mm512_loadu_pd(p)}; }
inline F load(const Float16* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
inline F load(const BFloat16* p) {
    __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
}
inline void store(float* p, F a) { _mm512_storeu_ps(p, a.v); }
inline void store(double* p, D a) { _mm512_storeu_pd(p, a.v); }
inline void store(Float16* p, F a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
// Round to nearest even in integers: the bfloat16 instructions flush subnormals. A NaN that comes from bfloat16
// operands has an empty lower half, which the rounding cannot carry out of.
inline void store(BFloat16* p, F a) {
    __m512i bits = _mm512_castps_si512(a.v);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    bits = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
}

}  // namespace
