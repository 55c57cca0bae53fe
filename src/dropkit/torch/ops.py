"""Dropout as a function on torch tensors. Nothing is saved for backward but the key: the mask is computed again."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.overrides import handle_torch_function, has_torch_function_unary

from ..axes.noise import Alpha, Bernoulli, Noise
from ..counter import Key
from ..errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from ..layout import Layout, layout, symbolic_layout, whole_layout
from ..mask import ONE, threshold
from .arithmetic import cpu, cuda, formula, registered, tracing, transforms
from .arithmetic.formula import ALPHA, BERNOULLI, GRADIENT, Rate
from .draw import Draw, Fresh, Unfolded
from .drawing.coordinates import draw_for
from .parts import parts_of

_WHOLE = (None, None, None, None)  # no offset, no global shape, no rows, no split


class DropkitDtypeError(DropkitTypeError, NotImplementedError):
    """A tensor of a dtype or layout that dropout cannot scale; the RuntimeErrors that torch raises there, too."""


_INVERTED = Bernoulli()


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
    noise: Noise = _INVERTED,
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
        noise: what becomes of kept and dropped elements; `dropkit.axes.noise.Alpha()` is alpha dropout, for SELU.

    Returns:
        A tensor like x: kept values are exactly `x * scale` (in float32 arithmetic for half types, rounded once),
        dropped ones 0 even where x is NaN or infinite. x itself if nothing can be dropped: not training, p = 0, or no
        elements; torch's generator is then not advanced, nor is it for p = 1.

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
    if has_torch_function_unary(x):
        return handle_torch_function(
            dropout, (x,), x, p, training=training, key=key, inplace=inplace, share=share, offset=offset,
            global_shape=global_shape, rows=rows, noise=noise,
        )  # fmt: skip
    law = _LAWS.get(type(noise)) or _no_law(noise)
    rate = lower(x, p, mode(training))
    if rate is None:
        return x
    return apply(x, rate, fresh_with(key, offset, global_shape, rows), share, inplace, law)


_LAWS: dict[type, str] = {Bernoulli: BERNOULLI, Alpha: ALPHA}


def _no_law(noise: object) -> str:
    raise DropkitTypeError(f"noise must be a value of dropkit.axes.noise, got {noise!r}; give Bernoulli() or Alpha()")


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
    elif torch.compiler.is_compiling() and isinstance(p, float) and not torch.compiler.is_exporting():
        # A number may be symbolic there: as a tensor it is data, and another value compiles nothing again.
        if not 0.0 <= p <= 1.0:
            threshold(p)  # raises
        training = training and p != 0.0
        rate = torch.zeros((), dtype=torch.float64) + p  # a sum: of torch.full the compiler would make a constant
    else:
        rate = threshold(p)
        training = training and p != 0
    return rate if training and droppable(x, rate) else None


def droppable(x: torch.Tensor, rate: Rate) -> bool:
    """Whether x has elements; refuses sparse ones, and dtypes that cannot be scaled unless everything goes."""
    if x.dtype not in cpu.DTYPES and not (isinstance(rate, int) and rate == 0):
        raise DropkitDtypeError(
            f"dropout in training needs float16, bfloat16, float32 or float64, but x is {x.dtype} (result type Float "
            f"can't be cast to the desired output type {_TORCHS_NAMES.get(x.dtype, x.dtype)}); convert with x.float()"
        )
    if x.layout is not torch.strided and not x.is_nested:
        raise DropkitDtypeError(f"dropout in training needs a dense tensor, but x is {x.layout}: take x.to_dense()")
    # Under a compiler or in a trace the size is known only when it runs; an empty tensor stays one there by itself.
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or x.numel() != 0


_TORCHS_NAMES = {
    torch.int64: "Long", torch.int32: "Int", torch.int16: "Short", torch.int8: "Char", torch.uint8: "Byte",
    torch.bool: "Bool",
}  # fmt: skip


def apply(
    x: torch.Tensor, rate: Rate, fresh: Fresh, share: Sequence[int], inplace: bool, law: str = BERNOULLI
) -> torch.Tensor:
    """Dropout with the draw that `fresh(rate)` gives."""
    if inplace and x.requires_grad and x.is_leaf and torch.is_grad_enabled():
        raise DropkitRuntimeError(
            "a leaf Variable that requires grad is being used in an in-place operation. Use inplace=False"
        )
    if (type(x) not in formula.PLAIN or x.is_nested) and (parts := parts_of(x, law)) is not None:
        y = parts.rebuilt(apply(parts.local, rate, parts.placed(fresh), parts.share(share), False, law))
        return x.copy_(y) if inplace else y
    if x.dtype not in cpu.DTYPES:  # everything goes: no arithmetic, so any dtype
        return x.zero_() if inplace else torch.zeros_like(x)
    if tracing.exporting() and not torch._C._are_functorch_transforms_active():
        y = _exported(x, rate, fresh, share, law)
        return x.copy_(y) if inplace else y
    if torch.compiler.is_compiling():
        return _compiled(x, rate, fresh, share, inplace, law)
    draw, place = prepare(x, rate, fresh, share)
    if traced() and place.shift is None:
        return _traced(x, draw, place, inplace, law)
    return scale_kept(x, draw.key, draw.rate, place, inplace, law)


def prepare(x: torch.Tensor, rate: Rate, fresh: Fresh, share: Sequence[int]) -> tuple[Draw, Layout]:
    """The draw of a call, and where its tensor lies."""
    # Where everything goes, no random numbers are needed, and the generator stands still.
    draw = Draw((0, 0), 0) if isinstance(rate, int) and rate == 0 else fresh(rate)
    if draw[2:] == _WHOLE and not torch._C._are_functorch_transforms_active() and not traced():
        return draw, whole_layout(x.shape, tuple(share))
    return _placed(x, draw, share)


def _placed(x: torch.Tensor, draw: Draw, share: Sequence[int]) -> tuple[Draw, Layout]:
    """A draw, and where the tensor lies that it is for, in a transform, in a part or before a compiler's eyes."""
    if type(draw.key) is tuple and draw.key == registered.AMBIENT:
        draw = draw._replace(key=registered.ambient_key())
    shape = tuple(tracing.shape_of(x))
    if draw[2:] == _WHOLE:
        place = symbolic_layout(shape, share)
    else:
        place = layout(shape, share, draw.offset, draw.global_shape, draw.rows, draw.split or ())
        formula.check_rows(place)
    transformed = not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()
    return draw, transforms.told_apart(place, draw.key) if transformed else place


def traced() -> bool:
    """Whether something looks on that wants one node rather than a result: a compiler, an exporter, a mode."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
    )


def _compiled(x: torch.Tensor, rate: Rate, fresh: Fresh, share: Sequence[int], inplace: bool, law: str) -> torch.Tensor:
    """One node. A whole tensor says no place: each size that is looked at costs a compiler its time."""
    if share or isinstance(rate, int) or torch._C._are_functorch_transforms_active():
        return _traced(x, *prepare(x, rate, fresh, share), inplace, law)
    draw = fresh(rate)
    if draw[2:] == _WHOLE:
        return _traced(x, draw, None, inplace, law)
    return _traced(x, *_placed(x, draw, share), inplace, law)


def _traced(x: torch.Tensor, draw: Draw, place: Layout | None, inplace: bool, law: str) -> torch.Tensor:
    """One node for whatever traces: a compiler, an exporter, a mode."""
    rate = draw.rate
    p = rate if isinstance(rate, torch.Tensor) else torch.full((), 1 - rate / ONE, dtype=torch.float64, device="cpu")
    key = draw.key if isinstance(draw.key, torch.Tensor | Unfolded) else torch.tensor(draw.key)
    # vmap cannot look into the operator, and it has no forward derivative, which torch would take for zero.
    transformed = place is not None and torch._C._are_functorch_transforms_active()
    if transformed or forward_ad._current_level >= 0:
        y = registered.composed(x, p, key, symbolic_layout(tuple(x.shape), ()) if place is None else place, law)
    else:
        y = registered.dropout(x, p, key, place, law)
    return x.copy_(y) if inplace else y


def _exported(x: torch.Tensor, rate: Rate, fresh: Fresh, share: Sequence[int], law: str) -> torch.Tensor:
    """torch's own operator for an ambient draw, so that whatever reads the graph knows it; ours for a keyed one."""
    if tracing.exporting_to_onnx():
        return tracing.torchs_own(x, rate, share, law, fresh)
    draw = fresh(rate)
    ambient = type(draw.key) is tuple and draw.key == registered.AMBIENT and draw[2:] == _WHOLE
    if ambient and isinstance(rate, int) and tracing.has_torchs_own(x, share, law):
        y = tracing.torchs_own(x, rate, share, law, fresh)
        return y if law == BERNOULLI else tracing.switched(x, y)
    return tracing.switched(x, _traced(x, *_placed(x, draw, share), False, law))


def scale_kept(
    x: torch.Tensor, key: Any, rate: Rate, place: Layout, inplace: bool, law: str = BERNOULLI
) -> torch.Tensor:
    """The eager way: the kernel where it may take the tensor by its pointer, torch operations tracing."""
    kernels = kernels_for(x, rate, law)
    if kernels is None:
        if torch._C._are_functorch_transforms_active():
            return formula.scale_kept(x, key, rate, place, inplace, law)
        return _Dropped.apply(x, formula, key, rate, place, inplace, law)
    if (x.requires_grad and torch.is_grad_enabled()) or forward_ad._current_level >= 0:
        return _dropped(x, kernels, key, rate, place, inplace, law)
    if inplace:
        torch.autograd.graph.increment_version(x)
    return kernels.scale_kept(x, key, rate, place, inplace, law)


def kernels_for(x: torch.Tensor, rate: Rate = 0, law: str = BERNOULLI) -> Any:
    """The module whose kernels take this tensor, or None."""
    return cpu if cpu.usable(x, rate, law) else cuda if cuda.usable(x, rate, law) else None


# What becomes of a kept element is linear in it, and a dropped one is gone: the derivative is the same function, both
# ways, with the law's constants left out. What is kept for backward is the key, as two integers.


class _Dropped(torch.autograd.Function):
    """Dropout by kernels, or by `formula` where there is none: another device, a subclass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, kernels: Any, *rest: Any) -> torch.Tensor:
        ctx.rest = rest
        if rest[-2]:
            ctx.mark_dirty(x)
        return kernels.scale_kept(x, *rest)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        key, rate, place, _, law = ctx.rest
        return scale_kept(grads[0], key, rate, place, False, GRADIENT[law]), *[None] * 6

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> torch.Tensor:
        key, rate, place, inplace, law = ctx.rest
        return scale_kept(tangents[0], key, rate, place, inplace, GRADIENT[law])


# Function.apply is a Python wrapper that looks for function transforms, which `kernels_for` has ruled out; what it
# wraps takes 3 of its 8 microseconds less.
_dropped = torch._C._FunctionBase.__dict__["apply"].__get__(None, _Dropped)


def _checked(p: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    if p.requires_grad:
        raise DropkitTypeError(
            "p requires grad, but a hard mask has no gradient in p: pass p.detach(), or use a relaxed noise to learn it"
        )
    if p.dtype.is_complex:
        raise DropkitTypeError(f"dropout probability must be a real number, but got a tensor of {p.dtype}")
    inside = (p >= 0) & (p <= 1)  # False for NaN
    compiling = torch.compiler.is_compiling()
    functorch = torch._C._functorch
    if torch._C._are_functorch_transforms_active() if compiling else functorch.is_functorch_wrapped_tensor(p):
        pass  # its values are not to be had inside a function transform
    elif p.device.type != "cpu" or compiling:
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
    return p if compiling else p.detach().clone()
