// Threads for large problems.
#pragma once
#include <stdint.h>

namespace dropkit {

// part(context, i, parts) for every i < parts, on at most `threads` threads; the caller's thread is one of them.
void parallel(int64_t parts, int threads, void (*part)(void*, int64_t, int64_t), void* context);

// From now on run on the OpenMP runtime that the process has already loaded (as PyTorch does), if there is one: the
// path of its library, or null, in which case, as before the call, a pool of our own runs.
const char* adopt_openmp();
// Back to our own pool.
void drop_openmp();

}  // namespace dropkit
