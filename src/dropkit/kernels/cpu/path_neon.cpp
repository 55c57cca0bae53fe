// The kernel text on NEON; chosen in dispatch.cpp.
#include "vec_neon.h"

#include "dropout_kernel.inc"
