"""Dropout as a function on torch tensors. Nothing is saved for backward but the key: the mask is computed again."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.overrides import handle_torch_function, has_torch_function_unary

from ..axes.noise import Bernoulli, Noise
from ..axes.share import Axes, Refining, Sharing
from ..counter import Key
from ..drop import Lowered, checked_noise, checked_other
from ..drop import lower as lower_number
from ..errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from ..place import WHOLE, Part, Place, place_of, symbolic_place, whole_place
from ..threshold import ONE, threshold
from .arithmetic import composed, cpu, cuda, formula, laws, registered, tracing, transforms
from .arithmetic.composed import Refined
from .arithmetic.dtypes import DropkitDtypeError as DropkitDtypeError
from .arithmetic.dtypes import check_dtype as check_dtype
from .draw import Draw, Fresh, Unfolded
from .drawing.around import by_lanes
from .drawing.coordinates import draw_for
from .drawing.lanes import InLanes
from .parts import parts_of

Share = Sequence[int] | Refining  # as it is used here: axis numbers, or what refines


_INVERTED = Bernoulli()


def dropout(
    x: torch.Tensor,
    p: float | torch.Tensor,
    *,
    training: bool,
    key: Key | None = None,
    inplace: bool = False,
    share: Sequence[int] | Sharing = (),
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: torch.Tensor | Sequence[int] | None = None,
    noise: Noise = _INVERTED,
    other: torch.Tensor | None = None,
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
        share: axes along which one draw is shared; (2, 3) drops whole channels of N x C x H x W. Or a value of
            `dropkit.axes.share`.
        offset, global_shape: where x starts in a larger tensor, and that tensor's shape: x then gets its slice of
            the larger tensor's mask.
        rows: row number in the whole of each entry of axis 0: a sample's mask then does not depend on its batch.
        noise: what becomes of kept and dropped elements; `dropkit.axes.noise.Alpha()` is alpha dropout, for SELU.
        other: the second tensor of a noise that needs one; it broadcasts to x, and gets its gradient.

    Returns:
        A tensor like x: kept values are exactly `x * scale` (in float32 arithmetic for half types, rounded once),
        dropped ones 0 even where x is NaN or infinite. x itself if nothing can be dropped: not training, p = 0, or no
        elements; torch's generator is then not advanced, nor is it for p = 1.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; a dtype other than the four, in
            training, at any p; a share axis that does not exist; an offset beyond the global shape; a key that is none.

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
            global_shape=global_shape, rows=rows, noise=noise, other=other,
        )  # fmt: skip
    if type(noise) is not Bernoulli or other is not None:
        checked_other(checked_noise(noise), other)
    if mode(training):
        check_dtype(x)
    lowered = lower(x, p, training, noise)
    if lowered is None:
        return x
    whole = offset is None and global_shape is None and rows is None
    fresh = fresh_with(key, WHOLE if whole else Part.of(offset, global_shape, rows))
    return apply(x, lowered, fresh, axes_of(share), inplace, other)


def axes_of(share: Sequence[int] | Sharing) -> Share:
    """What refines, as it is; else the axis numbers."""
    return share.axes if isinstance(share, Axes) else share


def mode(training: bool) -> bool:
    """The mode, which must be a plain bool: a forgotten `self.` or a None would drop, or not, in silence."""
    if not isinstance(training, bool):
        raise DropkitTypeError(f"training must be True or False, got {training!r}; pass the module's self.training")
    return training


def fresh_with(key: Key | None, part: Part) -> Fresh:
    """What draws for a call with these arguments."""
    if key is not None and not isinstance(key, Key):
        raise DropkitTypeError(f"key must be a dropkit.Key such as Key(seed=0, site='drop', step=0), got {key!r}")

    def fresh(lowered: Any) -> Draw:
        return draw_for(lowered, key=key, part=part)

    return fresh


def lower(x: torch.Tensor, p: float | torch.Tensor, training: bool, law: Noise = _INVERTED) -> Lowered | None:
    """The law at p, a number or a tensor; None where y = x. Checks p and x's dtype."""
    if isinstance(p, torch.Tensor):
        lowered = laws.lowered_at(law, _checked(p, x), training)
    elif torch.compiler.is_compiling() and isinstance(p, float) and not torch.compiler.is_exporting():
        # A number may be symbolic there: as a tensor it is data, and another value compiles nothing again.
        if not 0.0 <= p <= 1.0:
            threshold(p)  # raises
        # a sum: of torch.full the compiler would make a constant
        lowered = None if p == 0.0 else laws.lowered_at(law, torch.zeros((), dtype=torch.float64) + p, training)
    else:
        t = threshold(p)
        if t == ONE:
            lowered = None
        elif torch.compiler.is_compiling():  # which does not look up what is remembered
            lowered = lower_number(law, t, training, t / ONE)
        elif type(law) is Bernoulli:
            lowered = laws.inverted(t) if training else None
        else:
            lowered = lower_number(law, t, training)
    return lowered if lowered is not None and droppable(x, lowered) else None


def droppable(x: torch.Tensor, lowered: Lowered) -> bool:
    """Whether x has elements; refuses sparse ones, and dtypes that cannot be scaled unless everything goes."""
    if not (type(lowered.t) is int and lowered.t == 0 == lowered.c):
        check_dtype(x)
    if x.layout is not torch.strided and not x.is_nested:
        raise DropkitDtypeError(f"dropout in training needs a dense tensor, but x is {x.layout}: take x.to_dense()")
    # Under a compiler or in a trace the size is known only when it runs; an empty tensor stays one there by itself.
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or x.numel() != 0


def apply(
    x: torch.Tensor,
    lowered: Lowered,
    fresh: Fresh,
    share: Share,
    inplace: bool,
    other: torch.Tensor | None = None,
) -> torch.Tensor:
    """Dropout with the draw that `fresh(lowered)` gives."""
    if inplace and x.requires_grad and x.is_leaf and torch.is_grad_enabled():
        raise DropkitRuntimeError(
            "a leaf Variable that requires grad is being used in an in-place operation. Use inplace=False"
        )
    if type(lowered.law) is not Bernoulli or other is not None:
        checked_other(lowered.law, other)
        if type(lowered.t) is int and lowered.t == ONE:  # no noise, and a law that is not the identity without
            y = laws.without_noise(x, lowered, other)
            return x.copy_(y) if inplace else y
        if other is not None:
            other = _like(other, x)
    if (type(x) not in formula.PLAIN or x.is_nested) and (parts := parts_of(x, lowered.inverted)) is not None:
        other = None if other is None else parts.matched(other)
        y = parts.rebuilt(apply(parts.local, lowered, parts.placed(fresh), parts.share(share), False, other))
        return x.copy_(y) if inplace else y
    if x.dtype not in cpu.DTYPES:  # everything goes: no arithmetic, so any dtype
        return x.zero_() if inplace else torch.zeros_like(x)
    if tracing.exporting() and not torch._C._are_functorch_transforms_active():
        y = _exported(x, lowered, fresh, share, other)
        return x.copy_(y) if inplace else y
    if torch.compiler.is_compiling():
        return _compiled(x, lowered, fresh, share, inplace, other)
    try:
        draw, place = prepare(x, lowered, fresh, share)
    except InLanes as found:
        y = by_lanes(found.lanes, x, other, share, partial(_in_lane, lowered, fresh))
        return x.copy_(y) if inplace else y
    if traced() and place.shift is None:
        return _traced(x, draw, place, inplace, other)
    return scale_kept(x, draw.key, draw.lowered, place, inplace, other)


def _in_lane(
    lowered: Lowered, fresh: Fresh, part: torch.Tensor, other: torch.Tensor | None, share: Share, place: Any
) -> Any:
    """One of several passes in a batch, written into its part; gives the place of the lane, which others have too."""
    draw, place = prepare(part, lowered, fresh, share) if place is None else (fresh(lowered), place)
    scale_kept(part, draw.key, draw.lowered, place, True, other)
    return place if type(place) is Place else None


def _like(other: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The other tensor in the shape and type of x."""
    if x.is_nested:
        return other.to(x.dtype)
    try:
        return other.to(x.dtype).expand(x.shape)
    except RuntimeError:
        raise DropkitValueError(
            f"other of shape {tuple(other.shape)} does not broadcast to x of shape {tuple(x.shape)}"
        ) from None


def prepare(x: torch.Tensor, lowered: Lowered, fresh: Fresh, share: Share) -> tuple[Draw, Place | Refined]:
    """The draw of a call, and where its tensor lies."""
    # Where everything goes, no random numbers are needed, and the generator stands still.
    t = lowered.t
    certain = type(t) is int and t == 0 and not lowered.soft
    draw = Draw((0, 0), lowered) if certain else fresh(lowered)
    plain = draw.part == WHOLE and not torch._C._are_functorch_transforms_active() and not traced()
    if plain and not isinstance(share, Refining):
        return draw, whole_place(x.shape, tuple(share))
    return _placed(x, draw, share)


def _placed(x: torch.Tensor, draw: Draw, share: Share) -> tuple[Draw, Place | Refined]:
    """A draw, and where the tensor lies that it is for, in a transform, in a part or before a compiler's eyes."""
    if type(draw.key) is tuple and draw.key == registered.AMBIENT:
        draw = draw._replace(key=registered.ambient_key())
    shape = tuple(tracing.shape_of(x))
    if isinstance(share, Refining):
        refined = Refined(share, shape, draw.part)
        return draw._replace(lowered=composed.settle(draw.lowered, refined)), refined
    if draw.part.whole:
        place = symbolic_place(shape, share)
    else:
        place = place_of(shape, share, draw.part)
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


def _compiled(
    x: torch.Tensor, lowered: Lowered, fresh: Fresh, share: Share, inplace: bool, other: torch.Tensor | None
) -> torch.Tensor:
    """One node. A whole tensor says no place: each size that is looked at costs a compiler its time."""
    if isinstance(share, Refining) or share or type(lowered.t) is int:
        return _traced(x, *prepare(x, lowered, fresh, share), inplace, other)
    if torch._C._are_functorch_transforms_active() or lowered.soft:
        return _traced(x, *prepare(x, lowered, fresh, share), inplace, other)
    draw = fresh(lowered)
    if draw.part.whole:
        return _traced(x, draw, None, inplace, other)
    return _traced(x, *_placed(x, draw, share), inplace, other)


def _traced(
    x: torch.Tensor, draw: Draw, place: Place | Refined | None, inplace: bool, other: torch.Tensor | None
) -> torch.Tensor:
    """One node for whatever traces: a compiler, an exporter, a mode. Soft laws and refining shares are many."""
    lowered = draw.lowered
    rate = lowered.t
    key = draw.key if isinstance(draw.key, torch.Tensor | Unfolded) else torch.tensor(draw.key)
    if isinstance(place, Refined) or lowered.soft:
        return composed.scale_kept(x, key, lowered, place, inplace, other)  # type: ignore[arg-type]
    p = rate if isinstance(rate, torch.Tensor) else torch.full((), 1 - rate / ONE, dtype=torch.float64, device="cpu")
    # vmap cannot look into the operator, and it has no forward derivative, which torch would take for zero.
    transformed = place is not None and torch._C._are_functorch_transforms_active()
    if transformed or forward_ad._current_level >= 0:
        where = symbolic_place(tuple(x.shape), ()) if place is None else place
        y = registered.composed(x, p, key, where, lowered, other)
    else:
        y = registered.dropout(x, p, key, place, lowered, other)
    return x.copy_(y) if inplace else y


def _exported(
    x: torch.Tensor, lowered: Lowered, fresh: Fresh, share: Share, other: torch.Tensor | None
) -> torch.Tensor:
    """torch's own operator for an ambient draw, so that whatever reads the graph knows it; ours for a keyed one."""
    if tracing.exporting_to_onnx():
        return tracing.torchs_own(x, lowered, share, fresh)
    draw = fresh(lowered)
    ambient = type(draw.key) is tuple and draw.key == registered.AMBIENT and draw.part.whole
    if ambient and type(lowered.t) is int and tracing.has_torchs_own(x, share, lowered):
        y = tracing.torchs_own(x, lowered, share, fresh)
        return y if lowered.inverted else tracing.switched(x, y)
    return tracing.switched(x, _traced(x, *_placed(x, draw, share), False, other))


def scale_kept(
    x: torch.Tensor,
    key: Any,
    lowered: Lowered,
    place: Place | Refined,
    inplace: bool = False,
    other: torch.Tensor | None = None,
) -> torch.Tensor:
    """The eager way: the kernel where it may take the tensor by its pointer, torch operations elsewhere."""
    kernels = kernels_for(x, lowered) if other is None and type(place) is Place else None
    if kernels is None:
        if torch._C._are_functorch_transforms_active():
            return composed.scale_kept(x, key, lowered, place, inplace, other)
        return _Dropped.apply(x, other, composed, key, lowered, place, inplace)
    if (x.requires_grad and torch.is_grad_enabled()) or forward_ad._current_level >= 0:
        return _dropped(x, None, kernels, key, lowered, place, inplace)
    if inplace:
        torch.autograd.graph.increment_version(x)
    return kernels.scale_kept(x, key, lowered, place, inplace)


def kernels_for(x: torch.Tensor, lowered: Lowered | None = None) -> Any:
    """The module whose kernels take this tensor, or None."""
    return cpu if cpu.usable(x, lowered) else cuda if cuda.usable(x, lowered) else None


# A law is linear in x and in its other, but for constants: its derivatives are the same function, both ways, with the
# constants left out. What is kept for backward is the key, as two integers.


class _Dropped(torch.autograd.Function):
    """Dropout by kernels, or composed where there is none: another device, a subclass, a law with an other."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, other: torch.Tensor | None, kernels: Any, *rest: Any) -> torch.Tensor:
        ctx.rest = rest
        if rest[-1]:
            ctx.mark_dirty(x)
        if kernels is not composed:
            return kernels.scale_kept(x, *rest)
        key, lowered, place, inplace = rest
        return composed.scale_kept(x, key, lowered, place, inplace, other)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        key, lowered, place, _ = ctx.rest
        dx = scale_kept(grads[0], key, lowered.slope(), place)
        do = None
        if ctx.needs_input_grad[1]:
            do = scale_kept(grads[0], key, lowered.slope_in_other(), place, False, grads[0])
        return dx, do, *[None] * 5

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> torch.Tensor:
        key, lowered, place, inplace = ctx.rest
        dx = None if tangents[0] is None else scale_kept(tangents[0], key, lowered.slope(), place, inplace)
        if tangents[1] is None:
            return dx  # type: ignore[return-value]
        do = scale_kept(tangents[1], key, lowered.slope_in_other(), place, False, tangents[1])
        return do if dx is None else dx + do


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
    elif compiling or p.is_meta or (p.device.type != "cpu" and (traced() or cuda.capturing())):
        # A failed assertion ends the process's use of the device: only where nobody can wait for the values.
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
