// What a caller asks for, lowered to plain scalars: the only thing that dispatch, threads and kernel paths share.
//
// The work is a walk over axes, outermost first. Every axis says by how many bytes each operand moves, and by how many
// indices the noise moves (0 on an axis that shares one draw), so that shards, gathered rows, broadcasting and strided
// data are all the same walk. Nothing here may be inline code: the paths are compiled with different flags.
#pragma once
#include <stdint.h>

#include "attention.h"

namespace dropkit {

enum Dtype : int {
#define DROPKIT_DTYPE(name, code, label, size) name = code,
#include "operations.def"
};

enum Op : int {
#define DROPKIT_OPERATION(name, code, least, most) name = code,
#include "operations.def"
};

constexpr int MOST_AXES = 14;            // of a problem as it is given
constexpr int MAX_AXES = MOST_AXES + 2;  // a walk may add two
constexpr int MAX_INPUTS = 3;

struct Axis {
    int64_t extent;
    int64_t noise;           // indices per step
    int64_t out;             // bytes per step
    int64_t in[MAX_INPUTS];  // bytes per step
};

struct Problem {
    Op op;
    Dtype dtype;
    Dtype rate_dtype;  // of p, for RATES: FLOAT32 or FLOAT64
    int axes_count;    // at least 1
    Axis axes[MAX_AXES];
    const void* in[MAX_INPUTS];
    void* out;
    uint64_t base;        // noise index of the first element
    const int64_t* rows;  // replaces the coordinate along `rows_axis`, or null
    int rows_axis;
    uint32_t key[2];
    uint32_t t;                    // kept out of 65536; at 0 and 65536 no random number is computed
    double scale, shift, dropped;  // of AFFINE; all others take their scale from t
};

// One instruction set: does the walk's elements first .. last - 1, counted in walk order.
struct Path {
    void (*walk)(const Problem& problem, int64_t first, int64_t last);
    void (*uniform)(const uint32_t key[2], uint32_t domain, uint64_t base, int64_t n, float* out);
    void (*attend)(const Rows& rows, int64_t first, int64_t last);
    void (*heads)(const Heads& heads, int64_t first, int64_t last, float* scratch);
};

extern const Path path_portable, path_avx2, path_avx512, path_neon;

}  // namespace dropkit
