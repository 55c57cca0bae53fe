// The vector layer on NEON (64-bit ARM). Included inside a path's anonymous namespace; see bits.inc for the roles.
#pragma once
#include <arm_neon.h>

#include "scalar.h"

#define DROPKIT_THIS_PATH path_neon

namespace {

// ---- counters: 4 words; a product is two vectors of 64-bit lanes.
typedef uint32x4_t Vec;
struct Product {
    uint32x4_t first, second;
};
constexpr int WORDS_PER_BLOCK = 8;

inline Vec splat(uint32_t a) { return vdupq_n_u32(a); }
inline Product mul(Vec a, uint32_t m) {
    return {vreinterpretq_u32_u64(vmull_u32(vget_low_u32(a), vdup_n_u32(m))),
            vreinterpretq_u32_u64(vmull_high_u32(a, vdupq_n_u32(m)))};
}
inline Vec high(Product a) { return vuzp2q_u32(a.first, a.second); }
inline Vec low(Product a) { return vuzp1q_u32(a.first, a.second); }
inline Vec xor2(Vec a, Vec b) { return veorq_u32(a, b); }
inline Vec xor3(Vec a, Vec b, Vec c) { return xor2(xor2(a, b), c); }
inline Vec both(Vec a, Vec b) { return vandq_u32(a, b); }
inline Vec without(Vec a, Vec b) { return vbicq_u32(a, b); }
inline Vec or_without(Vec a, Vec b, Vec c) { return vorrq_u32(a, without(b, c)); }
inline bool any(Vec a, Vec b) { return vmaxvq_u32(vorrq_u32(a, b)) != 0; }

// Words w .. w + 3 (half 0) or w + 4 .. w + 7 (half 1) of a block.
inline Vec counters(uint32_t w, int half) {
    const uint32_t lane[4] = {0, 1, 2, 3};
    return vaddq_u32(splat(w + 4 * static_cast<uint32_t>(half)), vld1q_u32(lane));
}
inline void store_block(uint32_t* out, Vec first, Vec second) {
    vst1q_u32(out, first);
    vst1q_u32(out + 4, second);
}
inline Vec load_block(const uint32_t* in, int half) { return vld1q_u32(in + 4 * half); }
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

// ---- data: 4 floats or 2 doubles.
struct F {
    float32x4_t v;
    static constexpr int lanes = 4;
    typedef float scalar;
};
struct D {
    float64x2_t v;
    static constexpr int lanes = 2;
    typedef double scalar;
};

inline F operator+(F a, F b) { return {vaddq_f32(a.v, b.v)}; }
inline F operator-(F a, F b) { return {vsubq_f32(a.v, b.v)}; }
inline F operator*(F a, F b) { return {vmulq_f32(a.v, b.v)}; }
inline F operator/(F a, F b) { return {vdivq_f32(a.v, b.v)}; }
inline D operator+(D a, D b) { return {vaddq_f64(a.v, b.v)}; }
inline D operator*(D a, D b) { return {vmulq_f64(a.v, b.v)}; }
// a * b + c, rounded once where the machine can.
inline F multiply_add(F a, F b, F c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
inline F fill(F, float a) { return {vdupq_n_f32(a)}; }
inline D fill(D, double a) { return {vdupq_n_f64(a)}; }
// If an argument is NaN these return the second.
inline F least(F a, F b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
inline F most(F a, F b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
inline D most(D a, D b) { return {vbslq_f64(vcgtq_f64(a.v, b.v), a.v, b.v)}; }
// b where a > 0, else 0.
inline F where_positive(F a, F b) {
    return {vreinterpretq_f32_u32(vandq_u32(vcgtzq_f32(a.v), vreinterpretq_u32_f32(b.v)))};
}
inline D where_positive(D a, D b) {
    return {vreinterpretq_f64_u64(vandq_u64(vcgtzq_f64(a.v), vreinterpretq_u64_f64(b.v)))};
}
// 2^n for a whole n in [-126, 127], and 0 for -127.
inline F power_of_two(F n) {
    return {vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n.v), vdupq_n_s32(127)), 23))};
}

// All ones in the lanes whose keep bit is set.
inline uint32x4_t lanes_of(F, const uint8_t* bits, int64_t i) {
    const uint32_t lane[4] = {1, 2, 4, 8};
    return vtstq_u32(vdupq_n_u32(static_cast<uint32_t>(bits[i / 8] >> (i & 4))), vld1q_u32(lane));
}
inline uint64x2_t lanes_of(D, const uint8_t* bits, int64_t i) {
    const uint64_t lane[2] = {1, 2};
    return vtstq_u64(vdupq_n_u64(static_cast<uint64_t>(bits[i / 8] >> (i & 6))), vld1q_u64(lane));
}
// a where the keep bit of elements i .. is set, else +0, or b. `i` is a multiple of the lanes.
inline F keep(F a, const uint8_t* bits, int64_t i) {
    return {vreinterpretq_f32_u32(vandq_u32(lanes_of(a, bits, i), vreinterpretq_u32_f32(a.v)))};
}
inline D keep(D a, const uint8_t* bits, int64_t i) {
    return {vreinterpretq_f64_u64(vandq_u64(lanes_of(a, bits, i), vreinterpretq_u64_f64(a.v)))};
}
inline F keep(F a, F b, const uint8_t* bits, int64_t i) { return {vbslq_f32(lanes_of(a, bits, i), a.v, b.v)}; }
inline D keep(D a, D b, const uint8_t* bits, int64_t i) { return {vbslq_f64(lanes_of(a, bits, i), a.v, b.v)}; }

inline F load(const float* p) { return {vld1q_f32(p)}; }
inline D load(const double* p) { return {vld1q_f64(p)}; }
inline F load(const Float16* p) { return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)))}; }
inline F load(const BFloat16* p) { return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&p->bits), 16))}; }
inline void store(float* p, F a) { vst1q_f32(p, a.v); }
inline void store(double* p, D a) { vst1q_f64(p, a.v); }
inline void store(Float16* p, F a) { vst1_u16(&p->bits, vreinterpret_u16_f16(vcvt_f16_f32(a.v))); }
// Round to nearest even in integers. A NaN that comes from bfloat16 operands has an empty lower half, which the
// rounding cannot carry out of.
inline void store(BFloat16* p, F a) {
    uint32x4_t bits = vreinterpretq_u32_f32(a.v);
    uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    vst1_u16(&p->bits, vshrn_n_u32(vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd), 16));
}

}  // namespace
