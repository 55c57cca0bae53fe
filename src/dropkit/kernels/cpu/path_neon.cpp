// The kernel text on NEON; chosen in dispatch.cpp.
#include "scalar.h"
#include "vec_neon.h"

#include "bits.inc"
#include "operations.inc"
#include "dropout_kernel.inc"
