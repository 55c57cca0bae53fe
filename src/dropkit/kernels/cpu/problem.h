// What a caller asks for, lowered to plain scalars: the only thing that dispatch, threads and kernel paths share.
//
// The work is a walk over axes, outermost first. Every axis says by how many bytes each operand moves, and by how many
// indices the noise moves (0 on an axis that shares one draw), so that shards, gathered rows, broadcasting and strided
// data are all the same walk. Nothing here may be inline code: the paths are compiled with different flags.
#pragma once
#include <stdint.h>

namespace dropkit {

enum Dtype : int { FLOAT32 = 0, FLOAT64 = 1, FLOAT16 = 2, BFLOAT16 = 3 };

enum Op : int {
    SCALE = 0,      // y = keep ? x * scale : 0
    RESIDUAL = 1,   // y = (keep ? x * scale : 0) + r                      inputs x, r
    RELU = 2,       // y = keep ? relu(x + b) * scale : 0                  inputs x, b
    GELU = 3,       // the same with x Phi(x)
    GELU_TANH = 4,  // the same with the tanh form of GELU
    RELU_GRAD = 5,  // dx = keep ? dy * scale * relu'(x + b) : 0           inputs dy, x, b
    GELU_GRAD = 6,
    GELU_TANH_GRAD = 7,
    RATES = 8,    // y = R < T(p) ? x * scale(p) : 0, p by element       inputs x, p
    KEEP = 9,     // y = keep as one byte, 0 or 1                        no inputs
    WORDS = 10,   // y = keep bits packed in 32-bit words, walk order    no inputs
    AFFINE = 11,  // y = keep ? x * scale + shift : dropped, all given   inputs x
    OPS = 12,
};

constexpr int MAX_AXES = 16;
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
    const char* name;
    void (*walk)(const Problem& problem, int64_t first, int64_t last);
    void (*uniform)(const uint32_t key[2], uint32_t domain, uint64_t base, int64_t n, float* out);
};

extern const Path path_portable, path_avx2, path_avx512, path_neon;

}  // namespace dropkit
