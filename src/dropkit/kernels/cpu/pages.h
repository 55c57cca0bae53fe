// Huge pages for large fresh outputs.
#pragma once
#include <stdint.h>

namespace dropkit {

// Ask the system to back `bytes` from `start` with huge pages when they are first touched. Touching a fresh 64 MiB
// output page by page costs several times what the dropout does; NumPy asks the same for its own large arrays. Memory
// that has been touched, and systems that do not know the request, are left as they are.
void prefer_huge_pages(void* start, int64_t bytes);

}  // namespace dropkit
