"""Dropout in torch operations, for any device and any tensor that has no kernel. Equal to the kernels bit for bit."""

from collections.abc import Callable
from typing import Any

import torch

from ..layout import Layout, check_last_row
from ..mask import ONE, WORD, keep_words, random16, scale

_PLAIN = (torch.Tensor, torch.nn.Parameter)
Rate = int | torch.Tensor  # t, kept of 65536; or p, floating, broadcast against x
Words = tuple[Any, Any]


def plain(x: torch.Tensor) -> bool:
    """Whether a tensor is what its pointer says: no subclass, no lazy negation, under no function transform."""
    return type(x) in _PLAIN and not x.is_neg() and not torch._C._are_functorch_transforms_active()


def scale_kept(x: torch.Tensor, key: Words, rate: Rate, place: Layout, inplace: bool = False) -> torch.Tensor:
    """`x * scale` where kept, 0 elsewhere; the memory format of x is kept."""
    t = thresholds(rate, x.device) if isinstance(rate, torch.Tensor) else rate
    gone = keep_mask(place, t, key, x.device).logical_not_()
    factor = _tensor_scale(t, x.dtype) if isinstance(t, torch.Tensor) else scale(t)
    half = x.dtype in (torch.float16, torch.bfloat16)
    # Half types are scaled in float32 and rounded once; torch rounds the scale itself first, which biases the mean.
    if inplace:
        y = x.copy_(x.float() * factor) if half else x.mul_(factor)
    else:
        y = (x.float() * factor).to(x.dtype) if half else x * factor
    return y.masked_fill_(gone, 0)  # not a product: a dropped NaN is 0


def keep_mask(place: Layout, t: Any, key: Words, device: torch.device) -> torch.Tensor:
    """The mask of `dropkit.keep` in torch operations.

    Args:
        place: where the tensor lies in the whole.
        t: kept of 65536, an int, or an int64 tensor that broadcasts against the noise shape.
        key: two words, ints or 0-dim int64 tensors.
        device: where to compute.

    Returns:
        Bool tensor of the noise shape (broadcast with t's shape).
    """
    if isinstance(t, torch.Tensor):
        lane = torch.arange(WORD, device=device)
        return _elements(place, device, lambda word: random16(word, lane, key)) < t
    if t in (0, ONE):
        return torch.full(place.shape, t == ONE, dtype=torch.bool, device=device)
    return _elements(place, device, lambda word: _unpack(keep_words(word, t, key)))


def thresholds(p: torch.Tensor, device: torch.device) -> torch.Tensor:
    """t of every element of a floating tensor p, int64."""
    wide = p if p.dtype == torch.float64 else p.to(torch.float32)
    return ONE - torch.round(wide * ONE).to(device=device, dtype=torch.int64)


def _tensor_scale(t: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    wide = t.to(torch.float64 if dtype == torch.float64 else torch.float32)
    return torch.where(t > 0, ONE / wide, 0.0)


def _unpack(word: torch.Tensor) -> torch.Tensor:
    """32 bools for each keep-word; by way of bytes, which are an eighth of the memory of 64-bit lanes."""
    octets = torch.stack([(word >> shift) & 0xFF for shift in (0, 8, 16, 24)], dim=-1).to(torch.uint8)
    bits = octets.unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8, device=word.device)
    return (bits & 1).bool().flatten(-2)


def _elements(place: Layout, device: torch.device, blocks: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Each element's value, where `blocks(w)` computes the 32 values of the indices from `32 * w` on."""
    outer, run = place.runs()
    aligned = place.rows is None and all(n % WORD == 0 for n in (place.base, *place.strides[:outer]))
    most = (
        0 if aligned else place.base % WORD if outer == 0 else WORD - 1
    )  # the largest lead of a run in its first word
    count = (most + run - 1) // WORD + 1
    start = _starts(place, outer, device)
    word = (start >> 5).unsqueeze(-1) + torch.arange(count, device=device)
    table = blocks(word).flatten(-2)
    if aligned or outer == 0:
        values = table[..., most : most + run]
    else:
        lead = (start & (WORD - 1)).unsqueeze(-1)
        values = table.take_along_dim(lead + torch.arange(run, device=device), dim=-1)
    return values.reshape(place.shape)


def _starts(place: Layout, outer: int, device: torch.device) -> torch.Tensor:
    """The index of the first element of each run, over the `outer` leading axes."""
    start = torch.full(place.shape[:outer], place.base, dtype=torch.int64, device=device)
    for axis in range(outer):
        if axis == 0 and place.rows is not None:
            coordinate = place.rows.to(device)
        else:
            coordinate = torch.arange(place.shape[axis], device=device)
        start = start + (coordinate * place.strides[axis]).reshape(-1, *[1] * (outer - axis - 1))
    return start


def check_rows(place: Layout) -> None:
    """Refuse rows whose elements lie past index 2**63, where looking needs no wait for a device."""
    rows = place.rows
    if rows is None or torch.compiler.is_compiling():
        return
    if rows.device.type == "cpu" and rows.numel():
        check_last_row(place, int(rows.max()))
