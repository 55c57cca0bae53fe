// Which path runs, and on how many threads: decided here and nowhere else.
#pragma once
#include <stdint.h>

#include "problem.h"

namespace dropkit {

enum PathIndex : int {
#define DROPKIT_PATH(name, label) name,
#include "operations.def"
    PATHS
};
extern const char* const PATH_NAMES[PATHS];

// Index of a path by name, or -1; whether this build holds it; whether this machine can run it.
int path_index(const char* name);
bool path_compiled(int index);
bool path_runnable(int index);
int best_path();

// Merges axes that every operand and the noise cross in one stride.
void collapse(Problem& p);

// Does the whole problem with a path on at most `threads` threads.
void run(const Problem& p, int path, int threads);
void run_uniform(const uint32_t key[2], uint32_t domain, uint64_t base, int64_t n, float* out, int path, int threads);

// The softmax between attention's matrix products, forward or backward.
void run_attention(const Rows& r, int path, int threads);
// Attention of whole heads; into how many parts it is cut, each of which needs scratch memory of its own.
int heads_parts(const Heads& h, int threads);
void run_heads(const Heads& h, int path, int threads, float* scratch);

// First two words of philox4x32-10(counter = (site, step), key = seed).
void fold(uint64_t seed, uint64_t site, uint64_t step, uint32_t key[2]);

}  // namespace dropkit
