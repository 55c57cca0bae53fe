# The kernel sources and the flags of each path: every path is a translation unit with its own flags, and no other file
# has any. What a compiler does not know is left out, and dispatch.cpp told so.
include(CheckCXXCompilerFlag)
include(CheckCXXSourceCompiles)

set(cpu ${CMAKE_CURRENT_LIST_DIR})
set(DROPKIT_KERNEL_SOURCES ${cpu}/dispatch.cpp ${cpu}/pages.cpp ${cpu}/pool.cpp ${cpu}/path_portable.cpp)
set(DROPKIT_KERNEL_DEFINITIONS "")
if(MSVC)
  set(exact /fp:precise)
  set(avx2 /arch:AVX2)
  set(avx512 /arch:AVX512)
else()
  # Products and sums stay apart, so that all paths agree bit for bit.
  set(exact -O3 -ffp-contract=off)
  set(avx2 -mavx2 -mfma -mf16c)
  set(avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mf16c -mprefer-vector-width=512)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    list(APPEND avx512 -Wno-maybe-uninitialized -Wno-uninitialized)  # GCC's own intrinsic headers trip it
  endif()
endif()

# Warnings that the compiler knows. None is an error: a newer compiler must not stop a user's build. Clang takes
# -Wsign-conversion for a part of -Wconversion, GCC does not.
set(DROPKIT_WARNINGS "")
foreach(warning all extra shadow conversion no-sign-conversion)
  if(NOT MSVC)  # there -Wall is another thing
    check_cxx_compiler_flag(-W${warning} DROPKIT_KNOWS_W${warning})
    if(DROPKIT_KNOWS_W${warning})
      list(APPEND DROPKIT_WARNINGS -W${warning})
    endif()
  endif()
endforeach()

function(dropkit_path name test)
  string(TOUPPER ${name} upper)
  set(CMAKE_REQUIRED_FLAGS "${ARGN}")
  string(REPLACE ";" " " CMAKE_REQUIRED_FLAGS "${CMAKE_REQUIRED_FLAGS}")
  check_cxx_source_compiles("${test}" DROPKIT_HAS_${upper})
  if(DROPKIT_HAS_${upper})
    set_source_files_properties(${cpu}/path_${name}.cpp PROPERTIES COMPILE_OPTIONS "${exact};${ARGN}")
    set(DROPKIT_KERNEL_SOURCES ${DROPKIT_KERNEL_SOURCES} ${cpu}/path_${name}.cpp PARENT_SCOPE)
    set(DROPKIT_KERNEL_DEFINITIONS ${DROPKIT_KERNEL_DEFINITIONS} DROPKIT_${upper} PARENT_SCOPE)
  endif()
endfunction()

set_source_files_properties(${cpu}/path_portable.cpp PROPERTIES COMPILE_OPTIONS "${exact}")
dropkit_path(avx2 "#include <immintrin.h>
int main() { return _mm256_movemask_epi8(_mm256_setzero_si256()); }" ${avx2})
dropkit_path(avx512 "#include <immintrin.h>
int main() { return _mm512_test_epi32_mask(_mm512_setzero_si512(), _mm512_setzero_si512()); }" ${avx512})
dropkit_path(neon "#include <arm_neon.h>
int main() { return static_cast<int>(vgetq_lane_u64(vmull_high_u32(vdupq_n_u32(1), vdupq_n_u32(1)), 0)); }")
