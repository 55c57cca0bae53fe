// The kernel text on AVX2 and F16C; compiled with its own flags, chosen in dispatch.cpp.
#include "scalar.h"
#include "vec_avx2.h"

#include "bits.inc"
#include "operations.inc"
#include "dropout_kernel.inc"
