// What attention is given: rows of scores for the softmax between two matrix products, or heads for all of it.
#pragma once
#include <stdint.h>

namespace dropkit {

struct Rows {
    int64_t heads, queries, keys;  // extents of a block of scores
    float* scores;                 // forward: q k in, exp(score - most) where kept out; backward: q k in, kept p out
    float* grads;                  // null in the forward pass; backward: d of kept p in, d of q k out
    int64_t stride;                // of scores and grads, from a query to the next; heads follow without a gap
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

// A tensor of batch x heads x length x features, whose features follow one another; steps in elements.
struct Lengths {
    float* at;
    int64_t sample, head, row;
};

// Attention of whole heads, forward where `flow` is null, else backward.
struct Heads {
    Rows rows;  // scores, grads, stride and delta are not looked at
    int64_t batch, heads, groups;  // heads of k and v, each of which serves `groups` of q
    int64_t features, others;      // of q and k, of v and out
    Lengths q, k, v, out;
    Lengths flow, dq, dk, dv;      // d out in, what follows from it out
    float* weights;                // null, or kept for backward: of each row exp(score - most), negative where dropped
    const float* of_lse;           // null, or the gradient of each row's log-sum-exp
    float* of_mask;                // null, or to be filled with the gradient of q k, keys without a gap
};

constexpr int64_t PAD = 16;  // rows of weights and of scratch memory are filled up to whole vectors

int64_t padded(int64_t n);
int64_t queries_together(const Heads& h);  // rows of scores that are held at once
int64_t scratch_of(const Heads& h);        // floats that whoever does some of the heads needs

}  // namespace dropkit
