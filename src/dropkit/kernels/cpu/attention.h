// What the softmax between the two matrix products of attention is given: rows of scores.
#pragma once
#include <stdint.h>

namespace dropkit {

struct Rows {
    int64_t heads, queries, keys;  // extents of a block of scores
    const float* scores;           // q k
    float* kept;                   // out, the scores' own memory or other: exp(score - most) where kept; backward: kept p
    float* grads;                  // null in the forward pass; backward: d of kept p in, d of q k out
    int64_t stride;                // of these three, from a query to the next; heads follow without a gap
    float finish;                  // forward: what `kept` is multiplied by besides `inverse`, or 0: by neither
    float* most;                   // of each row: its largest score,
    float* inverse;                // and 1 / the sum of exp(score - most), 0 where no key is visible
    const float* delta;            // backward: of each row, sum of out * d out
    int64_t row_stride;            // of most, inverse and delta, from a head to the next; queries follow
    float scale;
    int64_t diagonal;              // key j is visible to query i if j <= i + diagonal
    const void* mask;              // null, or bytes (1: visible), or floats that are added; keys follow
    bool adds;
    const int64_t* mask_starts;    // of each head, in elements
    int64_t mask_stride;           // from a query to the next
    const uint64_t* noise_starts;  // noise index of each head's first score,
    uint64_t noise_stride;         // and from a query to the next; that of keys is `noise_step`
    int64_t noise_step;            // 1, or 0 where a query's keys share one draw
    bool before;                   // drop before the softmax: a dropped key is not visible
    uint32_t key[2];
    uint32_t t;  // kept out of 65536
};

}  // namespace dropkit
