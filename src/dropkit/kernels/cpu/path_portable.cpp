// The kernel text in plain C++; chosen in dispatch.cpp.
#include "scalar.h"
#include "vec_portable.h"

#include "bits.inc"
#include "operations.inc"
#include "dropout_kernel.inc"
