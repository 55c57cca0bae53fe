#include "pages.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace dropkit {

void prefer_huge_pages(void* start, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr int64_t LARGE = 8 << 20;  // below, memory is mostly reused, and asking costs more than it gains
    constexpr uintptr_t HUGE_PAGE = 2 << 20;
    if (bytes < LARGE) return;
    uintptr_t first = reinterpret_cast<uintptr_t>(start);
    uintptr_t from = (first + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    uintptr_t to = (first + static_cast<uintptr_t>(bytes)) / HUGE_PAGE * HUGE_PAGE;
    if (from < to) madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
#else
    (void)start;
    (void)bytes;
#endif
}

}  // namespace dropkit
