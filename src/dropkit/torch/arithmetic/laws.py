"""What a law does to a tensor, in operations that torch knows how to differentiate and to vectorise."""

from functools import cache
from typing import Any

import torch

from ...axes.noise import Bernoulli, Hard, Noise, Soft
from ...drop import Lowered, lower
from ...errors import DropkitValueError
from ...threshold import ONE, scale
from .arrays import Arrays
from .formula import thresholds


class Given(Hard):
    """A hard law of which only the numbers are known, as they lie in a compiled graph."""


GIVEN, INVERTED = Given(), Bernoulli()


def apply_mask(
    x: torch.Tensor, kept: torch.Tensor, lowered: Lowered, inplace: bool = False, other: torch.Tensor | None = None
) -> torch.Tensor:
    """What a hard law makes of x, kept where the mask says so."""
    half = x.dtype in (torch.float16, torch.bfloat16)
    a, b, c = (_as(number, _wide(x.dtype), x.device) for number in numbers_of(lowered, x.device))
    # Half types are scaled in float32 and rounded once; torch rounds the scale itself first, which biases the mean.
    wide = x.float() if half else x
    y = wide * a if not inplace or half else x.mul_(a)
    if isinstance(b, torch.Tensor) or b != 0.0:
        shift = b if other is None else b * other.to(y.dtype)
        y = y.add_(shift) if inplace and not half else y + shift
    y = x.copy_(y) if half and inplace else y.to(x.dtype)
    gone = kept.logical_not()
    if other is not None and (isinstance(c, torch.Tensor) or c != 0.0):
        c = c * other.to(_wide(x.dtype))
    if isinstance(c, torch.Tensor):
        c = c.to(x.dtype)
        return y.copy_(torch.where(gone, c, y)) if inplace else torch.where(gone, c, y)
    # Not a product: a dropped NaN is 0.
    return y.masked_fill_(gone, c) if inplace else y.masked_fill(gone, c)


def softened(x: torch.Tensor, n: torch.Tensor, lowered: Lowered, inplace: bool = False) -> torch.Tensor:
    """What a soft law makes of x by its random numbers."""
    law: Any = lowered.law
    wide = _wide(x.dtype)
    q = lowered.q
    # `torch.tensor` would warn in a trace
    known = torch.full((), q, dtype=wide, device=x.device) if isinstance(q, float) else _as(q, wide, x.device)
    m, s = law.factors(n.to(wide), known, Arrays)
    y = x.to(wide) * m
    if s is not None and lowered.b is None:
        y = y + s
    return x.copy_(y) if inplace else y.to(x.dtype)


def without_noise(x: torch.Tensor, lowered: Lowered, other: torch.Tensor | None) -> torch.Tensor:
    """`u x + v o`: what a law that is not the identity without noise makes of x, as `Lowered` says it by a and b."""
    wide = _wide(x.dtype)
    u, v = (_as(number, wide, x.device) for number in lowered[2:4])
    y = x.to(wide) * u
    return (y if other is None else y + v * other.to(wide)).to(x.dtype)


def held(law: Noise, t: int) -> torch.Tensor | None:
    """A hard law's numbers at t as data of a module, so that they are no operations of a compiled graph."""
    if isinstance(law, Soft) or type(law) is Bernoulli:
        return None
    return torch.tensor(law.numbers(t / ONE), dtype=torch.float64, device="cpu")


def lowered_at(law: Noise, p: torch.Tensor, training: bool = True) -> Lowered | None:
    """`dropkit.drop.lower` of a tensor of drop probabilities, which takes the place of t."""
    if training and type(law) is Bernoulli:
        return Lowered(p, law, None, 0.0, 0.0)  # whoever scales finds 2**16 / t by itself
    return lower(law, p, training, thresholds(p, p.device).to(torch.float64) / ONE, torch)


def numbers_of(lowered: Lowered, device: torch.device) -> tuple[Any, Any, Any]:
    """The law's a, b and c, which may lie in one tensor; of a tensor of rates also the scale that was left open."""
    if lowered.b is None and lowered.a is not None:
        return lowered.a.unbind()
    if lowered.a is not None:
        return lowered[2:5]
    q = thresholds(lowered.t, device).to(torch.float64) / ONE
    return lowered.law.numbers(q, torch)  # type: ignore[union-attr]


def stacked(lowered: Lowered, p: torch.Tensor) -> torch.Tensor:
    """a, b and c along a first axis, float64, on the device of p and at each of its entries."""
    if lowered.b is None and lowered.a is not None:
        numbers: torch.Tensor = lowered.a
        return numbers
    each = [_filled(number, p) for number in numbers_of(lowered, p.device)]
    return torch.stack([number.expand(p.shape) for number in each] if p.dim() else each)


def _filled(number: Any, p: torch.Tensor) -> torch.Tensor:
    if isinstance(number, torch.Tensor):
        return number.to(dtype=torch.float64, device=p.device)
    return torch.full((), number, dtype=torch.float64, device=p.device)  # `torch.tensor` would warn in a trace


def on_device(lowered: Lowered, device: torch.device) -> torch.Tensor:
    """a, b and c of a one-element rate as float64 numbers on a device, without asking for their values."""
    return torch.stack([torch.as_tensor(n, dtype=torch.float64, device=device).reshape(()) for n in lowered[2:5]])


def unstacked(rate: Any, name: str, given: torch.Tensor | None) -> Lowered:
    """The law of a rate, t or p, of which `stacked` made numbers; inverted dropout where there are none."""
    if given is None:
        if name != "bernoulli":
            raise DropkitValueError(
                f"a graph with the law {name!r} and without its numbers is an old one; export it again"
            )
        return Lowered(rate, INVERTED, None, 0.0, 0.0) if isinstance(rate, torch.Tensor) else inverted(rate)
    return Lowered(rate, GIVEN, *(given.tolist() if isinstance(rate, int) else given.unbind()))


@cache
def inverted(t: int) -> Lowered:
    """Plain dropout at t, which may be all or nothing."""
    return Lowered(t, INVERTED, scale(t), 0.0, 0.0)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The type that a tensor of this one is computed in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _as(number: Any, dtype: torch.dtype, device: torch.device) -> Any:
    return number.to(device=device, dtype=dtype) if isinstance(number, torch.Tensor) else number
