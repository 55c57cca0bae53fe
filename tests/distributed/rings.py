"""Attention with dropout over a context that is cut: a ring, chunks of queries, heads; forward and backward."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dropkit import Key
from dropkit.torch import attention, merge_attention

KEY = Key(3, "ring", 1)
LENGTH, HEADS = 24, 4
WHOLE = (2, HEADS, LENGTH, LENGTH)
CASES: list[dict[str, Any]] = [
    {"p": 0.3},
    {"p": 0.3, "is_causal": True},
    {"p": 0.5, "is_causal": True, "before_softmax": True},
    {"p": 0.3, "share": (2,)},
]


class Passed(torch.autograd.Function):
    """To the next rank, from the one before; gradients go the other way round."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return passed(x, 1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return passed(grad, -1)


def passed(x: torch.Tensor, step: int) -> torch.Tensor:
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if ranks == 1:
        return x.clone()
    x, found = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
    both = [
        dist.P2POp(dist.isend, x, (rank + step) % ranks),
        dist.P2POp(dist.irecv, found, (rank - step) % ranks),
    ]
    for work in dist.batch_isend_irecv(both):
        work.wait()
    return found


def given() -> list[torch.Tensor]:
    """q, k, v and what flows back, whole."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, HEADS, LENGTH, 8, generator=generator) for _ in range(4)]


def whole(how: dict[str, Any]) -> list[torch.Tensor]:
    """In one process: the output and the gradients."""
    *qkv, flow = given()
    leaves = [x.requires_grad_() for x in qkv]
    out = attention(*leaves, training=True, key=KEY, **how)
    return [out.detach(), *torch.autograd.grad(out, leaves, flow)]


def cut(tensors: list[torch.Tensor], axis: int, rank: int, ranks: int) -> list[torch.Tensor]:
    return [x.chunk(ranks, axis)[rank].clone() for x in tensors]


def compared(axis: int, rank: int, ranks: int, call: Any) -> int:
    """What `call` makes of this rank's part of q, k and v is this rank's part of the whole."""
    for how in CASES:
        *qkv, flow = cut(given(), axis, rank, ranks)
        leaves = [x.requires_grad_() for x in qkv]
        out = call(*leaves, how)
        found = [out.detach(), *torch.autograd.grad(out, leaves, flow)]
        for part, wanted in zip(found, cut(whole(how), axis, rank, ranks), strict=True):
            torch.testing.assert_close(part, wanted, rtol=1e-4, atol=1e-5)
    return len(CASES)


def ring_of_keys(rank: int, ranks: int, folder: Path) -> Any:
    """Keys and values go round; the parts are put together by their log-sum-exps."""
    each = LENGTH // ranks

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, how: dict[str, Any]) -> torch.Tensor:
        parts = []
        for step in range(ranks):
            place = (0, 0, rank * each, (rank - step) % ranks * each)
            said = {"offset": place, "global_shape": WHOLE, "return_lse": True}
            parts.append(attention(q, k, v, training=True, key=KEY, **how, **said))
            if step < ranks - 1:
                k, v = Passed.apply(k), Passed.apply(v)
        return merge_attention(parts)[0]

    return compared(2, rank, ranks, call)


def gathered_keys(rank: int, ranks: int, folder: Path) -> Any:
    """A chunk of queries sees all keys, which all ranks have gathered."""

    class Gathered(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            found = [torch.empty_like(x) for _ in range(ranks)]
            dist.all_gather(found, x.contiguous())
            return torch.cat(found, 2)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            grad = grad.clone()
            dist.all_reduce(grad)
            return grad.chunk(ranks, 2)[rank]

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, how: dict[str, Any]) -> torch.Tensor:
        said = {"offset": (0, 0, rank * LENGTH // ranks, 0), "global_shape": WHOLE}
        return attention(q, Gathered.apply(k), Gathered.apply(v), training=True, key=KEY, **how, **said)

    return compared(2, rank, ranks, call)


def cut_heads(rank: int, ranks: int, folder: Path) -> Any:
    """Each rank has some heads."""

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, how: dict[str, Any]) -> torch.Tensor:
        said = {"offset": (0, rank * HEADS // ranks, 0, 0), "global_shape": WHOLE}
        return attention(q, k, v, training=True, key=KEY, **how, **said)

    return compared(1, rank, ranks, call)


CHECKS = [ring_of_keys, gathered_keys, cut_heads]
