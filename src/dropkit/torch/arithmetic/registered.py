"""The operator `dropkit::dropout`, for whatever traces instead of running: compilers, exporters, fake tensors, modes.

Eager tensors take a shorter way (`ops.py`). This one costs a trip through torch's dispatcher; in exchange a compiler
sees one node with a shape function and a derivative, whose only saved tensors are the key and p.
"""

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch

from ... import choice
from ...counter import FOLD_ROUNDS, MASK32, MASK64, philox4x32
from ...drop import Lowered
from ...errors import DropkitRuntimeError
from ...place import Place, whole_place
from ...threshold import threshold
from ..draw import Unfolded
from . import cpu, cuda, formula, laws

BERNOULLI = "bernoulli"
LIBRARY = torch.library.Library("dropkit", "DEF")
LIBRARY.define(
    # law: a name for who reads the graph. What it does is said by numbers: a, b and c of a hard law at each p, float64,
    # along a first axis; none for inverted dropout, whose scale is found from p.
    "dropout(Tensor x, Tensor p, Tensor key, SymInt[] noise, SymInt base, Tensor? rows, "
    'str law="bernoulli", int? site=None, Tensor? numbers=None, Tensor? other=None) -> Tensor',
    tags=(torch.Tag.pt2_compliant_tag,),
)


def dropout(
    x: torch.Tensor,
    p: torch.Tensor,
    key: torch.Tensor | Unfolded,
    place: Place | None,
    lowered: Lowered | None = None,
    other: torch.Tensor | None = None,
) -> torch.Tensor:
    """A hard law as one node.

    Args:
        x: floating tensor.
        p: drop probability, floating tensor, 0-dim or one that broadcasts to x.
        key: two words, int64; or what they are folded of.
        place: where x lies in the whole; None if it is the whole, and shares nothing.
        lowered: the law at p; None for inverted dropout.
        other: the law's other tensor, of x's shape.
    """
    where = ((), 0, None) if place is None else (place.strides, place.base, place.rows)
    site, words = (key.site, key.state) if isinstance(key, Unfolded) else (None, key)
    if lowered is None or lowered.inverted:
        return torch.ops.dropkit.dropout(x, p, words, *where, BERNOULLI, site)
    name = type(lowered.law).__name__.lower()
    return torch.ops.dropkit.dropout(x, p, words, *where, name, site, laws.stacked(lowered, p), other)


def _place(x: torch.Tensor, noise: Sequence[int], base: int, rows: torch.Tensor | None) -> Place:
    if not noise:
        return whole_place(x.shape, ())
    shape = tuple(size if step else 1 for size, step in zip(x.shape, noise, strict=True))
    return Place(shape, tuple(noise), base, rows)


Optional = torch.Tensor | None


def _on_cpu(
    x: torch.Tensor, p: torch.Tensor, key: torch.Tensor, noise: Sequence[int], base: int, rows: Optional,
    law: str = BERNOULLI, site: int | None = None, numbers: Optional = None, other: Optional = None,
) -> torch.Tensor:  # fmt: skip
    rate = threshold(p.item()) if p.dim() == 0 else p
    words: Any = tuple(key.tolist()) if site is None else _folded_on_cpu(key, site)
    place, lowered = _place(x, noise, base, rows), laws.unstacked(rate, law, numbers)
    if other is None and cpu.usable(x, lowered):
        return cpu.scale_kept(x, words, lowered, place)
    return _dense(x, _composed(x, words, lowered, place, other))


def _on_cuda(
    x: torch.Tensor, p: torch.Tensor, key: torch.Tensor, noise: Sequence[int], base: int, rows: Optional,
    law: str = BERNOULLI, site: int | None = None, numbers: Optional = None, other: Optional = None,
) -> torch.Tensor:  # fmt: skip
    # What lies in the host's memory goes to the kernel as a number: a copy to the device would wait for it.
    rate: Any = threshold(p.item()) if p.dim() == 0 and p.device.type == "cpu" else p
    lowered = laws.unstacked(rate, law, numbers)
    if other is not None or not cuda.usable(x, lowered):
        return _anywhere(x, p, key, noise, base, rows, law, site, numbers, other)
    words: Any
    if key.device.type == "cpu":
        words = tuple(key.tolist()) if site is None else _folded_on_cpu(key, site)
    else:
        words = key if site is None else cuda.stored_key(key[0], site & MASK64, key[1])
    return cuda.scale_kept(x, words, lowered, _place(x, noise, base, rows))


def _anywhere(
    x: torch.Tensor, p: torch.Tensor, key: torch.Tensor, noise: Sequence[int], base: int, rows: Optional,
    law: str = BERNOULLI, site: int | None = None, numbers: Optional = None, other: Optional = None,
) -> torch.Tensor:  # fmt: skip
    # key and p stay on their device: asking for their values would wait for it
    key = key.to(x.device)
    words: Any = (key if site is None else _fold_anywhere(key, site)).unbind()
    return _dense(x, _composed(x, words, laws.unstacked(p, law, numbers), _place(x, noise, base, rows), other))


def _composed(x: torch.Tensor, words: Any, lowered: Lowered, place: Place, other: Optional) -> torch.Tensor:
    t = formula.thresholds(lowered.t, x.device) if isinstance(lowered.t, torch.Tensor) else lowered.t
    return laws.apply_mask(x, formula.keep_mask(place, t, words, x.device), lowered, other=other)


def _dense(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """y in the strides that the shape function promises."""
    like = torch.empty_like(x)
    return y if y.stride() == like.stride() else like.copy_(y)


_DEFAULTS = (BERNOULLI, None, None, None)  # of the last arguments, where a graph leaves them out


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    full: Any = (*inputs, *_DEFAULTS[len(inputs) - 6 :])
    _, p, key, ctx.noise, ctx.base, rows, ctx.law, ctx.site, numbers, other = full
    ctx.with_other = other is not None
    ctx.save_for_backward(p, key, rows, numbers)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    p, key, rows, numbers = ctx.saved_tensors
    where = (p, key, ctx.noise, ctx.base, rows, ctx.law, ctx.site)
    if numbers is None:
        return torch.ops.dropkit.dropout(grad, *where), *[None] * 9
    zero = torch.zeros_like(numbers[:1])
    slope = torch.cat([numbers[:1], -zero, zero])  # adding -0 changes nothing, not even the sign of a zero
    dx = torch.ops.dropkit.dropout(grad, *where, slope, None)
    do = None
    if ctx.with_other:
        slope = torch.cat([numbers[1:2], -zero, numbers[2:]])
        do = torch.ops.dropkit.dropout(grad, *where, slope, grad)
    return dx, *[None] * 8, do


LIBRARY.impl("dropout", _on_cpu, "CPU")
LIBRARY.impl("dropout", _on_cuda, "CUDA")
LIBRARY.impl("dropout", _anywhere, "CompositeExplicitAutograd")
torch.library.register_fake("dropkit::dropout", lambda x, *rest: torch.empty_like(x), lib=LIBRARY)
torch.library.register_autograd("dropkit::dropout", _backward, setup_context=_setup, lib=LIBRARY)


# ---------------------------------------------------------------------------------------------------------------------
# keep: the mask alone, for compiled function transforms, which an operator with a derivative of its own cannot take

LIBRARY.define(
    "keep(Tensor x, Tensor p, Tensor key, SymInt[] noise, SymInt base, Tensor? rows) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def composed(
    x: torch.Tensor,
    p: torch.Tensor,
    key: torch.Tensor | Unfolded,
    place: Place,
    lowered: Lowered,
    other: torch.Tensor | None = None,
) -> torch.Tensor:
    """`dropout` as the mask in one node and the arithmetic in torch's operations."""
    key = fold_key(key) if isinstance(key, Unfolded) else key
    kept = torch.ops.dropkit.keep(x.detach(), p, key, place.strides, place.base, place.rows)
    return laws.apply_mask(x, kept, lowered, other=other)


def _keep(
    x: torch.Tensor, p: torch.Tensor, key: torch.Tensor, noise: Sequence[int], base: int, rows: torch.Tensor | None
) -> torch.Tensor:
    words: Any = key.to(x.device).unbind()
    kept = formula.keep_mask(_place(x, noise, base, rows), formula.thresholds(p, x.device), words, x.device)
    return kept.expand(x.shape).contiguous()


def _keep_vectorised(
    info: Any, in_dims: tuple[Any, ...], x: torch.Tensor, p: torch.Tensor, *rest: Any
) -> tuple[torch.Tensor, int]:
    """One call for all slices: the same mask for each, or the next stretch of indices where they must differ."""
    key, noise, base, rows = rest
    if in_dims[2] is not None or rows is not None:
        raise DropkitRuntimeError("a compiled vmap cannot map over keys or rows of a dropout; call it with all at once")
    x = x.expand(info.batch_size, *x.shape) if in_dims[0] is None else x.movedim(in_dims[0], 0)
    if in_dims[1] is not None:
        p = p.movedim(in_dims[1], 0)
        p = p.reshape(info.batch_size, *[1] * (x.dim() - p.dim()), *p.shape[1:])
    shape = [size if step else 1 for size, step in zip(x.shape[1:], noise, strict=True)]
    stride = math.prod(shape) if info.randomness == "different" else 0
    return torch.ops.dropkit.keep(x, p, key, [stride, *noise], base, None), 0


LIBRARY.impl("keep", _keep, "CompositeExplicitAutograd")
torch.library.register_fake(
    "dropkit::keep", lambda x, *rest: torch.empty(x.shape, dtype=torch.bool, device=x.device), lib=LIBRARY
)
torch.library.register_vmap("dropkit::keep", _keep_vectorised, lib=LIBRARY)


# ---------------------------------------------------------------------------------------------------------------------
# fresh_key: an ambient key, a random number that no compiler may draw a second time

LIBRARY.define("fresh_key() -> Tensor", tags=(torch.Tag.pt2_compliant_tag, torch.Tag.nondeterministic_seeded))


def _fresh_key() -> torch.Tensor:
    return torch.randint(0, 1 << 32, (2,), dtype=torch.int64, device="cpu")


LIBRARY.impl("fresh_key", _fresh_key, "CompositeExplicitAutograd")


def _fake_key() -> torch.Tensor:
    # AOTAutograd makes one call of two that look the same, whatever their tags say, unless they are in its own list.
    compiler = sys.modules.get("torch._functorch.compile_utils")
    if compiler is not None and torch.ops.dropkit.fresh_key not in compiler.rand_ops:
        compiler.rand_ops.append(torch.ops.dropkit.fresh_key)
    return torch.empty(2, dtype=torch.int64, device="cpu")


torch.library.register_fake("dropkit::fresh_key", _fake_key, lib=LIBRARY)
torch.library.register_vmap("dropkit::fresh_key", lambda info, in_dims: (_fresh_key(), None), lib=LIBRARY)


AMBIENT = (-1, -1)  # a key that is still to be drawn, if the exporter that looks on has no better name for all of it


def ambient_key() -> torch.Tensor:
    """A fresh key for a graph that is being traced.

    Raises:
        DropkitRuntimeError: the compiler is told to save less than it would
            (`torch._functorch.config.activation_memory_budget` below 1). It then runs any operator again in backward,
            random ones among them, and gradients are silently wrong: torch's own dropout has that fault.
    """
    if torch.compiler.is_compiling() and torch._functorch.config.activation_memory_budget < 1:
        raise DropkitRuntimeError(
            "an ambient dropout cannot be compiled with activation_memory_budget below 1: the compiler would draw "
            "another mask in backward. Bind the model with dropkit.torch.bind: keyed masks are recomputed exactly"
        )
    if torch._C._get_tracing_state() is not None:
        return _fresh_key()  # TorchScript takes every operator but torch's own for a constant, and would fold it
    return torch.ops.dropkit.fresh_key()


# ---------------------------------------------------------------------------------------------------------------------
# fold_key: a key by itself, for what is composed of operations: function transforms, learned rates

LIBRARY.define("fold_key(Tensor state, int site) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))
_fold = choice.fold()


def fold_key(key: Unfolded) -> torch.Tensor:
    """The folded key as one node, a pure function: int64, two words along the last axis."""
    return torch.ops.dropkit.fold_key(key.state, key.site)


def signed(number: int) -> int:
    """A number in [0, 2**64) as the integers of operators and tensors hold its bits."""
    return number - (1 << 64) if number >> 63 else number


def _folded_on_cpu(state: torch.Tensor, site: int) -> tuple[int, int]:
    seed, step = state.tolist()
    return _fold(seed & MASK64, site & MASK64, step & MASK64)


def _fold_on_cpu(state: torch.Tensor, site: int) -> torch.Tensor:
    return torch.tensor(_folded_on_cpu(state, site)) if state.dim() == 1 else _fold_anywhere(state, site)


def _fold_on_cuda(state: torch.Tensor, site: int) -> torch.Tensor:
    if state.dim() > 1 or choice.triton() is None:
        return _fold_anywhere(state, site)
    return cuda.folded_key(state, site)


def _fold_anywhere(state: torch.Tensor, site: int) -> torch.Tensor:
    seed, step = ((word & MASK32, (word >> 32) & MASK32) for word in state.unbind(-1))
    words = philox4x32((site & MASK32, (site >> 32) & MASK32, *step), seed, FOLD_ROUNDS)
    return torch.stack(words[:2], dim=-1)


def _fold_vectorised(info: Any, in_dims: tuple[Any, ...], state: torch.Tensor, site: int) -> tuple[torch.Tensor, int]:
    return torch.ops.dropkit.fold_key(state.movedim(in_dims[0], 0), site), 0


LIBRARY.impl("fold_key", _fold_on_cpu, "CPU")
LIBRARY.impl("fold_key", _fold_on_cuda, "CUDA")
LIBRARY.impl("fold_key", _fold_anywhere, "CompositeExplicitAutograd")
torch.library.register_fake("dropkit::fold_key", lambda state, site: torch.empty_like(state), lib=LIBRARY)
torch.library.register_vmap("dropkit::fold_key", _fold_vectorised, lib=LIBRARY)
