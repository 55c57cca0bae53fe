// The kernel text on AVX-512; compiled with its own flags, chosen in dispatch.cpp.
#include "scalar.h"
#include "vec_avx512.h"

#include "bits.inc"
#include "operations.inc"
#include "dropout_kernel.inc"
