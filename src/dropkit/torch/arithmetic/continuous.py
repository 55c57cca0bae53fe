"""Keyed uniform and normal numbers in torch operations: `dropkit.uniform` and `dropkit.normal` on any device.

    u(i) = (n(i) + 1/2) 2**-23                      n(i): 23 bits of Philox, index i
    z(i) = sqrt(-2 ln u2(j)) (cos | sin)(2 pi u3(j))  j = i // 2, cos for even i, sin for odd i

The uniforms are the same bits everywhere; log, sqrt and cos agree between libraries to float rounding. These are plain
operations on integer tensors, which a compiler traces and fuses; a new key is new data.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from ...counter import FOLD_ROUNDS, MASK32, MASK_ROUNDS, philox4x32, split_product, wrapping_product
from ...mask import NORMAL_ANGLE, NORMAL_RADIUS, UNIFORM
from ...place import Place
from ..draw import Unfolded, Words
from . import registered
from .formula import starts

Blocks = Callable[[torch.Tensor], torch.Tensor]


def uniform(key: Words, place: Place, device: torch.device | str = "cpu") -> torch.Tensor:
    """Uniform numbers, never 0 or 1: the values of `dropkit.uniform` for the same key and place, bit for bit.

    Args:
        key: two words, as ints, as an int64 tensor of two, or a key in device memory.
        place: where the noise tensor lies in the whole.
        device: where to compute.

    Returns:
        float32 tensor of `place.shape`.

    Source: mask specification v1 (docs/mask.md).

    >>> from dropkit import Key
    >>> from dropkit.place import place_of
    >>> (uniform(Key(seed=1, site="u").words, place_of((3,))) * 2**23 - 0.5).long()
    tensor([2878323, 2065413, 7642049])
    """
    words = _pair(key, torch.device(device))
    return _elements(place, 4, torch.device(device), lambda block: _uniforms(block, words, UNIFORM))


def normal(key: Words, place: Place, device: torch.device | str = "cpu") -> torch.Tensor:
    """Standard normal numbers: the values of `dropkit.normal` for the same key and place, to float rounding.

    Arguments and result are those of `uniform`.

    Source: Box and Muller, 1958; mask specification v1 (docs/mask.md).

    >>> from dropkit import Key
    >>> from dropkit.place import place_of
    >>> normal(Key(seed=1, site="z").words, place_of((2, 3))).shape
    torch.Size([2, 3])
    """
    words = _pair(key, torch.device(device))
    # One walk through the generator for both domains: half the operations, and the same numbers.
    domains = torch.tensor([NORMAL_RADIUS, NORMAL_ANGLE], device=device)

    def pairs(block: torch.Tensor) -> torch.Tensor:
        both = _uniforms(block.unsqueeze(-1), words, domains)  # (..., 2, 4)
        radius = torch.sqrt(-2 * torch.log(both[..., 0, :]))
        angle = 2 * math.pi * both[..., 1, :]
        return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1).flatten(-2)

    return _elements(place, 8, torch.device(device), pairs)


def _uniforms(block: torch.Tensor, key: tuple[Any, Any], domain: Any) -> torch.Tensor:
    """The four uniforms of each block, in a last axis of their own."""
    compiling = torch.compiler.is_compiling()  # a compiler's integers do not wrap where it folds constants
    product = split_product if compiling else wrapping_product
    counter = (block & MASK32, (block >> 32) & MASK32, 0, domain)
    words = philox4x32(counter, key, MASK_ROUNDS, product)
    integers = torch.stack(words, dim=-1) >> 9
    return (integers.to(torch.float32) + 0.5) * 2**-23


def _pair(key: Words, device: torch.device) -> tuple[Any, Any]:
    """The two key words, on the device where they are tensors."""
    if isinstance(key, Unfolded):
        key = registered.fold_key(key)
    if isinstance(key, torch.Tensor):
        k0, k1 = key.to(device).unbind()
        return k0, k1
    if hasattr(key, "step"):  # a CUDA graph is being captured: what lies in device memory is folded at each replay
        site = (key.site & MASK32, key.site >> 32)
        step, seed = ((number & MASK32, (number >> 32) & MASK32) for number in (key.step, key.seed))
        k0, k1, _, _ = philox4x32((*site, *step), seed, FOLD_ROUNDS)
        return k0, k1
    k0, k1 = key
    return k0, k1


def _elements(place: Place, width: int, device: torch.device, blocks: Blocks) -> torch.Tensor:
    """Each element's value, where `blocks(b)` computes the `width` values of the indices from `width * b` on."""
    outer, run = place.runs()
    if place.flat:
        lead = place.base % width
        numbers = torch.arange((lead + run - 1) // width + 1, device=device) + place.base // width
        return blocks(numbers).flatten()[lead : lead + run].reshape(place.shape)
    start = starts(place, outer, device).unsqueeze(-1)
    count = (width + run - 2) // width + 1  # whatever the lead of a run in its first block
    table = blocks(start // width + torch.arange(count, device=device)).flatten(-2)
    values = table.take_along_dim(start % width + torch.arange(run, device=device), dim=-1)
    return values.reshape(place.shape)
