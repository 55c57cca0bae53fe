// The kernel text on AVX2 and F16C; compiled with its own flags, chosen in dispatch.cpp.
#include "vec_avx2.h"

#include "dropout_kernel.inc"
