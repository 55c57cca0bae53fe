// The constants of Philox4x32. Salmon et al., SC'11; those of `dropkit.counter`.
#pragma once
#include <stdint.h>

namespace dropkit {

constexpr uint32_t M0 = 0xd2511f53u, M1 = 0xcd9e8d57u, WEYL0 = 0x9e3779b9u, WEYL1 = 0xbb67ae85u;
constexpr int MASK_ROUNDS = 7, FOLD_ROUNDS = 10;

}  // namespace dropkit
