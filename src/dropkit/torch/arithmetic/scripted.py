"""Dropout in the subset of Python that TorchScript compiles; ambient draws only, as a script has no model to ask."""

import math

import torch


def dropout(x: torch.Tensor, p: float, active: bool, inplace: bool, share: list[int], alpha: bool) -> torch.Tensor:
    """`x` dropped as `ops.dropout` would; `share` holds axes that count from either end."""
    if not active or p == 0.0 or x.numel() == 0:
        return x
    key = torch.randint(0, 4294967296, [2], dtype=torch.int64)
    noise: list[int] = []
    stride = 1
    for i in range(x.dim()):
        axis = x.dim() - 1 - i
        if axis in share or axis - x.dim() in share:
            noise.insert(0, 0)
        else:
            noise.insert(0, stride)
            stride *= x.size(axis)
    rate = torch.tensor(p, dtype=torch.float64)
    numbers: torch.Tensor | None = None
    if alpha:
        numbers = alpha_numbers(p)
    y = torch.ops.dropkit.dropout(x, rate, key, noise, 0, None, "alpha" if alpha else "bernoulli", None, numbers, None)
    if inplace:
        x.copy_(y)
        return x
    return y


def alpha_numbers(p: float) -> torch.Tensor:
    """`Alpha().numbers`: TorchScript cannot call it, so its formula stands here a second time."""
    q = (65536.0 - float(torch.round(torch.tensor(p * 65536.0, dtype=torch.float64)))) / 65536.0
    limit = -1.7580993408473766
    if q == 0.0:
        return torch.zeros(3, dtype=torch.float64)
    a = 1.0 / math.sqrt(q * (1.0 + (1.0 - q) * (limit * limit)))
    b = -a * (1.0 - q) * limit
    return torch.tensor([a, b, a * limit + b if q < 1.0 else 0.0], dtype=torch.float64)


def channels(x: torch.Tensor, p: float, active: bool, inplace: bool, first: int, alpha: bool) -> torch.Tensor:
    """`dropout` with every axis from `first` on shared."""
    if active and 0.0 < p < 1.0 and x.dim() < min(first, 2):
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    share: list[int] = []
    for axis in range(first, x.dim()):
        share.append(axis)  # noqa: PERF402  # TorchScript has no list(range())
    return dropout(x, p, active, inplace, share, alpha)
