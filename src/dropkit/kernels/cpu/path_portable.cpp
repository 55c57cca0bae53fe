// The kernel text in plain C++; chosen in dispatch.cpp.
#include "vec_portable.h"

#include "dropout_kernel.inc"
