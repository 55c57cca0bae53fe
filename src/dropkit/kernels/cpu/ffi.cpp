// XLA's way in: a custom call of JAX's foreign function interface. Key, threshold and place are buffers, so that a new
// step or a new rate is new data and compiles nothing. A library of its own: it needs XLA's headers, which come with
// jaxlib, and no Python.
#include <limits>

#include "dispatch.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using namespace dropkit;

namespace {

int path = -1, threads = 1;

enum Law : int64_t {
#define DROPKIT_LAW(name, code, label, factors) name = code,
#include "operations.def"
};

// How many numbers a law is given; -1 where it is none.
int64_t factors_of(int64_t law) {
    switch (law) {
#define DROPKIT_LAW(name, code, label, factors) \
    case name: static_assert(factors <= 3, #name); return factors;
#include "operations.def"
    }
    return -1;
}

bool lowered(ffi::DataType type, Dtype& dtype) {
    switch (type) {
        case ffi::DataType::F32: dtype = FLOAT32; return true;
        case ffi::DataType::F64: dtype = FLOAT64; return true;
        case ffi::DataType::F16: dtype = FLOAT16; return true;
        case ffi::DataType::BF16: dtype = BFLOAT16; return true;
        default: return false;
    }
}

// Which entry of an operand belongs to an entry of the batch: leading axes of size 1 are shared.
int64_t entry_of(int64_t entry, const ffi::AnyBuffer& x, const ffi::AnyBuffer& operand, int64_t batch) {
    int64_t position = 0, stride = 1;
    for (int64_t a = batch - 1; a >= 0; --a) {
        int64_t coordinate = entry % x.dimensions()[a];
        entry /= x.dimensions()[a];
        if (operand.dimensions()[a] != 1) position += coordinate * stride;
        stride *= operand.dimensions()[a];
    }
    return position;
}

double number(const ffi::AnyBuffer& buffer, int64_t i) {
    if (buffer.element_type() == ffi::DataType::F64) return static_cast<const double*>(buffer.untyped_data())[i];
    return static_cast<const float*>(buffer.untyped_data())[i];
}

struct Call {
    ffi::AnyBuffer x, t, key, base;
    ffi::AnyBuffer factors[3];
    int64_t factors_count, batch, law;
};

// What one entry of the batch does, apart from its axes.
void lower(const Call& call, int64_t entry, Problem& p) {
    int64_t k = entry_of(entry, call.x, call.key, call.batch), b = entry_of(entry, call.x, call.base, call.batch);
    const uint32_t* key = static_cast<const uint32_t*>(call.key.untyped_data()) + 2 * k;
    const uint32_t* base = static_cast<const uint32_t*>(call.base.untyped_data()) + 2 * b;
    p.key[0] = key[0];
    p.key[1] = key[1];
    p.base = base[0] | static_cast<uint64_t>(base[1]) << 32;
    p.t = static_cast<const uint32_t*>(call.t.untyped_data())[entry_of(entry, call.x, call.t, call.batch)];
    p.op = call.law == DROP ? SCALE : AFFINE;
    p.shift = -0.0;  // adding it changes nothing
    double* targets[3] = {&p.scale, &p.shift, &p.dropped};
    for (int64_t f = 0; f < call.factors_count; ++f)
        *targets[f] = number(call.factors[f], entry_of(entry, call.x, call.factors[f], call.batch));
    if (p.t > 65536) {  // a rate that was no probability
        p.op = AFFINE;
        p.t = 65536;
        p.scale = p.shift = std::numeric_limits<double>::quiet_NaN();
    }
}

}  // namespace

static ffi::Error Dropout(ffi::AnyBuffer x, ffi::AnyBuffer t, ffi::AnyBuffer key, ffi::AnyBuffer base,
                          ffi::RemainingArgs rest, ffi::Result<ffi::AnyBuffer> y, ffi::Span<const int64_t> noise,
                          int64_t batch, int64_t with_rows, int64_t law) {
    Problem p = {};
    const int64_t rank = static_cast<int64_t>(x.dimensions().size());
    bool fits = lowered(x.element_type(), p.dtype) && rank <= MOST_AXES &&
                static_cast<int64_t>(noise.size()) + batch == rank && y->size_bytes() == x.size_bytes();
    const int64_t factors = factors_of(law);
    if (!fits || factors < 0 || static_cast<int64_t>(rest.size()) != factors + with_rows)
        return ffi::Error::InvalidArgument("dropkit: operands that the kernel does not take");
    Call call = {x, t, key, base, {x, x, x}, factors, batch, law};
    ffi::AnyBuffer rows = x;
    if (with_rows) rows = *rest.get<ffi::AnyBuffer>(0);
    for (int64_t f = 0; f < factors; ++f) call.factors[f] = *rest.get<ffi::AnyBuffer>(with_rows + f);
    // One walk where all entries of the batch share key, rate and place; else one for each entry.
    int64_t entries = 1, inner = 1, small = t.element_count() + key.element_count() + base.element_count() - 5;
    for (int64_t f = 0; f < factors; ++f) small += call.factors[f].element_count() - 1;
    if (with_rows) small += static_cast<int64_t>(rows.element_count()) != 2 * x.dimensions()[batch];
    const int64_t apart = small ? batch : 0;
    for (int64_t a = 0; a < apart; ++a) entries *= x.dimensions()[a];
    const int64_t size = static_cast<int64_t>(x.element_count() ? x.size_bytes() / x.element_count() : 0);
    for (int64_t a = rank - 1; a >= apart; --a) {
        int64_t extent = x.dimensions()[a];
        p.axes[a - apart] = {extent, a < batch ? 0 : noise[a - batch], inner * size, {inner * size, 0, 0}};
        inner *= extent;
    }
    if (entries * inner == 0) return ffi::Error::Success();
    p.axes_count = static_cast<int>(rank - apart);
    if (p.axes_count == 0) p.axes[p.axes_count++] = {1, 0, size, {size, 0, 0}};
    for (int64_t entry = 0; entry < entries; ++entry) {
        Problem one = p;
        lower(call, entry, one);
        one.in[0] = static_cast<const char*>(x.untyped_data()) + entry * inner * size;
        one.out = static_cast<char*>(y->untyped_data()) + entry * inner * size;
        if (with_rows) {
            int64_t at = apart ? entry_of(entry, x, rows, batch) : 0;
            one.rows = static_cast<const int64_t*>(rows.untyped_data()) + at * x.dimensions()[batch];
            one.rows_axis = static_cast<int>(batch - apart);
        }
        collapse(one);
        run(one, path, threads);
    }
    return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(dropkit_dropout, Dropout,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .RemainingArgs()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<ffi::Span<const int64_t>>("noise")
                                  .Attr<int64_t>("batch")
                                  .Attr<int64_t>("with_rows")
                                  .Attr<int64_t>("law"));

// The path (an index, or -1 for the best) and the most threads of all calls; what it returns is the path chosen.
#if defined(_MSC_VER)
__declspec(dllexport)
#endif
extern "C" int dropkit_configure(int wanted, int most) {
    path = path_runnable(wanted) ? wanted : best_path();
    threads = most;
    return path;
}
