// The kernels without Python, for machines that are only emulated and for counting instructions.
//
//     driver check < vectors     every path that runs here: the vectors, then bit for bit what the portable path does
//     driver repeat PATH P N     dropout of 65536 floats with probability P by one path, N times
//
// `vectors` are lines "k0 k1 t first n hex": the keep bits of n consecutive indices, eight a byte (see vectors.py).
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <string>
#include <vector>

#include "../../src/dropkit/kernels/cpu/dispatch.h"

using namespace dropkit;

namespace {

int failures = 0;

void expect(bool truth, const char* what, int path, int detail) {
    if (truth) return;
    printf("FAILED on %s: %s (%d)\n", PATH_NAMES[path], what, detail);
    ++failures;
}

Problem problem(Op op, Dtype dtype, uint32_t t) {
    Problem p = {};
    p.op = op;
    p.dtype = dtype;
    p.t = t;
    p.scale = 0.8864;
    p.shift = 0.7792;
    p.dropped = -0.7791;
    p.key[0] = 123456789;
    p.key[1] = 987654321;
    return p;
}

int check_vectors(int path) {
    char line[4096], hex[4096];
    unsigned k0, k1, t;
    unsigned long long first;
    int n, lines = 0;
    rewind(stdin);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "%u %u %u %llu %d %4095s", &k0, &k1, &t, &first, &n, hex) != 6) exit(2);
        std::vector<uint32_t> out(static_cast<size_t>(n) / 32 + 1, 0);
        Problem p = problem(WORDS, FLOAT32, t);
        p.key[0] = k0;
        p.key[1] = k1;
        p.base = first;
        p.axes_count = 1;
        p.axes[0] = {n, 1, 0, {0, 0, 0}};
        p.out = out.data();
        run(p, path, 1);
        std::string got;
        for (int i = 0; i < (n + 7) / 8; ++i) {
            char byte[3];
            snprintf(byte, sizeof byte, "%02x", out[static_cast<size_t>(i) / 4] >> (i % 4 * 8) & 255);
            got += byte;
        }
        expect(got == hex, "vector", path, ++lines);
    }
    return lines;
}

const Op OPERATIONS[] = {
#define DROPKIT_OPERATION(name, code, least, most) name,
#include "../../src/dropkit/kernels/cpu/operations.def"
};
const Dtype DTYPES[] = {
#define DROPKIT_DTYPE(name, code, label, size) name,
#include "../../src/dropkit/kernels/cpu/operations.def"
};
const int64_t SIZE[] = {
#define DROPKIT_DTYPE(name, code, label, size) size,
#include "../../src/dropkit/kernels/cpu/operations.def"
};

uint32_t state = 1;
uint32_t next() { return state = state * 1664525u + 1013904223u; }

// Bytes that are moderate numbers in every dtype: the exponent's upper bits are kept from being all ones or zeros.
std::vector<char> numbers(Dtype dtype, int64_t n) {
    std::vector<char> bytes(static_cast<size_t>(n * SIZE[dtype]));
    for (int64_t i = 0; i < n; ++i) {
        double value = (static_cast<int32_t>(next()) >> 8) / 2097152.0;  // -4 .. 4
        float single = static_cast<float>(value);
        uint32_t bits;
        memcpy(&bits, &single, 4);
        uint16_t half = static_cast<uint16_t>(bits >> 16);
        if (dtype == FLOAT16) half = static_cast<uint16_t>((next() >> 16 & 0x83ff) | (12 + (next() >> 30)) << 10);
        const void* from = dtype == FLOAT32   ? static_cast<const void*>(&single)
                           : dtype == FLOAT64 ? static_cast<const void*>(&value)
                                              : &half;
        memcpy(&bytes[static_cast<size_t>(i * SIZE[dtype])], from, static_cast<size_t>(SIZE[dtype]));
    }
    return bytes;
}

// Axes of 3 x 5 x 331: plain, shared, sharded, strided, gathered.
void set_layout(Problem& p, int layout, int64_t out_size, const int64_t* in_size, const int64_t* rows) {
    const int64_t extent[3] = {3, 5, 331}, steps[3] = {1655, 331, 1}, turned[3] = {1, 3, 15};
    const int64_t noise[5][3] = {{1655, 331, 1}, {331, 0, 1}, {5, 1, 0}, {7000, 1400, 1}, {1655, 331, 1}};
    p.axes_count = 3;
    p.base = layout == 3 ? (1ull << 37) - 300 : 0;
    p.rows = layout == 4 ? rows : nullptr;
    for (int a = 0; a < 3; ++a) {
        const int64_t step = layout == 1 ? turned[a] : steps[a];
        p.axes[a] = {extent[a], noise[layout][a], step * out_size, {0, 0, 0}};
        for (int k = 0; k < MAX_INPUTS; ++k) p.axes[a].in[k] = steps[a] * in_size[k];
    }
    collapse(p);
}

void check_against_portable(int path, Op op, Dtype dtype, int layout, uint32_t t) {
    const int64_t n = 3 * 5 * 331, rows[3] = {9, 1ll << 40, 9};
    const int64_t out_size = op == KEEP ? 1 : op == WORDS ? 0 : SIZE[dtype];
    const int64_t in_size[3] = {SIZE[dtype], op == RATES ? 4 : SIZE[dtype], SIZE[dtype]};
    std::vector<char> in[3] = {numbers(dtype, n), numbers(op == RATES ? FLOAT32 : dtype, n), numbers(dtype, n)};
    if (op == RATES) {
        for (int64_t i = 0; i < n; ++i) {
            float rate = static_cast<float>(next() >> 8) / 16777216.0f;
            memcpy(&in[1][static_cast<size_t>(i * 4)], &rate, 4);
        }
    }
    std::vector<char> out[2];
    for (int run_portable = 0; run_portable < 2; ++run_portable) {
        out[run_portable].assign(static_cast<size_t>(n * 8 + 8), 0);
        Problem p = problem(op, dtype, t);
        for (int k = 0; k < MAX_INPUTS; ++k) p.in[k] = in[k].data();
        p.out = out[run_portable].data();
        set_layout(p, layout, out_size, in_size, rows);
        run(p, run_portable ? 0 : path, 1);
    }
    // float64 GELU goes through the C library on every path; all else is arithmetic of our own.
    expect(out[0] == out[1], "differs from portable: op * 100 + dtype * 10 + layout", path,
           op * 100 + dtype * 10 + layout);
}

int check() {
    for (int path = 0; path < PATHS; ++path) {
        if (!path_runnable(path)) continue;
        int lines = check_vectors(path), compared = 0;
        for (Op op : OPERATIONS) {
            for (Dtype dtype : DTYPES) {
                for (int layout = 0; layout < 5; ++layout) {
                    for (uint32_t t : {0u, 1u, 32768u, 16384u, 58982u, 65535u, 65536u}) {
                        check_against_portable(path, op, dtype, layout, t);
                        ++compared;
                    }
                }
            }
        }
        printf("%s: %d vectors, %d comparisons with portable\n", PATH_NAMES[path], lines, compared);
    }
    return failures != 0;
}

int repeat(const char* name, double rate, int times) {
    std::vector<float> x(65536, 1.0f), y(65536);
    Problem p = problem(SCALE, FLOAT32, 65536 - static_cast<uint32_t>(rint(rate * 65536)));
    p.axes_count = 1;
    p.axes[0] = {65536, 1, 4, {4, 0, 0}};
    p.in[0] = x.data();
    p.out = y.data();
    for (int i = 0; i < times; ++i) run(p, path_index(name), 1);
    return 0;
}

}  // namespace

int main(int count, char** word) {
    if (count == 2 && strcmp(word[1], "check") == 0) return check();
    if (count == 5 && strcmp(word[1], "repeat") == 0) return repeat(word[2], atof(word[3]), atoi(word[4]));
    return 2;
}
