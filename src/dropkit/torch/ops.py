"""Dropout as a function on torch tensors. Nothing is saved for backward but the key: the mask is computed again."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..counter import Key
from ..errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from ..layout import MAX_INDEX, Layout, layout
from ..mask import ONE, WORD, keep_words, random16, scale, threshold
from . import replay
from .coordinates import draw_for
from .replay import Draw

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class DropkitDtypeError(DropkitTypeError, RuntimeError):
    """A tensor of a dtype that dropout cannot scale; a RuntimeError too, as torch's own."""


def dropout(
    x: torch.Tensor,
    p: float | torch.Tensor,
    *,
    training: bool,
    key: Key | None = None,
    inplace: bool = False,
    share: Sequence[int] = (),
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: torch.Tensor | Sequence[int] | None = None,
) -> torch.Tensor:
    """Zero elements with probability p and scale the rest: `y = x * keep / (1 - p)`, gradient `g * keep / (1 - p)`.

    Args:
        x: tensor of float16, bfloat16, float32 or float64, any shape, device and memory format.
        p: drop probability in [0, 1], rounded to 1/65536 (the scale is exact for the rounded value); a number, or a
            tensor that broadcasts to x (it gets no gradient: a hard mask has none).
        training: whether to drop at all. It has no default on purpose: dropout left on at evaluation is the most
            frequent bug around it.
        key: the mask's coordinates. Without one they come from `dropkit.torch.at`, or else from torch's default
            generator, so that `torch.manual_seed` governs the mask.
        inplace: write into x.
        share: axes along which one draw is shared; (2, 3) drops whole channels of N x C x H x W.
        offset, global_shape: where x starts in a larger tensor, and that tensor's shape: x then gets its slice of
            the larger tensor's mask.
        rows: row number in the whole of each entry of axis 0: a sample's mask then does not depend on its batch.

    Returns:
        A tensor like x: kept values are exactly `x * scale` (in float32 arithmetic for half types, rounded once),
        dropped ones 0 even where x is NaN or infinite. x itself if nothing is dropped: not training, p below 2**-17,
        or no elements; torch's generator is then not advanced, nor is it for p = 1.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; a dtype other than the four, in
            training; a share axis that does not exist; an offset outside the global shape; a key that is no Key.

    Source: Srivastava et al. 2014 (JMLR 15:1929); mask specification v1 (docs/mask.md).

    >>> x = torch.ones(2, 8)
    >>> dropout(x, 0.5, training=True, key=Key(seed=1, site="drop"))
    tensor([[0., 0., 0., 0., 2., 2., 2., 0.],
            [0., 2., 2., 2., 0., 0., 2., 0.]])
    >>> dropout(x, 0.5, training=False) is x
    True
    """
    if not isinstance(training, bool):
        raise DropkitTypeError(f"training must be True or False, got {training!r}; pass the module's self.training")
    if key is not None and not isinstance(key, Key):
        raise DropkitTypeError(f"key must be a dropkit.Key such as Key(seed=0, site='drop', step=0), got {key!r}")
    if not drops(x, p, training):
        return x

    def fresh() -> Draw:
        return draw_for(p, key=key, offset=offset, global_shape=global_shape, rows=rows)

    return apply(x, p, fresh, share, inplace)


def drops(x: torch.Tensor, p: float | torch.Tensor, training: bool) -> bool:
    """Whether anything may be dropped from x; checks p always, and the dtype of x in training."""
    if isinstance(p, torch.Tensor):
        _check_tensor_p(p)
        nothing = False  # only the device knows its values
    else:
        nothing = threshold(p) == ONE
    if not training or nothing or x.numel() == 0:
        return False
    if x.dtype not in FLOATING:
        raise DropkitDtypeError(
            f"dropout in training needs float16, bfloat16, float32 or float64, but x is {x.dtype} (result type Float "
            "can't be cast to the desired output type); convert with x.float()"
        )
    return True


def apply(
    x: torch.Tensor, p: float | torch.Tensor, fresh: Callable[[], Draw], share: Sequence[int], inplace: bool
) -> torch.Tensor:
    """Dropout with the draw that `fresh()` gives, or that a recomputed forward gave before."""
    if inplace and x.requires_grad and x.is_leaf and torch.is_grad_enabled():
        raise DropkitRuntimeError(
            "a leaf Variable that requires grad is being used in an in-place operation. Use inplace=False"
        )
    if not isinstance(p, torch.Tensor) and threshold(p) == 0:
        draw = Draw(torch.zeros(2, dtype=torch.int64), p)  # everything goes: no random numbers, no generator
    else:
        draw = replay.draw(fresh)
    place = layout(x.shape, share, draw.offset, draw.global_shape, draw.rows)
    p = draw.p
    t: Any = _tensor_thresholds(p, x) if isinstance(p, torch.Tensor) else threshold(p)
    return _Dropout.apply(x, draw.key, t, place, inplace)


class _Dropout(torch.autograd.Function):
    """`y = x * scale` where kept, 0 elsewhere. Linear in x, so it is its own derivative both ways."""

    @staticmethod
    def forward(x: torch.Tensor, key: torch.Tensor, t: Any, place: Layout, inplace: bool) -> torch.Tensor:
        return _scale_kept(x, key, t, place, inplace)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, key, t, ctx.place, inplace = inputs
        if inplace:
            ctx.mark_dirty(x)
        ctx.inplace = inplace
        if isinstance(t, torch.Tensor):
            ctx.t = None
            ctx.save_for_backward(key, t)
            ctx.save_for_forward(key, t)
        else:
            ctx.t = t
            ctx.save_for_backward(key)
            ctx.save_for_forward(key)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        key, *rest = ctx.saved_tensors
        t = rest[0] if rest else ctx.t
        return _Dropout.apply(grads[0], key, t, ctx.place, False), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> torch.Tensor:
        key, *rest = ctx.saved_tensors
        t = rest[0] if rest else ctx.t
        return _Dropout.apply(tangents[0], key, t, ctx.place, ctx.inplace)


def _scale_kept(x: torch.Tensor, key: torch.Tensor, t: Any, place: Layout, inplace: bool) -> torch.Tensor:
    gone = keep_mask(place, t, key, x.device).logical_not_()
    factor = _tensor_scale(t, x.dtype) if isinstance(t, torch.Tensor) else scale(t)
    half = x.dtype in (torch.float16, torch.bfloat16)
    # Half types are scaled in float32 and rounded once; torch rounds the scale itself first, which biases the mean.
    if inplace:
        y = x.copy_(x.float() * factor) if half else x.mul_(factor)
    else:
        y = (x.float() * factor).to(x.dtype) if half else x * factor
    return y.masked_fill_(gone, 0)  # not a product: a dropped NaN is 0


def keep_mask(place: Layout, t: Any, key: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The mask of `dropkit.keep` in torch operations, for any device.

    Args:
        place: where the tensor lies in the whole.
        t: kept of 65536, an int, or an int64 tensor that broadcasts against the noise shape.
        key: int64 pair of key words.
        device: where to compute.

    Returns:
        Bool tensor of the noise shape (broadcast with t's shape).
    """
    words: Any = key.to(device).unbind() if torch.compiler.is_compiling() else tuple(key.tolist())
    if isinstance(t, torch.Tensor):
        lane = torch.arange(WORD, device=device)
        return _elements(place, device, lambda word: random16(word, lane, words)) < t
    if t == 0:
        return torch.zeros(place.shape, dtype=torch.bool, device=device)
    return _elements(place, device, lambda word: _unpack(keep_words(word, t, words)))


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
            _check_rows(place)
            coordinate = place.rows.to(device)
        else:
            coordinate = torch.arange(place.shape[axis], device=device)
        start = start + (coordinate * place.strides[axis]).reshape(-1, *[1] * (outer - axis - 1))
    return start


def _check_rows(place: Layout) -> None:
    rows = place.rows
    if rows.device.type == "cpu" and rows.numel() and (int(rows.max()) + 1) * place.strides[0] > MAX_INDEX:
        raise DropkitValueError(f"row {int(rows.max())} of {place.strides[0]} elements lies past index 2**63")


def _check_tensor_p(p: torch.Tensor) -> None:
    if p.requires_grad:
        raise DropkitTypeError(
            "p requires grad, but a hard mask has no gradient in p: pass p.detach(), or use a relaxed noise to learn it"
        )
    if p.dtype.is_complex:
        raise DropkitTypeError(f"dropout probability must be a real number, but got a tensor of {p.dtype}")
    inside = ((p >= 0) & (p <= 1)).all()  # False for NaN
    if p.device.type != "cpu" or torch.compiler.is_compiling():
        torch._assert_async(inside, "dropout probability has to be between 0 and 1")
    elif not inside:
        wrong = p[~((p >= 0) & (p <= 1))].flatten()[0].item()
        raise DropkitValueError(f"dropout probability has to be between 0 and 1, but got {wrong} in a tensor p")


def _tensor_thresholds(p: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    wide = p if p.dtype == torch.float64 else p.to(torch.float32)
    try:
        shape = torch.broadcast_shapes(p.shape, x.shape)
    except RuntimeError:
        shape = None
    if shape != x.shape:
        raise DropkitValueError(f"p of shape {tuple(p.shape)} does not broadcast to x of shape {tuple(x.shape)}")
    return ONE - torch.round(wide * ONE).to(device=x.device, dtype=torch.int64)


def _tensor_scale(t: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    wide = t.to(torch.float64 if dtype == torch.float64 else torch.float32)
    return torch.where(t > 0, ONE / wide, 0.0)
