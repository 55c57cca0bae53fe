"""Attention with dropout on a GPU, a part of `make gpu`: `python benchmarks/gpu_attention.py [--out FILE]`.

Checks first: output and gradients of the Triton kernel against float64, with the mask of `dropkit.keep`. Then forward
and backward passes of (4, 16, T, features) in bfloat16 and float32, p = 0.1, causal, and the peak of memory:

    flash      scaled_dot_product_attention without dropout, torch's choice of a kernel
    SDPA       the same with dropout_p
    composed   softmax, dropkit.torch.dropout and two products, which store the weights
    dropkit    dropkit.torch.attention

A failed check ends it with a message and exit status 1.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_device import DEVICE, DRY, MIB, Clock, Lines
from torch.nn import functional

import dropkit.torch
from dropkit import Key, keep

KEY = Key(1, "attention")
P = 0.1
BATCH, HEADS = (1, 1) if DRY else (4, 16)
LENGTHS = (20,) if DRY else (1024, 4096)
FEATURES = (16,) if DRY else (64, 128)
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
Pass = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return functional.scaled_dot_product_attention(q, k, v, dropout_p=P, is_causal=True)


def composed(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    hidden = ~torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(hidden, -torch.inf).softmax(-1)
    return dropkit.torch.dropout(weights, P, training=True, key=KEY) @ v


def ours(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return dropkit.torch.attention(q, k, v, p=P, training=True, key=KEY, is_causal=True)


CONTESTANTS: dict[str, Pass] = {"flash": flash, "SDPA": sdpa, "composed": composed, "dropkit": ours}


def inputs(length: int, features: int, dtype: torch.dtype, batch: int = BATCH) -> list[torch.Tensor]:
    torch.manual_seed(0)
    shape = (batch, HEADS, length, features)
    return [torch.randn(shape, device=DEVICE, dtype=dtype, requires_grad=number < 3) for number in range(4)]


def check(dtype: torch.dtype, length: int, features: int) -> str:
    """The error of the output and of each gradient, as a part of its largest entry."""
    *qkv, flow = inputs(length, features, dtype, 1)
    kept = torch.from_numpy(keep((1, HEADS, length, length), P, KEY).copy()).to(DEVICE)
    wide = [x.detach().double().requires_grad_() for x in qkv]
    scores = wide[0] @ wide[1].transpose(-1, -2) * features**-0.5
    hidden = ~torch.ones(length, length, dtype=torch.bool, device=DEVICE).tril()
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    wanted = torch.where(kept, weights / (1 - round(P * 65536) / 65536), 0.0) @ wide[2]
    out = ours(*qkv)
    pairs = zip(
        (out, *torch.autograd.grad(out, qkv, flow)),
        (wanted, *torch.autograd.grad(wanted, wide, flow.double())),
        strict=True,
    )
    errors = [float((a.double() - b).abs().max() / b.abs().max()) for a, b in pairs]
    told = ", ".join(f"{error:.1e}" for error in errors)
    if not max(errors) <= BOUNDS[dtype]:
        sys.exit(f"FAILED: attention, {dtype}, T = {length}, {features} features: errors {told}")
    return f"T = {length}, {features} features: errors of out, dq, dk, dv: {told}"


def measured(clock: Clock, call: Pass, tensors: list[torch.Tensor]) -> tuple[float, float]:
    """Milliseconds of a forward and backward pass, and MiB at its peak above what lies there before."""
    *qkv, flow = tensors

    def both() -> Any:
        return torch.autograd.grad(call(*qkv), qkv, flow)

    ms = clock.median_ms(both)
    if DRY:
        return ms, 0.0
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    both()
    return ms, (torch.cuda.max_memory_allocated() - before) / MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of JSON lines to append to")
    lines = Lines(parser.parse_args().out, "attention")
    for dtype in BOUNDS:
        for length, features in ((20, 16),) if DRY else ((200, 40), (1024, 64), (1024, 128), (333, 256)):
            lines.add(check=f"{dtype}".removeprefix("torch."), result=check(dtype, length, features))
    clock = Clock(20)
    for dtype in (torch.bfloat16, torch.float32):
        for length in LENGTHS:
            for features in FEATURES:
                tensors = inputs(length, features, dtype)
                for name, call in CONTESTANTS.items():
                    try:
                        ms, peak = measured(clock, call, tensors)
                    except torch.OutOfMemoryError:
                        ms, peak = None, None
                    kind = f"{dtype}".removeprefix("torch.")
                    lines.add(attention=name, dtype=kind, length=length, features=features, ms=ms, peak_mib=peak)


if __name__ == "__main__":
    main()
