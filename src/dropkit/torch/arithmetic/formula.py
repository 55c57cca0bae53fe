"""Dropout in torch operations, for any device and any tensor that has no kernel. Equal to the kernels bit for bit."""

from collections.abc import Callable
from typing import Any

import torch

from ...layout import Layout, check_last_row
from ...mask import ALPHA_PRIME, ONE, WORD, alpha_factors, keep_words, random16, scale

PLAIN = (torch.Tensor, torch.nn.Parameter)
Rate = int | torch.Tensor  # t, kept of 65536; or p, floating, broadcast against x
Words = tuple[Any, Any]

# What becomes of an element: a law gives (scale, shift, dropped), kept x -> x * scale + shift, others -> dropped.
BERNOULLI, ALPHA, ALPHA_GRADIENT = "bernoulli", "alpha", "alpha_gradient"
GRADIENT = {BERNOULLI: BERNOULLI, ALPHA: ALPHA_GRADIENT, ALPHA_GRADIENT: ALPHA_GRADIENT}  # the law of the derivative


def plain(x: torch.Tensor) -> bool:
    """Whether a tensor is what its pointer says: no subclass, no lazy negation, under no function transform."""
    return (
        type(x) in PLAIN
        and not x.is_neg()
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._functorch.is_legacy_batchedtensor(x)  # of autograd.grad(..., is_grads_batched=True)
    )


def scale_kept(
    x: torch.Tensor, key: Words, rate: Rate, place: Layout, inplace: bool = False, law: str = BERNOULLI
) -> torch.Tensor:
    """`x * scale + shift` where kept, `dropped` elsewhere, as the law says; the memory format of x is kept.

    Made of operations that torch knows how to differentiate and to vectorise.
    """
    t = thresholds(rate, x.device) if isinstance(rate, torch.Tensor) else rate
    return apply_mask(x, keep_mask(place, t, key, x.device), t, law, inplace)


def apply_mask(x: torch.Tensor, kept: torch.Tensor, t: Any, law: str, inplace: bool = False) -> torch.Tensor:
    """What the law makes of x, kept where the mask says so; t as in `keep_mask`."""
    by_rate = isinstance(t, torch.Tensor)
    factor, shift, dropped = _tensor_factors(t, x.dtype, law) if by_rate else factors(t, law)
    # Half types are scaled in float32 and rounded once; torch rounds the scale itself first, which biases the mean.
    half = x.dtype in (torch.float16, torch.bfloat16)
    wide = x.float() if half else x
    y = wide * factor if not inplace or half else x.mul_(factor)
    if law == ALPHA:
        y = y.add_(shift)
    y = x.copy_(y) if half and inplace else y.to(x.dtype)
    gone = kept.logical_not()
    if isinstance(dropped, torch.Tensor):
        dropped = dropped.to(x.dtype)
        return y.copy_(torch.where(gone, dropped, y)) if inplace else torch.where(gone, dropped, y)
    # Not a product: a dropped NaN is 0.
    return y.masked_fill_(gone, dropped) if inplace else y.masked_fill(gone, dropped)


def factors(t: int, law: str) -> tuple[float, float, float]:
    """The law's scale, shift and dropped value."""
    if law == BERNOULLI:
        return scale(t), 0.0, 0.0
    constants = alpha_factors(t)
    return constants if law == ALPHA else (constants[0], -0.0, 0.0)  # x + -0.0 is x, for zeros too


def _tensor_factors(t: torch.Tensor, dtype: torch.dtype, law: str) -> tuple[Any, Any, Any]:
    """`factors` for a tensor of t."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    if law == BERNOULLI:
        return torch.where(t > 0, ONE / t.to(wide), 0.0), 0.0, 0.0
    q = t.to(torch.float64) / ONE
    p = 1.0 - q
    a = torch.where(t > 0, 1.0 / torch.sqrt(q * (1.0 + p * (ALPHA_PRIME * ALPHA_PRIME))), 0.0)
    if law == ALPHA_GRADIENT:
        return a.to(wide), 0.0, 0.0
    shift = -a * p * ALPHA_PRIME
    return a.to(wide), shift.to(wide), torch.where(t > 0, a * ALPHA_PRIME + shift, 0.0).to(wide)


def device_factors(p: torch.Tensor, device: torch.device, law: str) -> torch.Tensor:
    """`factors` of a one-element p as three float64 numbers on a device, without asking for p's value."""
    constants = _tensor_factors(thresholds(p.reshape(()), device), torch.float64, law)
    return torch.stack([torch.as_tensor(c, dtype=torch.float64, device=device) for c in constants])


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


def _unpack(word: torch.Tensor) -> torch.Tensor:
    """32 bools for each keep-word; by way of bytes, which are an eighth of the memory of 64-bit lanes."""
    octets = torch.stack([(word >> shift) & 0xFF for shift in (0, 8, 16, 24)], dim=-1).to(torch.uint8)
    bits = octets.unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8, device=word.device)
    return (bits & 1).bool().flatten(-2)


def _elements(place: Layout, device: torch.device, blocks: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Each element's value, where `blocks(w)` computes the 32 values of the indices from `32 * w` on."""
    outer, run = place.runs()
    one_run = outer == 0 and place.shift is None
    whole_words = place.rows is None and place.shift is None
    aligned = whole_words and all(n % WORD == 0 for n in (place.base, *place.strides[:outer]))
    # the largest lead of a run in its first word
    most = 0 if aligned else place.base % WORD if one_run else WORD - 1
    count = (most + run - 1) // WORD + 1
    start = starts(place, outer, device)
    word = (start >> 5).unsqueeze(-1) + torch.arange(count, device=device)
    table = blocks(word).flatten(-2)
    if aligned or one_run:
        values = table[..., most : most + run]
    else:
        lead = (start & (WORD - 1)).unsqueeze(-1)
        values = table.take_along_dim(lead + torch.arange(run, device=device), dim=-1)
    return values.reshape(place.shape)


def starts(place: Layout, outer: int, device: torch.device) -> torch.Tensor:
    """The index of the first element of each run, over the `outer` leading axes."""
    start = torch.full(place.shape[:outer], place.base, dtype=torch.int64, device=device)
    for axis in range(outer):
        if axis == 0 and place.rows is not None:
            coordinate = place.rows.to(device)
        else:
            coordinate = torch.arange(place.shape[axis], device=device)
        start = start + (coordinate * place.strides[axis]).reshape(-1, *[1] * (outer - axis - 1))
    return start if place.shift is None else start + place.shift


def check_rows(place: Layout) -> None:
    """Refuse rows whose elements lie past index 2**63, where looking needs no wait for a device."""
    rows = place.rows
    if rows is None or torch.compiler.is_compiling():
        return
    if rows.device.type == "cpu" and rows.numel():
        check_last_row(place, int(rows.max()))
