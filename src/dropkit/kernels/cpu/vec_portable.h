// The vector layer in plain C++: one counter word, eight floats in an array that the compiler may vectorise.
#pragma once
#include "scalar.h"

#define DROPKIT_THIS_PATH path_portable

namespace {

typedef uint32_t Vec;
typedef uint64_t Product;
constexpr int WORDS_PER_BLOCK = 2;

inline Vec splat(uint32_t a) { return a; }
inline Product mul(Vec a, uint32_t m) { return static_cast<uint64_t>(a) * m; }
inline Vec high(Product a) { return static_cast<uint32_t>(a >> 32); }
inline Vec low(Product a) { return static_cast<uint32_t>(a); }
inline Vec xor2(Vec a, Vec b) { return a ^ b; }
inline Vec xor3(Vec a, Vec b, Vec c) { return a ^ b ^ c; }
inline Vec both(Vec a, Vec b) { return a & b; }
inline Vec without(Vec a, Vec b) { return a & ~b; }
inline Vec or_without(Vec a, Vec b, Vec c) { return a | (b & ~c); }
inline bool any(Vec a, Vec b) { return (a | b) != 0; }
inline Vec counters(uint32_t w, int half) { return w + static_cast<uint32_t>(half); }
inline void store_block(uint32_t* out, Vec first, Vec second) {
    out[0] = first;
    out[1] = second;
}
inline Vec load_block(const uint32_t* in, int half) { return in[half]; }
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

template <class T>
struct Array {
    static constexpr int lanes = 8;
    typedef T scalar;
    T v[lanes];
};
typedef Array<float> F;
typedef Array<double> D;

template <class T, class Each>
inline Array<T> map(Each each) {
    Array<T> result;
    for (int i = 0; i < Array<T>::lanes; ++i) result.v[i] = each(i);
    return result;
}
template <class T>
inline Array<T> operator+(const Array<T>& a, const Array<T>& b) {
    return map<T>([&](int i) { return a.v[i] + b.v[i]; });
}
template <class T>
inline Array<T> operator-(const Array<T>& a, const Array<T>& b) {
    return map<T>([&](int i) { return a.v[i] - b.v[i]; });
}
template <class T>
inline Array<T> operator*(const Array<T>& a, const Array<T>& b) {
    return map<T>([&](int i) { return a.v[i] * b.v[i]; });
}
template <class T>
inline Array<T> operator/(const Array<T>& a, const Array<T>& b) {
    return map<T>([&](int i) { return a.v[i] / b.v[i]; });
}
// a * b + c, rounded once where the machine can.
inline F multiply_add(const F& a, const F& b, const F& c) { return a * b + c; }
template <class T>
inline Array<T> fill(Array<T>, T a) {
    return map<T>([&](int) { return a; });
}
// If an argument is NaN these return the second.
template <class T>
inline Array<T> least(const Array<T>& a, const Array<T>& b) {
    return map<T>([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
template <class T>
inline Array<T> most(const Array<T>& a, const Array<T>& b) {
    return map<T>([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
// b where a > 0, else 0.
template <class T>
inline Array<T> where_positive(const Array<T>& a, const Array<T>& b) {
    return map<T>([&](int i) { return a.v[i] > 0 ? b.v[i] : T(0); });
}
// 2^n for a whole n in [-126, 127], and 0 for -127: adding 1.5 * 2^23 leaves n in the low bits.
inline F power_of_two(const F& n) {
    return map<float>([&](int i) { return float_of((bits_of(n.v[i] + 12582912.0f) + 127) << 23); });
}

// a where the keep bit of elements i .. is set, else +0, or b. `i` is a multiple of the lanes.
inline F keep(const F& a, const uint8_t* bits, int64_t i) {
    uint32_t byte = bits[i / 8];
    return map<float>([&](int j) { return float_of(bits_of(a.v[j]) & (0u - (byte >> j & 1))); });
}
inline D keep(const D& a, const uint8_t* bits, int64_t i) {
    uint32_t byte = bits[i / 8];
    return map<double>([&](int j) { return byte >> j & 1 ? a.v[j] : 0.0; });
}
inline F keep(const F& a, const F& b, const uint8_t* bits, int64_t i) {
    uint32_t byte = bits[i / 8];
    return map<float>([&](int j) {
        uint32_t kept = 0u - (byte >> j & 1);
        return float_of((bits_of(a.v[j]) & kept) | (bits_of(b.v[j]) & ~kept));
    });
}
inline D keep(const D& a, const D& b, const uint8_t* bits, int64_t i) {
    uint32_t byte = bits[i / 8];
    return map<double>([&](int j) { return byte >> j & 1 ? a.v[j] : b.v[j]; });
}

inline F load(const float* p) {
    return map<float>([&](int i) { return p[i]; });
}
inline D load(const double* p) {
    return map<double>([&](int i) { return p[i]; });
}
inline F load(const Float16* p) {
    return map<float>([&](int i) { return widen(p[i]); });
}
inline F load(const BFloat16* p) {
    return map<float>([&](int i) { return widen(p[i]); });
}
inline void store(float* p, const F& a) { memcpy(p, a.v, sizeof a.v); }
inline void store(double* p, const D& a) { memcpy(p, a.v, sizeof a.v); }
inline void store(Float16* p, const F& a) {
    for (int i = 0; i < F::lanes; ++i) p[i] = narrow_float16(a.v[i]);
}
inline void store(BFloat16* p, const F& a) {
    for (int i = 0; i < F::lanes; ++i) p[i] = narrow_bfloat16(a.v[i]);
}

}  // namespace
