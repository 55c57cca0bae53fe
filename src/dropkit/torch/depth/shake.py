"""Branches that are shaken: other factors in the backward pass than in the forward pass."""

import math
from typing import Any

import torch

from ...drop import lower
from ...errors import DropkitTypeError, DropkitValueError
from ...place import Place
from ...threshold import threshold
from .. import ops
from ..arithmetic import continuous, laws
from ..layers import as_leaf
from .laws import Shaken
from .path import Depth

SHARED = {"batch": 0, "row": 1, "channel": 2}  # the first axis that shares a draw
LEVELS = (*SHARED, "element")
ANY = laws.inverted(1)  # a law's place in a draw of uniform numbers


class Shaking(Depth):
    """A branch whose factors are drawn twice, for the forward and for the backward pass. Abstract."""

    level: str
    shows_mask = False  # other factors backward than forward

    def mask_shape(self, input: torch.Tensor) -> tuple[int, ...]:
        """1 along what shares a number."""
        return tuple(1 if axis >= SHARED.get(self.level, input.dim()) else n for axis, n in enumerate(input.shape))

    def factors(self, x: torch.Tensor, lowered: Any) -> torch.Tensor:
        """Uniform numbers of the next draw, of the noise shape; a forward draws twice, then as "name#1"."""
        ops.check_dtype(x)
        share = tuple(range(SHARED.get(self.level, x.dim()), x.dim()))
        draw, place = ops.prepare(x, lowered, self.fresh, share)
        assert isinstance(place, Place)
        return continuous.uniform(draw.key, place, x.device)


class ShakeDrop(Shaking):
    """Multiply a branch by 1 or, with probability p, by a random number; backward, by another: `x + shake(branch(x))`.

    Forward `y = (b + a - b a) x`, backward `dx = (b + c - b c) dy`, with b = 1 with probability 1 - p, a uniform in
    `alpha`, c uniform in `beta`. In evaluation y is the expectation, `(1 - p) x` for the default alpha.

    Args:
        p: probability of shaking in [0, 1]; the authors let it grow to 0.5 at the last layer.
        alpha, beta: ranges of the factors in the forward and in the backward pass.
        level: "row", one factor for each sample; "batch", "channel" or "element".
        when: "train", "always" or "never".

    Shapes: any with the batch as axis 0, output as input. Dtypes: float16, bfloat16, float32, float64.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; a range that is none; another level.

    Keyed uniform numbers decide both, u of the site for b and a (b = 1 where u < 1 - p), and those of the site's second
    call, "name#1", for c.

    Source: Yamada et al. 2019 (arXiv:1802.02375).

    >>> ShakeDrop(0.5)
    ShakeDrop(p=0.5, alpha=(-1.0, 1.0), beta=(0.0, 1.0), level=row)
    >>> ShakeDrop(0.5).eval()(torch.ones(2))
    tensor([0.5000, 0.5000])
    """

    def __init__(
        self,
        p: float = 0.5,
        alpha: tuple[float, float] = (-1.0, 1.0),
        beta: tuple[float, float] = (0.0, 1.0),
        level: str = "row",
        *,
        when: str = "train",
    ) -> None:
        super().__init__(p, when=when)
        self.alpha, self.beta = _range("alpha", alpha), _range("beta", beta)
        self.level = checked_level(level)
        self.noise = Shaken(*self.alpha)
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The branch, shaken; its expectation where nothing is drawn."""
        if isinstance(x, torch.fx.Proxy):
            return as_leaf(self, x)
        if not self.active:
            return self._without_noise(x, None)
        compiling = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
        lowered = laws.lowered_at(self.noise, self._rate) if compiling else lower(self.noise, threshold(self._p))
        if lowered is None or not ops.droppable(x, lowered):
            return x
        u, v = self.factors(x, lowered), self.factors(x, lowered)
        q = lowered.q if isinstance(lowered.q, torch.Tensor) else torch.full((), lowered.q, dtype=torch.float64)
        q = q.to(device=x.device, dtype=torch.float32)
        forward, _ = self.noise.factors(u, q, torch)  # type: ignore[union-attr]
        backward = torch.where(u < q, 1.0, self.beta[0] + (self.beta[1] - self.beta[0]) * v)
        return shaken(x, forward, backward)

    def _more_repr(self) -> str:
        return f", alpha={self.alpha}, beta={self.beta}, level={self.level}{super()._more_repr()}"


class ShakeShake(Shaking):
    """Mix two branches by a random number, and their gradients by another: `y = a x1 + (1 - a) x2`.

    a is uniform in (0, 1). Backward `dx1 = c dy`, `dx2 = (1 - c) dy`, with c drawn anew. In evaluation both are 1/2.

    Args:
        level: "row", one number for each sample (the paper's "image"); "batch", "channel" or "element".
        when: "train", "always" or "never".

    Shapes: two tensors of one shape with the batch as axis 0. Dtypes: float16, bfloat16, float32, float64.

    Raises:
        DropkitValueError: another level; when it runs, two shapes.

    It has no rate: `p` is 1/2, what each branch loses on average, and cannot be set.

    Source: Gastaldi 2017 (arXiv:1705.07485).

    >>> ShakeShake().eval()(torch.zeros(2), torch.ones(2))
    tensor([0.5000, 0.5000])
    """

    fixed, law_known, effect = True, False, "mixes"

    def __init__(self, level: str = "row", *, when: str = "train") -> None:
        super().__init__(0.5, when=when)
        self.level = checked_level(level)

    def forward(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
        """The two branches mixed."""
        if isinstance(x1, torch.fx.Proxy):
            return as_leaf(self, x1, x2)
        if x1.shape != x2.shape:
            raise DropkitValueError(
                f"ShakeShake mixes two branches of one shape, got {tuple(x1.shape)} and {tuple(x2.shape)}"
            )
        if not self.active:
            return (x1 + x2) / 2
        a, c = self.factors(x1, ANY), self.factors(x1, ANY)
        return shaken(x1, a, c) + shaken(x2, 1.0 - a, 1.0 - c)

    @property
    def p(self) -> float:
        """1/2."""
        return 0.5

    @p.setter
    def p(self, value: float) -> None:
        if value != 0.5:
            raise DropkitValueError(
                f"ShakeShake has no rate, so p cannot be set to {value!r}: dropkit.torch.disabled(model) turns it off"
            )
        Depth.p.fset(self, value)  # type: ignore[attr-defined]

    def extra_repr(self) -> str:
        """The level, and when."""
        return f"level={self.level}{'' if self.when == 'train' else f', when={self.when!r}'}"


class _Shaken(torch.autograd.Function):
    """Times one factor forward, times another backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, forward: torch.Tensor, backward: torch.Tensor) -> torch.Tensor:
        return _times(x, forward)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _times(grads[0], ctx.saved_tensors[0]), None, None


def shaken(x: torch.Tensor, forward: torch.Tensor, backward: torch.Tensor) -> torch.Tensor:
    """x times one factor, whose gradient is multiplied by another."""
    return _Shaken.apply(x, forward, backward)


def _times(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    wide = x if x.dtype == torch.float64 else x.float()  # half types are rounded once
    return (wide * factor.to(wide.dtype)).to(x.dtype)


def checked_level(level: Any) -> str:
    """The level, if it is one.

    Raises:
        DropkitValueError: it is not.
    """
    if level not in LEVELS:
        raise DropkitValueError(f"level has to be one of {', '.join(map(repr, LEVELS))}, but got {level!r}")
    return str(level)


def _range(name: str, ends: Any) -> tuple[float, float]:
    try:
        low, high = map(float, ends)
    except (TypeError, ValueError):
        raise DropkitTypeError(f"{name} must hold two numbers such as (-1.0, 1.0), got {ends!r}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise DropkitValueError(f"{name} must hold two finite numbers, the smaller first, got {ends!r}")
    return low, high
