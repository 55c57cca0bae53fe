// The kernel text on AVX-512; compiled with its own flags, chosen in dispatch.cpp.
#include "vec_avx512.h"

#include "dropout_kernel.inc"
