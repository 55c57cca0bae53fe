"""Pooling of maps that is random in training: which unit of a window is taken."""

from typing import Any

import torch
from torch.nn import functional as F

from ..axes.noise import Fill
from ..errors import DropkitTypeError, DropkitValueError
from ..place import Place
from . import ops
from .arithmetic import continuous, laws
from .depth.path import Depth
from .layers import as_leaf

ANY = laws.inverted(1)  # a law's place in a draw of uniform numbers
Sizes = int | tuple[int, int]


class Pooling(Depth):
    """What both poolings share: windows of the last two axes. Abstract."""

    shows_mask = False  # its output is smaller than what it drops

    def _begin(self, kernel_size: Sizes, stride: Sizes | None, padding: Sizes) -> None:
        self.kernel_size = _pair("kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else _pair("stride", stride, 1)
        self.padding = _pair("padding", padding, 0)
        if any(2 * pad > size for pad, size in zip(self.padding, self.kernel_size, strict=True)):
            raise DropkitValueError(f"padding must be at most half of kernel_size, got {padding!r} and {kernel_size!r}")

    def _check(self, x: torch.Tensor) -> None:
        if x.dim() not in (3, 4):
            raise DropkitValueError(
                f"{type(self).__name__} takes N x C x H x W or C x H x W, got an input of shape {tuple(x.shape)}"
            )

    def _windows(self, x: torch.Tensor, fill: float) -> torch.Tensor:
        """... x windows down x windows across x units of a window; what is padded has the value `fill`."""
        (high, wide), (down, across) = self.padding, self.stride
        x = F.pad(x, (wide, wide, high, high), value=fill)
        return x.unfold(-2, self.kernel_size[0], down).unfold(-2, self.kernel_size[1], across).flatten(-2)

    def _more_repr(self) -> str:
        padding = f", padding={self.padding}" if any(self.padding) else ""
        return f", kernel_size={self.kernel_size}, stride={self.stride}{padding}{super()._more_repr()}"


class StochasticPool2d(Pooling):
    """Take one unit of each window, with a probability in proportion to it: `P(i) = a_i / sum a`, y = a_i.

    For activations that are not negative, as after ReLU: a negative one counts as 0, and a window without a positive
    one gives 0. In evaluation the mean over draws, `sum a_i^2 / sum a_i`. The gradient goes to the unit that was taken.

    Args:
        kernel_size, stride, padding: as of `torch.nn.MaxPool2d`; what is padded is never taken.
        when: "train", "always" or "never".

    Shapes: N x C x H x W or C x H x W to the same with fewer rows and columns. Dtypes: float16, bfloat16, float32,
    float64.

    Raises:
        DropkitValueError, DropkitTypeError: sizes that are none; an input of another number of axes.

    It has no rate: `p` is what it drops of a window, 1 - 1/units, and cannot be set. Its draws are the keyed uniform
    numbers of the output's elements.

    Source: Zeiler and Fergus 2013 (arXiv:1301.3557).

    >>> pool, x = StochasticPool2d(2), torch.tensor([[[1.0, 0.0], [0.0, 3.0]]])
    >>> pool.eval()(x).item(), pool.train()(x).item() in (1.0, 3.0)
    (2.5, True)
    """

    fixed, law_known, effect = True, False, "takes"

    def __init__(
        self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, *, when: str = "train"
    ) -> None:
        high, wide = _pair("kernel_size", kernel_size, 1)
        super().__init__(1 - 1 / (high * wide), when=when)
        self._begin(kernel_size, stride, padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One unit of each window, or their mean weighted by themselves."""
        if isinstance(x, torch.fx.Proxy):
            return as_leaf(self, x)
        self._check(x)
        windows = self._windows(x, 0.0).clamp(min=0)
        wide = windows.to(torch.promote_types(x.dtype, torch.float32))
        if not self.active:
            total = wide.sum(-1)
            mean = wide.square().sum(-1) / torch.where(total > 0, total, 1.0)
            return mean.to(x.dtype)
        return windows.gather(-1, self._taken(wide.detach())).squeeze(-1)

    def _taken(self, windows: torch.Tensor) -> torch.Tensor:
        """The first unit up to which the sum exceeds a uniform part of the whole."""
        sums = windows.cumsum(-1)
        past = sums > self._uniform(windows[..., 0]).to(sums.dtype).unsqueeze(-1) * sums[..., -1:]
        first = past.int().argmax(-1, keepdim=True)
        return torch.where(past.any(-1, keepdim=True), first, windows.argmax(-1, keepdim=True))

    def _uniform(self, like: torch.Tensor) -> torch.Tensor:
        ops.check_dtype(like)
        draw, place = ops.prepare(like, ANY, self.fresh, ())
        assert isinstance(place, Place)
        return continuous.uniform(draw.key, place, like.device)

    def mask_shape(self, input: torch.Tensor) -> tuple[int, ...]:
        """A number for each window."""
        sizes = zip(input.shape[-2:], self.kernel_size, self.stride, self.padding, strict=True)
        return (*input.shape[:-2], *((n + 2 * pad - size) // step + 1 for n, size, step, pad in sizes))

    @property
    def p(self) -> float:
        """1 - 1 / units of a window."""
        return self._p

    @p.setter
    def p(self, value: float) -> None:
        if value != self.__dict__.get("_p", value):
            raise DropkitValueError(
                f"StochasticPool2d has no rate, so p cannot be set to {value!r}: dropkit.torch.disabled(model) turns "
                "it off"
            )
        Depth.p.fset(self, value)  # type: ignore[attr-defined]

    def extra_repr(self) -> str:
        """The sizes, and when."""
        return self._more_repr().removeprefix(", ")


class MaxPoolDropout2d(Pooling):
    """Dropout, then max pooling: the largest unit of a window that is kept; in evaluation its expectation.

    Of a window's units in falling order a_1, a_2, ... the i-th is the largest that is kept with probability
    `(1 - p) p^(i - 1)`; evaluation is the sum of these times a_i, which max pooling of all would exceed. Nothing is
    rescaled. A unit that overlapping windows share is kept or dropped in all of them.

    Args:
        kernel_size: side of a window, or height and width.
        p: drop probability of a unit in [0, 1]; may be assigned at any time.
        stride, padding: as of `torch.nn.MaxPool2d`.
        when: "train", "always" or "never".

    Shapes: N x C x H x W or C x H x W to the same with fewer rows and columns. Dtypes: float16, bfloat16, float32,
    float64.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; sizes that are none; an input of
            another number of axes.

    Source: Wu and Gu 2015 (arXiv:1512.01400).

    >>> pool, x = MaxPoolDropout2d(2, 0.5), torch.tensor([[[4.0, 2.0], [0.0, 1.0]]])
    >>> pool.eval()(x).item()  # 4 / 2 + 2 / 4 + 1 / 8
    2.625
    """

    def __init__(
        self,
        kernel_size: Sizes,
        p: float = 0.5,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        *,
        when: str = "train",
    ) -> None:
        super().__init__(p, when=when)
        self._begin(kernel_size, stride, padding)
        self.noise = Fill(0.0)
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The largest unit of each window that is kept, or its expectation."""
        if isinstance(x, torch.fx.Proxy):
            return as_leaf(self, x)
        self._check(x)
        if self.active:
            return F.max_pool2d(self._dropped(x, ()), self.kernel_size, self.stride, self.padding)
        ordered = self._windows(x, float("-inf")).sort(-1, descending=True)[0]
        wide = ordered.to(torch.promote_types(x.dtype, torch.float32))
        p = self._rate.to(device=x.device, dtype=wide.dtype)
        number = torch.arange(wide.shape[-1], device=x.device, dtype=wide.dtype)
        above = (wide.clamp(min=0) * ((1 - p) * p**number)).sum(-1)  # what is dropped is 0, and above what is below
        units = torch.isfinite(self._windows(torch.zeros_like(x), float("-inf"))).sum(-1)
        return (above + wide[..., 0].clamp(max=0) * (1 - p) ** units).to(x.dtype)

    def mask_shape(self, input: torch.Tensor) -> tuple[int, ...]:
        """A bit for each unit."""
        return tuple(input.shape)


def _pair(name: str, value: Any, least: int) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else value
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(type(size) is int for size in pair):
        raise DropkitTypeError(f"{name} must be a whole number or two of them, got {value!r}")
    if min(pair) < least:
        raise DropkitValueError(f"{name} must be at least {least}, got {value!r}")
    return (pair[0], pair[1])
