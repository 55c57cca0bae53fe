"""The folding of seed, step and site into key words on the device: one launch, and nothing to wait for.

key = philox4x32-10(counter = (site, step), key = seed), its first two words
"""
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator, valid-type"

import torch
import triton
import triton.language as tl

from .philox import load_key
from .walk import on_device


@triton.jit(do_not_specialize=["k0", "k1"])
def _fold(words, state, k0, k1):
    word0, word1 = load_key(state, state + 1, k0, k1)
    tl.store(words, word0.to(tl.int64))
    tl.store(words + 1, word1.to(tl.int64))


def fold(state: torch.Tensor, site: int) -> torch.Tensor:
    """The key of a site as two int64 words.

    Args:
        state: seed and step, two int64 numbers with the bits of integers in [0, 2**64).
        site: the site's number, 64 bits.
    """
    words = torch.empty(2, dtype=torch.int64, device=state.device)
    with on_device(state):
        _fold[(1,)](words, state.contiguous(), site & 0xFFFFFFFF, (site >> 32) & 0xFFFFFFFF, num_warps=1)
    return words
