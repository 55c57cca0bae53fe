"""Dropout for FlexAttention, which has none: two exact forms out of what its `score_mod` can say.

    "keys"  K' = [K; K], V' = [V * 2^16 / t; 0]: a weight that is kept is seen in the first copy, one that is dropped in
            the second. The sum is the whole one, the output that of what is kept.
    "lse"   out = flex(what is kept) * exp(lse of what is kept - lse of all) * 2^16 / t

Both take the scores twice. They are a reference for kernels, and what serves until a kernel drops by itself.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from ...axes.share import Sharing
from ...counter import Key
from ...errors import DropkitRuntimeError, DropkitValueError
from ...mask import keep_words
from ...place import Part, Place
from ...threshold import ONE
from .. import ops
from .call import axes_of, one_rate
from .request import KernelDraw, checked_shapes

FORMS = ("keys", "lse")
Mod = Callable[..., torch.Tensor]


def flex_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    p: float,
    training: bool,
    key: Key | None = None,
    score_mod: Mod | None = None,
    block_mask: Any = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    share: Sequence[int] | Sharing = (),
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: torch.Tensor | Sequence[int] | None = None,
    form: str = "keys",
    flex: Callable[..., Any] | None = None,
) -> torch.Tensor:
    """FlexAttention with dropout of its weights: `out = (keep * softmax(score_mod(scale q k')) / (1 - p)) v`.

    The mask is that of `dropkit.torch.attention`, which is faster where it can say what is seen. FlexAttention itself
    has no backward pass on a CPU, and compiled there no log-sum-exps either (torch 2.13).

    Args:
        q, k, v, score_mod, block_mask, scale, enable_gqa: as for `torch.nn.attention.flex_attention.flex_attention`.
        p, training, key, share, offset, global_shape, rows: as for `dropkit.torch.attention`.
        form: "keys" doubles the keys; "lse" calls FlexAttention twice, and needs gradients of its log-sum-exps.
        flex: what attends; `torch.compile(flex_attention)` for a fused kernel; a new step compiles nothing.

    Returns:
        (batch, heads, queries, features of v), in q's dtype.

    Raises:
        DropkitValueError, DropkitTypeError: as `dropkit.torch.attention`; a form that is none; a `block_mask` for
            other lengths.
        DropkitRuntimeError: a call inside torch.compile.

    Sources: Dong et al. 2024 (arXiv:2412.05496) for FlexAttention.

    >>> import warnings
    >>> q = k = v = torch.eye(4)[None, None]
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")  # torch says that without torch.compile it stores the scores
    ...     out = flex_attention(q, k, v, p=0.5, training=True, key=Key(seed=1, site="attention"))
    >>> out.shape
    torch.Size([1, 1, 4, 4])
    """
    if torch.compiler.is_compiling():
        raise DropkitRuntimeError("flex_attention is not for torch.compile: give it flex=torch.compile(flex_attention)")
    if form not in FORMS:
        raise DropkitValueError(f"form must be one of {', '.join(map(repr, FORMS))}, got {form!r}")
    shape = checked_shapes(q, k, v, enable_gqa)
    _check_blocks(block_mask, shape)
    attend = _torchs() if flex is None else flex
    rest = {"scale": scale, "enable_gqa": enable_gqa}
    fresh = ops.fresh_with(key, Part.of(offset, global_shape, rows))
    weights = q.detach().new_empty(()).expand(shape)  # a shape, without memory
    lowered = ops.lower(weights, one_rate(p), ops.mode(training))
    axes = axes_of(share)
    if lowered is None or lowered.t == 0:
        out = attend(q, k, v, score_mod=score_mod, block_mask=block_mask, **rest)
        nothing = torch.full((), lowered is not None, dtype=torch.bool, device=q.device)
        return out if lowered is None else out.masked_fill(nothing, 0.0)
    draw, place = ops.prepare(weights, lowered, fresh, axes)
    assert isinstance(place, Place)  # `axes_of` has refused what refines
    kept = _kept(KernelDraw(draw.key, lowered.t, place), q.device)
    how = _doubled if form == "keys" else _merged
    return how(attend, q, k, v, kept, ONE / lowered.t, score_mod, block_mask, rest)


def _torchs() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention as torchs

    return torchs


def _check_blocks(block_mask: Any, shape: tuple[int, ...]) -> None:
    if block_mask is not None and tuple(block_mask.seq_lengths) != shape[2:]:
        raise DropkitValueError(
            f"block_mask is for {tuple(block_mask.seq_lengths)} queries and keys, but there are {shape[2:]}"
        )


def _kept(drawn: KernelDraw, device: torch.device) -> Mod:
    """`(batch, head, query, key) -> bool`. What each step has anew is data, so that a compiler sees one function."""
    t, place = drawn.t, drawn.place
    assert place is not None
    words = torch.as_tensor(drawn.key, dtype=torch.int64, device=device)
    first, second, base = words[0], words[1], torch.full((), place.base, dtype=torch.int64, device=device)
    along, rows = place.strides, None if place.rows is None else place.rows.to(device)

    def kept(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        row = batch.long() if rows is None else rows[batch]
        index = base + row * along[0] + head.long() * along[1] + query.long() * along[2] + key.long() * along[3]
        return ((keep_words(index >> 5, t, (first, second)) >> (index & 31)) & 1) == 1

    return kept


def _doubled(
    attend: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, kept: Mod, factor: float, mod: Any, blocks: Any,
    rest: Any,
) -> torch.Tensor:  # fmt: skip
    keys = k.shape[2]
    whole = keys if blocks is None else blocks.kv_indices.shape[-1] * blocks.BLOCK_SIZE[1]

    def score_mod(
        score: torch.Tensor, batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor
    ) -> torch.Tensor:
        one = key % whole
        real = one.clamp(max=keys - 1)
        if mod is not None:
            score = mod(score, batch, head, query, real)
        hidden = (kept(batch, head, query, real) == (key >= whole)) | (one >= keys)
        return torch.where(hidden, -torch.inf, score)

    more = (0, 0, 0, whole - keys)
    k, v = functional.pad(k, more), functional.pad(v * factor, more)
    twice = torch.cat([k, k], 2), torch.cat([v, torch.zeros_like(v)], 2)
    mask = None if blocks is None else _twice(blocks, q.shape[2], keys, whole)
    return attend(q, *twice, score_mod=score_mod, block_mask=mask, **rest)


def _merged(
    attend: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, kept: Mod, factor: float, mod: Any, blocks: Any,
    rest: Any,
) -> torch.Tensor:  # fmt: skip
    def score_mod(
        score: torch.Tensor, batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor
    ) -> torch.Tensor:
        if mod is not None:
            score = mod(score, batch, head, query, key)
        return torch.where(kept(batch, head, query, key), score, -torch.inf)

    out, some = _with_lse(attend, q, k, v, score_mod=score_mod, block_mask=blocks, **rest)
    _, every = _with_lse(attend, q, k, v, score_mod=mod, block_mask=blocks, **rest)
    none = some == -torch.inf  # a row that keeps nothing gives 0
    share = (some.masked_fill(none, 0.0) - every.masked_fill(none, 0.0)).exp() * factor
    return (out * share.unsqueeze(-1)).masked_fill(none.unsqueeze(-1), 0.0).to(out.dtype)


def _with_lse(attend: Any, *args: Any, **how: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Asked for as this torch would be asked, whose name for it has changed."""
    from torch.nn.attention import flex_attention as torchs

    if not hasattr(torchs, "AuxRequest"):
        return attend(*args, return_lse=True, **how)
    out, aux = attend(*args, return_aux=torchs.AuxRequest(lse=True), **how)
    return out, aux.lse


def _twice(blocks: Any, queries: int, keys: int, whole: int) -> Any:
    """The block mask for the doubled keys."""
    from torch.nn.attention.flex_attention import BlockMask

    def mask_mod(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return blocks.mask_mod(batch, head, query, (key % whole).clamp(max=keys - 1))

    def both(number: Any, indices: Any) -> tuple[Any, Any]:
        if number is None:
            return None, None
        count = indices.shape[-1]
        listed = torch.arange(count, device=indices.device) < number.unsqueeze(-1)
        where = torch.where(listed, indices, count).long()
        table = torch.zeros(*indices.shape[:-1], count + 1, dtype=torch.int32, device=indices.device)
        table = table.scatter(-1, where, 1)[..., :count]
        table = torch.cat([table, table], -1)
        order = torch.argsort(table, dim=-1, descending=True, stable=True)
        return table.sum(-1).to(number.dtype), order.to(indices.dtype).contiguous()

    return BlockMask.from_kv_blocks(
        *both(blocks.kv_num_blocks, blocks.kv_indices),
        *both(blocks.full_kv_num_blocks, blocks.full_kv_indices),
        BLOCK_SIZE=blocks.BLOCK_SIZE,
        mask_mod=mask_mod,
        seq_lengths=(queries, 2 * whole),
    )
