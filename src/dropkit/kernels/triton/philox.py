"""Philox4x32 on the device, and the key from wherever it lies.

    hi0:lo0 = M0 * c0,  hi1:lo1 = M1 * c2,  c = (hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0),  k += Weyl

Source: Salmon, Moraes, Dror, Shaw, SC'11; the constants are those of `dropkit.counter`.
"""
# ruff: noqa: RET505 - a kernel's constant branches need their else
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator, valid-type"

import triton
import triton.language as tl

from dropkit.counter import FOLD_ROUNDS, MULTIPLIERS, WEYL

M0, M1 = tl.constexpr(MULTIPLIERS[0]), tl.constexpr(MULTIPLIERS[1])
WEYL0, WEYL1 = tl.constexpr(WEYL[0]), tl.constexpr(WEYL[1])
FOLD = tl.constexpr(FOLD_ROUNDS)


@triton.jit
def philox(c0, c1, c2, c3, k0, k1, ROUNDS: tl.constexpr):
    """Four uint32 words of four counter words and two key words, all uint32."""
    for _ in tl.static_range(ROUNDS):
        high0, high1 = tl.umulhi(c0, M0), tl.umulhi(c2, M1)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, c2 * M1, high0 ^ c3 ^ k1, c0 * M0
        k0 += WEYL0
        k1 += WEYL1
    return c0, c1, c2, c3


@triton.jit
def load_key(key, step, k0, k1):
    """The two key words, from whichever of three places the launcher was given.

    `key` and `step` None: k0 and k1 themselves. `step` None: two words in memory. Both: seed and step in memory, folded
    here with the site number (k0, k1), so that a replayed CUDA graph sees the step of its replay.
    """
    if key is None:
        return k0.to(tl.uint32), k1.to(tl.uint32)
    elif step is None:
        return tl.load(key).to(tl.uint32), tl.load(key + 1).to(tl.uint32)
    else:
        seed, count = tl.load(key), tl.load(step)
        word0, word1, _, _ = philox(
            k0.to(tl.uint32),
            k1.to(tl.uint32),
            count.to(tl.uint32),
            (count >> 32).to(tl.uint32),
            seed.to(tl.uint32),
            (seed >> 32).to(tl.uint32),
            FOLD,
        )
        return word0, word1
