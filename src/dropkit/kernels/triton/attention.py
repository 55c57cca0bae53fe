"""Attention with dropout of its weights, forward and backward: the launchers of `attention_tiles.py`.

Nothing of the size of the weights is ever in memory. Source: Dao 2023 (arXiv:2307.08691).
"""
# mypy: disable-error-code="import-not-found, import-untyped"

from typing import Any, NamedTuple

import torch
import triton

from .attention_tiles import AFTER, BEFORE, NOT, forward_kernel, key_gradient_kernel, query_gradient_kernel
from .walk import Key, key_arguments, on_device

ONE = 1 << 16  # t where everything is kept
KERNELS = {"forward": forward_kernel, "query": query_gradient_kernel, "key": key_gradient_kernel}
FUSED = {"enable_fp_fusion": True}  # no bits of another device are promised here, as they are elsewhere


class Weights(NamedTuple):
    """What decides the weights but for q and k.

    Args:
        mask: bool (True: visible) or floating (added), of the weights' shape, any strides; or None.
        diagonal: query i sees the keys up to i + diagonal; None: all.
        scale: of the scores.
        before: keys are dropped before the softmax.
        key: two words, an int64 tensor of the two, or a `StoredKey`.
        t: kept of 65536.
        noise: by how many indices the noise moves along each axis of the weights, 0 where a draw is shared.
        base: noise index of the first weight.
        rows: int64, row number in the whole of each sample.
    """

    mask: torch.Tensor | None
    diagonal: int | None
    scale: float
    before: bool
    key: Key
    t: int
    noise: tuple[int, ...] = (0, 0, 0, 0)
    base: int = 0
    rows: torch.Tensor | None = None


class Tiles(NamedTuple):
    """Queries and keys of a tile, warps, and how many tiles are loaded ahead."""

    M: int
    N: int
    num_warps: int
    num_stages: int


def tiles_of(name: str, wide: int, half: bool) -> Tiles:
    """The tiles of "forward", "query" or "key" gradients, for features padded to `wide`.

    What lies in shared memory stays below 99 KiB, which every device since compute capability 8.6 has.
    """
    if name == "forward":
        table = {64: Tiles(128, 64, 4, 2), 128: Tiles(64, 64, 4, 2), 256: Tiles(64, 32, 8, 2)}
    else:
        table = {64: Tiles(64, 64, 4, 2), 128: Tiles(64, 32, 4, 2), 256: Tiles(32, 32, 8, 1)}
    if not half:
        table = {64: Tiles(64, 32, 4, 2), 128: Tiles(32, 32, 4, 2), 256: Tiles(16, 32, 8, 1)}
    return table[max(wide, 64)]


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, weights: Weights
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What comes out, and of each query the greatest score in base 2 and the inverse of the sum, float32.

    Args:
        q, k, v: float16, bfloat16 or float32, 1 to 256 features; q has a multiple of the heads of k and v.
        weights: the rest.
    """
    q, k, v = (_laid(x) for x in (q, k, v))
    out = torch.empty(*q.shape[:3], v.shape[3], dtype=q.dtype, device=q.device)
    most, inverse = (torch.zeros(q.shape[:3], dtype=torch.float32, device=q.device) for _ in range(2))
    if out.numel():
        arguments = _arguments("forward", q, k, v, weights)
        steps = {"q_steps": _steps(q), "k_steps": _steps(k), "v_steps": _steps(v), "out_steps": _steps(out)}
        grid = (triton.cdiv(q.shape[2], arguments["M"]) * q.shape[0] * q.shape[1],)
        with on_device(q):
            forward_kernel[grid](q, k, v, out=out, most=most, inverse=inverse, **steps, **arguments)
    return out, most, inverse


def attention_backward(
    grad: torch.Tensor,
    lse_grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    most: torch.Tensor,
    inverse: torch.Tensor,
    weights: Weights,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k and v, given those of the output and of the log-sum-exps, float32; the rest as from forward."""
    grad, q, k, v, out = (_laid(x) for x in (grad, q, k, v, out))
    dq, dk, dv = (torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    if not out.numel():
        return dq, dk, dv
    given = {"most": most, "inverse": inverse, "delta": torch.empty_like(most)}
    steps = {"q_steps": _steps(q), "k_steps": _steps(k), "v_steps": _steps(v), "grad_steps": _steps(grad)}
    with on_device(q):
        arguments = _arguments("query", q, k, v, weights)
        grid = (triton.cdiv(q.shape[2], arguments["M"]) * q.shape[0] * q.shape[1],)
        query_gradient_kernel[grid](
            q, k, v, out=out, grad=grad, lse_grad=lse_grad.contiguous(), dq=dq, **given,
            **steps, out_steps=_steps(out), dq_steps=_steps(dq), **arguments,
        )  # fmt: skip
        arguments = _arguments("key", q, k, v, weights)
        grid = (triton.cdiv(k.shape[2], arguments["N"]) * k.shape[0] * k.shape[1],)
        if dk.numel():
            key_gradient_kernel[grid](
                q, k, v, grad=grad, dk=dk, dv=dv, **given,
                **steps, dk_steps=_steps(dk), dv_steps=_steps(dv), **arguments,
            )  # fmt: skip
    return dq, dk, dv


def _arguments(name: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, weights: Weights) -> dict[str, Any]:
    """What all three kernels take, but for their tensors."""
    padded = [max(triton.next_power_of_2(x.shape[3]), 16) for x in (q, v)]
    tiles = tiles_of(name, max(padded), q.dtype != torch.float32)
    mask, t, noise = weights.mask, weights.t, weights.noise
    drop = NOT if t == ONE else BEFORE if weights.before else AFTER
    diagonal = 0 if weights.diagonal is None else min(max(weights.diagonal, -q.shape[2]), k.shape[2])
    # tensor cores round float32 to 10 bits, so they serve only those who have allowed it
    precision = "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
    return {
        "mask": None if mask is None else mask.view(torch.uint8) if mask.dtype == torch.bool else mask,
        "mask_steps": (0, 0, 0, 0) if mask is None else tuple(mask.stride()),
        "heads": q.shape[1], "groups": q.shape[1] // k.shape[1], "queries": q.shape[2], "keys": k.shape[2],
        "features": q.shape[3], "others": v.shape[3], "scale": weights.scale, "diagonal": diagonal,
        "factor": ONE / t if drop == AFTER and t else 1.0,
        "base": weights.base, "noise": tuple(noise), "gather": weights.rows, "t": t, **key_arguments(weights.key),
        "D": padded[0], "E": padded[1], "CAUSAL": weights.diagonal is not None, "DROP": drop, "SHARED": noise[3] == 0,
        "ALIGNED": all(number % 32 == 0 for number in (weights.base, *noise[:3])),
        "GROUPS": sum(t & (0xFFFF >> shift) != 0 for shift in (0, 4, 8, 12)) if t < ONE else 0,
        "PRECISION": precision if q.dtype == torch.float32 else "tf32", **tiles._asdict(), **FUSED,
    }  # fmt: skip


def _laid(x: torch.Tensor) -> torch.Tensor:
    """x, or a copy whose last axis is consecutive."""
    return x if x.stride(3) == 1 or x.shape[3] == 1 else x.contiguous()


def _steps(x: torch.Tensor) -> tuple[int, ...]:
    return tuple(x.stride()[:3])
