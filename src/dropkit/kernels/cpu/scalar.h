// Half types and their exact scalar conversions, in the including path's anonymous namespace: an inline function shared
// by translation units with different flags could run AVX-512 code on a machine without it.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "problem.h"

#if defined(_MSC_VER)
#define DROPKIT_INLINE __forceinline
#else
#define DROPKIT_INLINE inline __attribute__((always_inline))
#endif

namespace {

using namespace dropkit;

struct Float16 {
    uint16_t bits;
};
struct BFloat16 {
    uint16_t bits;
};

inline uint32_t bits_of(float a) {
    uint32_t bits;
    memcpy(&bits, &a, 4);
    return bits;
}
inline float float_of(uint32_t bits) {
    float a;
    memcpy(&a, &bits, 4);
    return a;
}

inline float widen(BFloat16 a) { return float_of(static_cast<uint32_t>(a.bits) << 16); }

inline BFloat16 narrow_bfloat16(float a) {
    uint32_t bits = bits_of(a), rounded = bits + 0x7fff + (bits >> 16 & 1);
    return {static_cast<uint16_t>((a != a ? bits | 0x400000 : rounded) >> 16)};
}

// Shift exponent and mantissa into place, then let a multiplication by 2^112 rebias: exact for subnormals too.
inline float widen(Float16 a) {
    uint32_t magnitude = a.bits & 0x7fffu, sign = (a.bits & 0x8000u) << 16;
    if (magnitude >= 0x7c00)
        return float_of(sign | 0x7f800000u | (magnitude & 0x3ff) << 13 | (magnitude > 0x7c00 ? 0x400000u : 0u));
    return float_of(sign | bits_of(float_of(magnitude << 13) * 0x1p112f));
}

// Adding 2^(e+13), with e the exponent of a, makes the addition itself round to the 10 bits that stay, to nearest even.
inline Float16 narrow_float16(float a) {
    uint32_t bits = bits_of(a), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return {static_cast<uint16_t>(sign | 0x7e00 | (magnitude >> 13 & 0x3ff))};
    if (magnitude >= 0x477ff000) return {static_cast<uint16_t>(sign | 0x7c00)};  // 65520 and more
    uint32_t exponent = magnitude >> 23 < 113 ? 113 : magnitude >> 23;           // below 2^-14: subnormal halves
    float anchor = float_of((exponent + 13) << 23);
    uint32_t rounded = bits_of(float_of(magnitude) + anchor) - bits_of(anchor);  // in units of the last place
    return {static_cast<uint16_t>(sign | (rounded + ((exponent - 113) << 10)))};
}

}  // namespace
