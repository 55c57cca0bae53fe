"""`attention`: softmax attention with keyed dropout of its weights."""

from collections.abc import Sequence
from typing import Any

import torch

from ...axes.share import Refining, Sharing
from ...counter import Key
from ...errors import DropkitTypeError, DropkitValueError
from ...place import Part
from ...threshold import ONE
from .. import ops
from ..arithmetic.composed import Refined
from ..draw import Fresh
from ..drawing.around import in_lane
from ..drawing.lanes import InLanes, Lanes, NotInLanes
from . import blocks, composed, heads, tiled
from .casting import cast_to
from .request import KernelDraw, Masked, Request, checked_mask, checked_scale, checked_shapes


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    p: float,
    training: bool,
    key: Key | None = None,
    mask: torch.Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    share: Sequence[int] | Sharing = (),
    before_softmax: bool = False,
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: torch.Tensor | Sequence[int] | None = None,
    return_lse: bool = False,
) -> Any:
    """Attention with dropout of its weights: `out = (keep * softmax(scale q k' + mask) / (1 - p)) v`.

    The mask is `dropkit.keep((batch, heads, queries, keys), p, key)` on global coordinates, and is never stored: on the
    CPU a kernel computes it between the matrix products, forward and backward, and memory is linear in the length.

    Args:
        q, k, v: (batch, heads, length, features), float16, bfloat16, float32 or float64; v may have other features.
            In a region of autocast they are cast as torch's attention casts them.
        p: drop probability in [0, 1].
        training: whether to drop at all.
        key: the mask's coordinates; without one as for `dropkit.torch.dropout`.
        mask: bool (True where a query sees a key) or floating (added to the scores), broadcasting to
            (batch, heads, queries, keys). A query that sees no key gives 0.
        is_causal: query i sees keys up to i, in the coordinates of the whole where `offset` says where these lie.
        scale: of the scores; 1 / sqrt(features) by default.
        enable_gqa: q may have a multiple of the heads of k and v; each of theirs serves consecutive ones of q.
        share: axes of the weights along which one draw is shared: (2, 3) drops whole heads, (2,) a key for all queries.
        before_softmax: drop keys before the softmax (DropKey): what is left sums to 1, and nothing is scaled.
        offset, global_shape: where the weights of this call start, as (batch, head, query, key), and the shape of all
            of them: a block, a step of a ring or a chunk of a context then gets its part of the one mask.
        rows: row number in the data set of each sample.
        return_lse: also give the logarithm of each row's sum of exponentials, (batch, heads, queries), float32 or
            float64, by which parts are put together: `out = sum of exp(lse_i - lse) out_i`. It has a gradient.

    Returns:
        (batch, heads, queries, features of v), in q's dtype; with `return_lse` a pair.

    Raises:
        DropkitValueError, DropkitTypeError: shapes, heads or dtypes that do not fit; a mask of another shape; p outside
            [0, 1]; an offset beyond the global shape.

    Sources: Vaswani et al. 2017 (arXiv:1706.03762); DropKey: Li et al. 2023 (arXiv:2208.02646); the merge of parts:
    Dao et al. 2022 (arXiv:2205.14135).

    >>> q = k = v = torch.eye(4)[None, None]
    >>> out = attention(q, k, v, p=0.5, training=True, key=Key(seed=1, site="attention"))
    >>> out.shape, torch.equal(out, attention(q, k, v, p=0.5, training=True, key=Key(seed=1, site="attention")))
    (torch.Size([1, 1, 4, 4]), True)
    """
    shape = checked_shapes(q, k, v, enable_gqa)
    part = Part.of(offset, global_shape, rows)
    masked = Masked(checked_mask(mask, shape, q.device), _diagonal(part, shape) if is_causal else None)
    request = Request(masked, checked_scale(scale, q.shape[-1]), before_softmax)
    fresh = ops.fresh_with(key, part)
    out, lse = attended(q, k, v, shape, request, one_rate(p), ops.mode(training), fresh, axes_of(share), return_lse)
    return (out, lse) if return_lse else out


def attended(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    shape: tuple[int, ...],
    request: Request,
    p: Any,
    training: bool,
    fresh: Fresh,
    axes: Sequence[int] = (),
    with_lse: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What `attention` gives for a request that is checked and a given draw; each row's log-sum-exp if asked."""
    if (dtype := cast_to(q)) is not None:  # as torch's own: the products are the autocast's, on every way alike
        q, k, v = (x if x.dtype == torch.float64 else x.to(dtype) for x in (q, k, v))
        with torch.autocast(q.device.type, enabled=False):
            return attended(q, k, v, shape, request, p, training, fresh, axes, with_lse)
    weights = q.detach().new_empty(()).expand(shape)  # a shape, without memory
    lowered = ops.lower(weights, p, training)
    nothing = lowered is not None and type(lowered.t) is int and lowered.t == 0 and not request.before
    lse: torch.Tensor | None
    kernels = _kernels_for(q, k, v, shape, request)
    if kernels is None or (lowered is not None and type(lowered.t) is not int):
        drop = None if lowered is None else lambda weights: ops.apply(weights, lowered, fresh, axes, False)
        out, lse = composed.attend(q, k, v, request, drop)
    else:
        drawn = KernelDraw((0, 0), ONE, None)
        if lowered is not None and not nothing:
            try:
                draw, place = ops.prepare(weights, lowered, fresh, axes)
            except InLanes as found:
                return _in_lanes(found.lanes, (q, k, v), shape, request, (p, training, fresh, axes, with_lse))
            assert not isinstance(place, Refined)  # `axes_of` has refused what refines
            drawn = KernelDraw(draw.key, draw.lowered.t, place)
        if kernels is heads:
            out, lse = heads.attend(q, k, v, request, drawn, with_lse)
        else:
            out, lse = kernels.attend(q, k, v, request, drawn)
        if nothing:  # a product by 0 would make NaN of what is not finite
            out = out.masked_fill(torch.ones((), dtype=torch.bool, device=out.device), 0.0)
    return out, lse


def _in_lanes(
    lanes: Lanes, qkv: tuple[torch.Tensor, ...], shape: tuple[int, ...], request: Request, rest: tuple[Any, ...]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Each of several passes that a batch holds, with the draw of its step."""
    axis, each = lanes.rows_in(shape)
    if axis or (each > 1 and lanes.alone is not None):
        raise NotInLanes  # a batch of rows and of more
    count = len(lanes.steps)
    mask = request.masked.mask
    found = []
    for lane in range(count):
        masked = request.masked._replace(mask=None if mask is None else mask.chunk(count)[lane])
        with in_lane(lanes, lane if each else -1):
            q, k, v = (x.chunk(count)[lane] for x in qkv)
            found.append(attended(q, k, v, (shape[0] // count, *shape[1:]), request._replace(masked=masked), *rest))
    outs, sums = zip(*found, strict=True)
    return torch.cat(outs), None if sums[0] is None else torch.cat(sums)


def _kernels_for(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, shape: tuple[int, ...], request: Request) -> Any:
    """The module whose kernel takes this call, or None: what is traced, float64 and the rest go composed."""
    if ops.traced():
        return None
    here, learned = (q, k, v, request.masked.mask), request.masked.learned
    if blocks.usable(*here):
        if heads.suits(shape, k.shape[1]) and not (learned and not request.scale):
            return heads
        return None if learned else blocks
    return tiled if not learned and tiled.usable(*here) else None


def one_rate(p: Any) -> Any:
    if isinstance(p, torch.Tensor):
        if p.numel() != 1:
            raise DropkitValueError(f"attention has one p, but got a tensor of shape {tuple(p.shape)}")
        return p.item()
    return p


def axes_of(share: Sequence[int] | Sharing) -> Sequence[int]:
    axes = ops.axes_of(share)
    if isinstance(axes, Refining):
        raise DropkitTypeError(f"attention shares axes of its weights, such as (2, 3) for whole heads, got {share!r}")
    return axes


def _diagonal(part: Part, shape: tuple[int, ...]) -> int:
    """How much further than its own number a query of this part sees."""
    start, _ = part.in_whole(shape)
    if not all(isinstance(number, int) for number in start[2:]):
        raise DropkitValueError(f"is_causal needs offsets that are numbers, got {start}")
    return int(start[2] - start[3])
