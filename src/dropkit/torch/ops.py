"""Dropout as a function on torch tensors. Nothing is saved for backward but the key: the mask is computed again."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

from ..counter import Key
from ..errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from ..layout import Layout, layout, whole_layout
from ..mask import ONE, threshold
from . import cpu, cuda, formula, registered, replay
from .coordinates import draw_for
from .formula import Rate
from .replay import Draw

Fresh = Callable[[Rate], Draw]
_WHOLE = (None, None, None)  # no offset, no global shape, no rows


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
    rate = lower(x, p, mode(training))
    if rate is None:
        return x
    return apply(x, rate, fresh_with(key, offset, global_shape, rows), share, inplace)


def mode(training: bool) -> bool:
    """The mode, which must be a plain bool: a forgotten `self.` or a None would drop, or not, in silence."""
    if not isinstance(training, bool):
        raise DropkitTypeError(f"training must be True or False, got {training!r}; pass the module's self.training")
    return training


def fresh_with(
    key: Key | None,
    offset: Sequence[int] | None,
    global_shape: Sequence[int] | None,
    rows: torch.Tensor | Sequence[int] | None,
) -> Fresh:
    """What draws for a call with these arguments."""
    if key is not None and not isinstance(key, Key):
        raise DropkitTypeError(f"key must be a dropkit.Key such as Key(seed=0, site='drop', step=0), got {key!r}")

    def fresh(rate: Rate) -> Draw:
        return draw_for(rate, key=key, offset=offset, global_shape=global_shape, rows=rows)

    return fresh


def lower(x: torch.Tensor, p: float | torch.Tensor, training: bool) -> Rate | None:
    """p as what the arithmetic takes, t of 65536 or a tensor; None where nothing is dropped. Checks p and x's dtype."""
    if isinstance(p, torch.Tensor):
        rate: Rate = _checked(p, x)
    elif torch.compiler.is_compiling() and isinstance(p, float):
        # A number may be symbolic there: as a tensor it is data, and another value compiles nothing again.
        if not 0.0 <= p <= 1.0:
            threshold(p)  # raises
        training = training and p != 0.0
        rate = torch.full((), p, dtype=torch.float64)
    else:
        rate = threshold(p)
        training = training and rate != ONE
    if not training or x.numel() == 0:
        return None
    if x.dtype not in cpu.DTYPES:
        raise DropkitDtypeError(
            f"dropout in training needs float16, bfloat16, float32 or float64, but x is {x.dtype} (result type Float "
            "can't be cast to the desired output type); convert with x.float()"
        )
    return rate


def apply(x: torch.Tensor, rate: Rate, fresh: Fresh, share: Sequence[int], inplace: bool) -> torch.Tensor:
    """Dropout with the draw that `fresh(rate)` gives, or that a recomputed forward gave before."""
    if inplace and x.requires_grad and x.is_leaf and torch.is_grad_enabled():
        raise DropkitRuntimeError(
            "a leaf Variable that requires grad is being used in an in-place operation. Use inplace=False"
        )
    draw, place = prepare(x, rate, fresh, share)
    if traced():
        return _traced(x, draw, place, inplace)
    return scale_kept(x, draw.key, draw.rate, place, inplace)


def prepare(x: torch.Tensor, rate: Rate, fresh: Fresh, share: Sequence[int]) -> tuple[Draw, Layout]:
    """The draw of a call, and where its tensor lies."""
    # Where everything goes, no random numbers are needed, and the generator stands still.
    draw = Draw((0, 0), 0) if isinstance(rate, int) and rate == 0 else replay.draw(fresh, rate)
    if draw[2:] == _WHOLE and not traced():
        return draw, whole_layout(x.shape, tuple(share))
    place = layout(x.shape, share, draw.offset, draw.global_shape, draw.rows)
    formula.check_rows(place)
    return draw, place


def traced() -> bool:
    """Whether something looks on that wants one node rather than a result: a compiler, an exporter, a mode."""
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0


def _traced(x: torch.Tensor, draw: Draw, place: Layout, inplace: bool) -> torch.Tensor:
    """One node for whatever traces: a compiler, an exporter, a mode."""
    rate = draw.rate
    p = rate if isinstance(rate, torch.Tensor) else torch.tensor(1 - rate / ONE, dtype=torch.float64)
    key = draw.key if isinstance(draw.key, torch.Tensor) else torch.tensor(draw.key)
    y = registered.dropout(x, p, key, place)
    return x.copy_(y) if inplace else y


def scale_kept(x: torch.Tensor, key: Any, rate: Rate, place: Layout, inplace: bool) -> torch.Tensor:
    """The eager way: the kernel where it may take the tensor by its pointer, torch operations elsewhere."""
    kernels = kernels_for(x)
    if kernels is None:
        return _Formula.apply(x, key, rate, place, inplace)
    if (x.requires_grad and torch.is_grad_enabled()) or forward_ad._current_level >= 0:
        return _kernel(x, kernels, key, rate, place, inplace)
    if inplace:
        torch.autograd.graph.increment_version(x)
    return kernels.scale_kept(x, key, rate, place, inplace)


def kernels_for(x: torch.Tensor) -> Any:
    """The module whose kernels take this tensor, or None."""
    return cpu if cpu.usable(x) else cuda if cuda.usable(x) else None


# `x * scale where kept, 0 elsewhere` is linear in x: it is its own derivative, both ways. What is kept for backward is
# the key, as two integers.


class _Kernel(torch.autograd.Function):
    """Dropout of a plain tensor for which there is a kernel."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, kernels: Any, *rest: Any) -> torch.Tensor:
        ctx.rest = rest
        if rest[-1]:
            ctx.mark_dirty(x)
        return kernels.scale_kept(x, *rest)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        key, rate, place, _ = ctx.rest
        return scale_kept(grads[0], key, rate, place, False), None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> torch.Tensor:
        return scale_kept(tangents[0], *ctx.rest)


# Function.apply is a Python wrapper that looks for function transforms, which `kernels_for` has ruled out; what it
# wraps takes 3 of its 8 microseconds less.
_kernel = torch._C._FunctionBase.__dict__["apply"].__get__(None, _Kernel)


class _Formula(torch.autograd.Function):
    """Dropout of any other tensor: another device, a subclass, one under a function transform."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        return formula.scale_kept(x, *rest)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, *ctx.rest = inputs
        if ctx.rest[-1]:
            ctx.mark_dirty(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        return _Formula.apply(grads[0], *ctx.rest[:-1], False), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> torch.Tensor:
        return _Formula.apply(tangents[0], *ctx.rest)


def _checked(p: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    if p.requires_grad:
        raise DropkitTypeError(
            "p requires grad, but a hard mask has no gradient in p: pass p.detach(), or use a relaxed noise to learn it"
        )
    if p.dtype.is_complex:
        raise DropkitTypeError(f"dropout probability must be a real number, but got a tensor of {p.dtype}")
    inside = (p >= 0) & (p <= 1)  # False for NaN
    if p.device.type != "cpu" or torch.compiler.is_compiling():
        torch._assert_async(inside.all(), "dropout probability has to be between 0 and 1")
    elif not inside.all():
        wrong = p[~inside].flatten()[0].item()
        raise DropkitValueError(f"dropout probability has to be between 0 and 1, but got {wrong} in a tensor p")
    try:
        shape = torch.broadcast_shapes(p.shape, x.shape)
    except RuntimeError:
        shape = None
    if shape != x.shape:
        raise DropkitValueError(f"p of shape {tuple(p.shape)} does not broadcast to x of shape {tuple(x.shape)}")
    # What draws again in backward must see this p, whatever the caller writes into it until then.
    return p if torch.compiler.is_compiling() else p.detach().clone()
