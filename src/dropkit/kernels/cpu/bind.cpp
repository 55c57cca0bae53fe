// The Python module `_cpu`: pointers and scalars in, nothing out. Callers have validated what they pass; what would
// make the walk itself undefined (an unknown code, a negative extent) is refused here as well.
#include <nanobind/nanobind.h>
#include <nanobind/stl/vector.h>

#include <memory>

#include "dispatch.h"
#include "pool.h"

namespace nb = nanobind;
using namespace dropkit;

namespace {

int default_path = -1;

// Waiting for the interpreter lock costs more than a small problem does.
constexpr int64_t KEEP_LOCK_BELOW = 8192;

int checked_path(int path) {
    if (path < 0) return default_path;
    if (!path_runnable(path)) throw nb::value_error("this machine or this build has no such path; see paths()");
    return path;
}

Dtype checked_dtype(int dtype) {
    switch (dtype) {
#define DROPKIT_DTYPE(name, code, label, size) case name:
#include "operations.def"
        return static_cast<Dtype>(dtype);
    }
#define DROPKIT_DTYPE(name, code, label, size) " " #code " (" label ")"
    throw nb::value_error("dtype must be one of:"
#include "operations.def"
    );
}

int64_t size_of(Dtype dtype) {
    switch (dtype) {
#define DROPKIT_DTYPE(name, code, label, size) \
    case name: return size;
#include "operations.def"
    }
    return 0;
}

uint32_t checked_t(uint32_t t) {
    if (t > 65536) throw nb::value_error("t must lie in [0, 65536]");
    return t;
}

void execute(const Problem& p, int path, int threads, int64_t elements) {
    if (elements < KEEP_LOCK_BELOW) return run(p, path, 1);
    nb::gil_scoped_release release;
    run(p, path, threads);
}

void dropout(uintptr_t x, uintptr_t y, int64_t n, int dtype, uint32_t k0, uint32_t k1, uint32_t t, uint64_t base,
             int threads, int path) {
    Problem p = {};
    p.op = SCALE;
    p.dtype = checked_dtype(dtype);
    int64_t size = size_of(p.dtype);
    p.axes_count = 1;
    p.axes[0] = {n, 1, size, {size, 0, 0}};
    p.in[0] = reinterpret_cast<const void*>(x);
    p.out = reinterpret_cast<void*>(y);
    p.base = base;
    p.key[0] = k0;
    p.key[1] = k1;
    p.t = checked_t(t);
    if (n < 0) throw nb::value_error("n must not be negative");
    execute(p, checked_path(path), threads, n);
}

typedef std::vector<int64_t> Ints;

int64_t input_size(const Problem& p, int k) {
    return size_of(p.op == RATES && k == 1 ? p.rate_dtype : p.dtype);
}

int64_t output_size(const Problem& p) { return p.op == KEEP ? 1 : p.op == WORDS ? 0 : size_of(p.dtype); }

// How many inputs an operation reads.
struct Arity {
    size_t least, most;
};

Arity arity(int op) {
    switch (op) {
#define DROPKIT_OPERATION(name, code, least, most) \
    case name: static_assert(most <= MAX_INPUTS, #name); return {least, most};
#include "operations.def"
    }
    throw nb::value_error("unknown operation");
}

void check_inputs(int op, size_t given) {
    const Arity wanted = arity(op);
    if (given < wanted.least || given > wanted.most) throw nb::value_error("wrong number of inputs for this operation");
}

void walk(int op, int dtype, const Ints& extents, const Ints& noise, uintptr_t out, const Ints& out_strides,
          const std::vector<uintptr_t>& inputs, const std::vector<Ints>& input_strides, uint32_t k0, uint32_t k1,
          uint32_t t, uint64_t base, uintptr_t rows, int rows_axis, int rate_dtype, int threads, int path, double scale,
          double shift, double dropped) {
    check_inputs(op, inputs.size());
    const size_t n = extents.size();
    bool same = noise.size() == n && out_strides.size() == n && input_strides.size() == inputs.size();
    for (const Ints& strides : input_strides) same = same && strides.size() == n;
    if (!same) throw nb::value_error("extents and strides must have one entry per axis");
    if (n > MOST_AXES) throw nb::value_error("too many axes");
    if (rows && (rows_axis < 0 || static_cast<size_t>(rows_axis) >= n))
        throw nb::value_error("rows_axis is not an axis");
    Problem p = {};
    p.op = static_cast<Op>(op);
    p.dtype = checked_dtype(dtype);
    p.rate_dtype = checked_dtype(rate_dtype);
    if (p.rate_dtype > FLOAT64) throw nb::value_error("rates must be float32 or float64");
    for (size_t k = 0; k < inputs.size(); ++k) p.in[k] = reinterpret_cast<const void*>(inputs[k]);
    p.out = reinterpret_cast<void*>(out);
    p.base = base;
    p.rows = reinterpret_cast<const int64_t*>(rows);
    p.rows_axis = rows_axis;
    p.key[0] = k0;
    p.key[1] = k1;
    p.t = checked_t(t);
    p.scale = scale;
    p.shift = shift;
    p.dropped = dropped;
    int64_t total = 1;
    p.axes[0] = {1, 0, output_size(p), {0, 0, 0}};
    for (size_t a = 0; a < n; ++a) {
        if (extents[a] < 0) throw nb::value_error("extents must not be negative");
        total *= extents[a];
        p.axes[a] = {extents[a], noise[a], out_strides[a] * output_size(p), {0, 0, 0}};
        for (size_t k = 0; k < inputs.size(); ++k)
            p.axes[a].in[k] = input_strides[k][a] * input_size(p, static_cast<int>(k));
    }
    p.axes_count = n ? static_cast<int>(n) : 1;
    if (n == 0)
        for (int k = 0; k < MAX_INPUTS; ++k) p.axes[0].in[k] = input_size(p, k);
    if (total == 0) return;
    collapse(p);
    execute(p, checked_path(path), threads, total);
}

void uniform(uintptr_t out, int64_t n, uint32_t k0, uint32_t k1, uint32_t domain, uint64_t base, int threads,
             int path) {
    const uint32_t key[2] = {k0, k1};
    path = checked_path(path);
    nb::gil_scoped_release release;
    run_uniform(key, domain, base, n, reinterpret_cast<float*>(out), path, threads);
}

// What both ways of attention are told of the rows of scores: all but where these lie.
Rows rows_of(uintptr_t most, uintptr_t inverse, double scale, int64_t diagonal, uintptr_t mask, bool adds,
             uintptr_t mask_starts, int64_t mask_stride, uintptr_t noise_starts, uint64_t noise_stride,
             int64_t noise_step, bool before, uint32_t k0, uint32_t k1, uint32_t t) {
    Rows r = {};
    r.most = reinterpret_cast<float*>(most);
    r.inverse = reinterpret_cast<float*>(inverse);
    r.scale = static_cast<float>(scale);
    r.diagonal = diagonal;
    r.mask = reinterpret_cast<const void*>(mask);
    r.adds = adds;
    r.mask_starts = reinterpret_cast<const int64_t*>(mask_starts);
    r.mask_stride = mask_stride;
    r.noise_starts = reinterpret_cast<const uint64_t*>(noise_starts);
    r.noise_stride = noise_stride;
    r.noise_step = noise_step;
    r.before = before;
    r.key[0] = k0;
    r.key[1] = k1;
    r.t = checked_t(t);
    return r;
}

void attend(uintptr_t scores, uintptr_t grads, int64_t heads, int64_t queries, int64_t keys, int64_t stride,
            uintptr_t delta, int64_t row_stride, uintptr_t most, uintptr_t inverse, double scale, int64_t diagonal,
            uintptr_t mask, bool adds, uintptr_t mask_starts, int64_t mask_stride, uintptr_t noise_starts,
            uint64_t noise_stride, int64_t noise_step, bool before, uint32_t k0, uint32_t k1, uint32_t t, int threads,
            int path) {
    if (heads < 0 || queries < 0 || keys < 0 || stride < keys) throw nb::value_error("extents do not fit");
    Rows r = rows_of(most, inverse, scale, diagonal, mask, adds, mask_starts, mask_stride, noise_starts, noise_stride,
                     noise_step, before, k0, k1, t);
    r.heads = heads;
    r.queries = queries;
    r.keys = keys;
    r.scores = reinterpret_cast<float*>(scores);
    r.grads = reinterpret_cast<float*>(grads);
    r.stride = stride;
    r.delta = reinterpret_cast<const float*>(delta);
    r.row_stride = row_stride;
    path = checked_path(path);
    nb::gil_scoped_release release;
    run_attention(r, path, threads);
}

// A tensor as a pointer and three strides.
constexpr size_t NUMBERS = 4;

void attend_heads(const Ints& tensors, int64_t batch, int64_t heads, int64_t groups, int64_t queries, int64_t keys,
                  int64_t features, int64_t others, uintptr_t weights, uintptr_t of_lse, uintptr_t of_mask,
                  uintptr_t most, uintptr_t inverse, double scale, int64_t diagonal, uintptr_t mask, bool adds,
                  uintptr_t mask_starts, int64_t mask_stride, uintptr_t noise_starts, uint64_t noise_stride,
                  int64_t noise_step, bool before, uint32_t k0, uint32_t k1, uint32_t t, int threads, int path) {
    for (int64_t extent : {batch, heads, groups, queries, keys, features, others}) {
        if (extent < 0) throw nb::value_error("extents must not be negative");
    }
    Heads h = {};
    Lengths* all[] = {&h.q, &h.k, &h.v, &h.out, &h.flow, &h.dq, &h.dk, &h.dv};
    if (tensors.size() != 4 * NUMBERS && tensors.size() != 8 * NUMBERS)
        throw nb::value_error("attention has four tensors, and four more backward");
    for (size_t i = 0; i < tensors.size() / NUMBERS; ++i) {
        const int64_t* x = tensors.data() + i * NUMBERS;
        *all[i] = {reinterpret_cast<float*>(x[0]), x[1], x[2], x[3]};
    }
    h.rows = rows_of(most, inverse, scale, diagonal, mask, adds, mask_starts, mask_stride, noise_starts, noise_stride,
                     noise_step, before, k0, k1, t);
    h.rows.heads = batch * heads * groups;
    h.rows.queries = h.rows.row_stride = queries;
    h.rows.keys = keys;
    h.batch = batch;
    h.heads = heads;
    h.groups = groups;
    h.features = features;
    h.others = others;
    h.weights = reinterpret_cast<float*>(weights);
    h.of_lse = reinterpret_cast<const float*>(of_lse);
    h.of_mask = reinterpret_cast<float*>(of_mask);
    path = checked_path(path);
    nb::gil_scoped_release release;
    const size_t floats = static_cast<size_t>(heads_parts(h, threads) * scratch_of(h)) + PAD;
    std::unique_ptr<float[]> scratch(new float[floats]);
    const uintptr_t line = PAD * sizeof(float), from = reinterpret_cast<uintptr_t>(scratch.get());
    run_heads(h, path, threads, reinterpret_cast<float*>((from + line - 1) / line * line));
}

}  // namespace

#define DROPKIT_ROWS_ARGS                                                                                         \
    nb::arg("most"), nb::arg("inverse"), nb::arg("scale"), nb::arg("diagonal"), nb::arg("mask"), nb::arg("adds"), \
        nb::arg("mask_starts"), nb::arg("mask_stride"), nb::arg("noise_starts"), nb::arg("noise_stride"),         \
        nb::arg("noise_step"), nb::arg("before"), nb::arg("k0"), nb::arg("k1"), nb::arg("t"),                     \
        nb::arg("threads") = 1, nb::arg("path") = -1

NB_MODULE(_cpu, m) {
    default_path = best_path();
    m.def("dropout", &dropout, nb::arg("x"), nb::arg("y"), nb::arg("n"), nb::arg("dtype"), nb::arg("k0"), nb::arg("k1"),
          nb::arg("t"), nb::arg("base") = 0, nb::arg("threads") = 1, nb::arg("path") = -1);
    m.def("walk", &walk, nb::arg("op"), nb::arg("dtype"), nb::arg("extents"), nb::arg("noise"), nb::arg("out"),
          nb::arg("out_strides"), nb::arg("inputs"), nb::arg("input_strides"), nb::arg("k0"), nb::arg("k1"),
          nb::arg("t"), nb::arg("base") = 0, nb::arg("rows") = 0, nb::arg("rows_axis") = 0, nb::arg("rate_dtype") = 0,
          nb::arg("threads") = 1, nb::arg("path") = -1, nb::arg("scale") = 1.0, nb::arg("shift") = 0.0,
          nb::arg("dropped") = 0.0);
    m.def("uniform", &uniform, nb::arg("out"), nb::arg("n"), nb::arg("k0"), nb::arg("k1"), nb::arg("domain"),
          nb::arg("base") = 0, nb::arg("threads") = 1, nb::arg("path") = -1);
    m.def("attend", &attend, nb::arg("scores"), nb::arg("grads"), nb::arg("heads"), nb::arg("queries"), nb::arg("keys"),
          nb::arg("stride"), nb::arg("delta"), nb::arg("row_stride"), DROPKIT_ROWS_ARGS);
    m.def("attend_heads", &attend_heads, nb::arg("tensors"), nb::arg("batch"), nb::arg("heads"), nb::arg("groups"),
          nb::arg("queries"), nb::arg("keys"), nb::arg("features"), nb::arg("others"), nb::arg("weights"),
          nb::arg("of_lse"), nb::arg("of_mask"), DROPKIT_ROWS_ARGS);
    m.def("fold", [](uint64_t seed, uint64_t site, uint64_t step) {
        uint32_t key[2];
        fold(seed, site, step, key);
        return nb::make_tuple(key[0], key[1]);
    });
    nb::dict operations, dtypes, laws;
#define DROPKIT_OPERATION(name, code, least, most) operations[#name] = code;
#define DROPKIT_DTYPE(name, code, label, size) dtypes[label] = code;
#define DROPKIT_LAW(name, code, label, factors) laws[label] = code;
#include "operations.def"
    m.attr("operations") = operations;
    m.attr("dtypes") = dtypes;
    m.attr("laws") = laws;
    m.attr("most_axes") = MOST_AXES;
    m.def("path_names", [] {
        nb::list names;
        for (const char* name : PATH_NAMES) names.append(name);
        return names;
    });
    m.def("path_compiled", &path_compiled);
    m.def("path_runnable", &path_runnable);
    m.def("default_path", [] { return default_path; });
    m.def("set_default_path", [](int path) { default_path = checked_path(path); });
    m.def("adopt_openmp", [] {
        const char* path = adopt_openmp();
        return path ? nb::object(nb::str(path)) : nb::none();
    });
    m.def("drop_openmp", &drop_openmp);
}
