// CPU detection, the choice of a path, and the cut of a problem into parts for threads.
#include "dispatch.h"

#include <string.h>

#include "pages.h"
#include "philox.h"
#include "pool.h"

#if defined(_MSC_VER) && defined(_M_X64)
#include <immintrin.h>
#include <intrin.h>
#endif

namespace dropkit {

const char* const PATH_NAMES[PATHS] = {
#define DROPKIT_PATH(name, label) label,
#include "operations.def"
};

namespace {

const Path* compiled(int index) {
    switch (index) {
        case PORTABLE: return &path_portable;
#ifdef DROPKIT_NEON
        case NEON: return &path_neon;
#endif
#ifdef DROPKIT_AVX2
        case AVX2: return &path_avx2;
#endif
#ifdef DROPKIT_AVX512
        case AVX512: return &path_avx512;
#endif
        default: return nullptr;
    }
}

#if defined(_MSC_VER) && defined(_M_X64)
// CPUID leaf 7 tells the instructions, XCR0 whether the system saves the registers.
bool detected(int index) {
    int leaf1[4], leaf7[4];
    __cpuid(leaf1, 1);
    __cpuidex(leaf7, 7, 0);
    bool saves = (leaf1[2] >> 27 & 1) != 0;
    uint64_t xcr0 = saves ? _xgetbv(0) : 0;
    bool avx2 = (xcr0 & 6) == 6 && (leaf7[1] >> 5 & 1) && (leaf1[2] >> 12 & 1) && (leaf1[2] >> 29 & 1);
    if (index == AVX2) return avx2;
    const int wanted = 1 << 16 | 1 << 17 | 1 << 30 | 1 << 31;  // F, DQ, BW, VL
    return avx2 && (xcr0 & 0xe6) == 0xe6 && (leaf7[1] & wanted) == wanted;
}
#elif defined(__x86_64__)
bool detected(int index) {
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (index == AVX2) return avx2;
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#else
bool detected(int) { return true; }  // NEON belongs to every 64-bit ARM
#endif

// Below this many elements a part is not worth waking a thread for.
constexpr int64_t GRAIN = 16384;
constexpr int64_t CUT = 4096;  // parts start at multiples of this, so that packed words belong to one part

int64_t parts_of(int64_t total, int threads) {
    int64_t parts = total / GRAIN;
    if (parts > threads) parts = threads;
    return parts < 1 ? 1 : parts;
}

struct Range {
    int64_t lo, hi;
};

Range part_range(int64_t total, int64_t part, int64_t parts) {
    int64_t size = (total / parts + CUT - 1) / CUT * CUT;
    int64_t lo = part * size, hi = part + 1 == parts ? total : lo + size;
    if (lo > total) lo = total;
    if (hi > total) hi = total;
    return {lo, hi};
}

struct Walk {
    const Path* path;
    const Problem* problem;
    int64_t total;
};

void walk_part(void* context, int64_t part, int64_t parts) {
    const Walk& w = *static_cast<const Walk*>(context);
    Range r = part_range(w.total, part, parts);
    w.path->walk(*w.problem, r.lo, r.hi);
}

struct Uniform {
    const Path* path;
    const uint32_t* key;
    uint32_t domain;
    uint64_t base;
    int64_t n;
    float* out;
};

struct Attention {
    const Path* path;
    const Rows* rows;
    int64_t total;
};

void attention_part(void* context, int64_t part, int64_t parts) {
    const Attention& a = *static_cast<const Attention*>(context);
    a.path->attend(*a.rows, a.total * part / parts, a.total * (part + 1) / parts);
}

struct WholeHeads {
    const Path* path;
    const Heads* heads;
    float* scratch;
    int64_t each;
};

void heads_part(void* context, int64_t part, int64_t parts) {
    const WholeHeads& a = *static_cast<const WholeHeads*>(context);
    const int64_t total = a.heads->batch * a.heads->heads;
    a.path->heads(*a.heads, total * part / parts, total * (part + 1) / parts, a.scratch + part * a.each);
}

void uniform_part(void* context, int64_t part, int64_t parts) {
    const Uniform& u = *static_cast<const Uniform*>(context);
    Range r = part_range(u.n, part, parts);
    u.path->uniform(u.key, u.domain, u.base + static_cast<uint64_t>(r.lo), r.hi - r.lo, u.out + r.lo);
}

bool mergeable(const Problem& p, int a) {
    const Axis &outer = p.axes[a], &inner = p.axes[a + 1];
    if (p.rows && (a == p.rows_axis || a + 1 == p.rows_axis)) return false;
    bool same = outer.noise == inner.noise * inner.extent && outer.out == inner.out * inner.extent;
    for (int k = 0; k < MAX_INPUTS; ++k) same = same && (!p.in[k] || outer.in[k] == inner.in[k] * inner.extent);
    return same;
}

void remove_axis(Problem& p, int a) {
    for (int i = a; i + 1 < p.axes_count; ++i) p.axes[i] = p.axes[i + 1];
    --p.axes_count;
    if (p.rows && a < p.rows_axis) --p.rows_axis;
}

}  // namespace

int path_index(const char* name) {
    for (int i = 0; i < PATHS; ++i) {
        if (strcmp(name, PATH_NAMES[i]) == 0) return i;
    }
    return -1;
}

bool path_compiled(int index) { return index >= 0 && index < PATHS && compiled(index) != nullptr; }

bool path_runnable(int index) { return path_compiled(index) && (index == PORTABLE || detected(index)); }

int best_path() {
    for (int i = PATHS - 1; i > PORTABLE; --i) {
        if (path_runnable(i)) return i;
    }
    return PORTABLE;
}

void collapse(Problem& p) {
    for (int a = p.axes_count - 1; a >= 0 && p.axes_count > 1; --a) {
        if (p.axes[a].extent == 1 && !(p.rows && a == p.rows_axis)) remove_axis(p, a);
    }
    for (int a = p.axes_count - 2; a >= 0; --a) {
        if (!mergeable(p, a)) continue;
        p.axes[a + 1].extent *= p.axes[a].extent;
        remove_axis(p, a);
    }
    // The walk looks rows up once per run, so they cannot be the innermost axis.
    if (p.rows && p.rows_axis == p.axes_count - 1) {
        Axis one = p.axes[p.rows_axis];
        one.extent = 1;
        one.noise = 1;
        p.axes[p.axes_count++] = one;
    }
}

void run(const Problem& p, int path, int threads) {
    int64_t total = 1;
    for (int a = 0; a < p.axes_count; ++a) total *= p.axes[a].extent;
    Walk work = {compiled(path), &p, total};
    if (p.axes_count == 1 && p.out != p.in[0]) prefer_huge_pages(p.out, total * p.axes[0].out);
    if (total > 0) parallel(parts_of(total, threads), threads, walk_part, &work);
}

void run_uniform(const uint32_t key[2], uint32_t domain, uint64_t base, int64_t n, float* out, int path, int threads) {
    Uniform work = {compiled(path), key, domain, base, n, out};
    if (n > 0) parallel(parts_of(n, threads), threads, uniform_part, &work);
}

void run_attention(const Rows& r, int path, int threads) {
    Attention work = {compiled(path), &r, r.heads * r.queries};
    int64_t parts = parts_of(work.total * r.keys, threads);
    if (parts > work.total) parts = work.total;
    if (work.total > 0 && r.keys > 0) parallel(parts, threads, attention_part, &work);
}

int64_t padded(int64_t n) { return (n + PAD - 1) / PAD * PAD; }

int64_t queries_together(const Heads& h) {
    constexpr int64_t MOST = 96, SCORES = 1 << 17, MULTIPLE = 6;  // scores that stay near; the rows of a tile of products
    int64_t most = SCORES / (padded(h.rows.keys) + PAD) / MULTIPLE * MULTIPLE;
    if (most > MOST) most = MOST;
    if (most < MULTIPLE) most = MULTIPLE;
    const int64_t blocks = (h.rows.queries + most - 1) / most;  // of about one size
    const int64_t each = blocks ? (h.rows.queries + blocks - 1) / blocks : 0;
    return (each + MULTIPLE - 1) / MULTIPLE * MULTIPLE;
}

int64_t scratch_of(const Heads& h) {
    const int64_t keys = padded(h.rows.keys), queries = queries_together(h);
    const int64_t wide = padded(h.features) + padded(h.others);
    return (2 * keys + 2 * queries) * wide + (keys + PAD) * (h.features + h.others + 2 * queries);
}

int heads_parts(const Heads& h, int threads) {
    const int64_t heads = h.batch * h.heads;
    const int64_t parts = parts_of(heads * h.groups * h.rows.queries * h.rows.keys, threads);
    return static_cast<int>(parts < heads ? parts : heads < 1 ? 1 : heads);
}

void run_heads(const Heads& h, int path, int threads, float* scratch) {
    WholeHeads work = {compiled(path), &h, scratch, scratch_of(h)};
    parallel(heads_parts(h, threads), threads, heads_part, &work);
}

void fold(uint64_t seed, uint64_t site, uint64_t step, uint32_t key[2]) {
    uint32_t c[4] = {static_cast<uint32_t>(site), static_cast<uint32_t>(site >> 32), static_cast<uint32_t>(step),
                     static_cast<uint32_t>(step >> 32)};
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int i = 0; i < FOLD_ROUNDS; ++i, k0 += WEYL0, k1 += WEYL1) {
        uint64_t m0 = uint64_t(M0) * c[0], m1 = uint64_t(M1) * c[2];
        uint32_t c0 = static_cast<uint32_t>(m1 >> 32) ^ c[1] ^ k0, c2 = static_cast<uint32_t>(m0 >> 32) ^ c[3] ^ k1;
        c[0] = c0;
        c[1] = static_cast<uint32_t>(m1);
        c[2] = c2;
        c[3] = static_cast<uint32_t>(m0);
    }
    key[0] = c[0];
    key[1] = c[1];
}

}  // namespace dropkit
