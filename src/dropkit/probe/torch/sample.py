"""A few thousand elements of what was drawn, a mask or values: enough to tell whether two draws are the same."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...axes.noise import Soft
from ...drop import Lowered, lower
from ...threshold import threshold
from ...torch.finding.inventory import Site
from ...torch.finding.outcomes import gone, numbers

_SIZE = 4096
_ENOUGH = 64  # elements
_CHANCE = 1e-9  # that two independent draws look the same; above that nothing is concluded
_CLOSE = 0.02  # relative: two independent values are seldom so close, and half types round less
_ALIKE = 0.2  # bound on how often two independent values are


@dataclass(frozen=True)
class Sample:
    """Elements of a draw, and where they are known: of a mask whether dropped, else the random numbers themselves."""

    values: torch.Tensor
    known: torch.Tensor
    shape: tuple[int, ...]

    @staticmethod
    def of_values(drawn: torch.Tensor) -> "Sample":
        """Of random numbers."""
        values = _first(drawn, ())
        return Sample(values, torch.ones_like(values, dtype=torch.bool), tuple(drawn.shape))

    def differences(self, other: "Sample") -> tuple[int, int]:
        """How many elements differ, and of how many that both know."""
        if self.values.shape != other.values.shape:
            return self.values.numel(), self.values.numel()
        both = self.known & other.known
        unlike = self.values != other.values
        if self.values.is_floating_point() and other.values.is_floating_point():
            unlike &= ~torch.isclose(self.values, other.values, _CLOSE, 0.0, equal_nan=True)
        return int(unlike[both].sum()), int(both.sum())

    def same(self, other: "Sample") -> bool:
        """Whether nothing tells them apart."""
        return self.shape == other.shape and self.differences(other)[0] == 0

    def twin(self, other: "Sample", p: float) -> bool:
        """Whether they are the same and too many elements for chance; independent masks agree with p^2 + (1 - p)^2."""
        wrong, compared = self.differences(other)
        agree = _ALIKE if self.values.is_floating_point() else p * p + (1 - p) ** 2
        return self.shape == other.shape and wrong == 0 and compared >= _ENOUGH and agree**compared < _CHANCE


@dataclass(frozen=True)
class Taken:
    """What is taken of the tensors of a call before it drops.

    Args:
        x, o: elements of the tensor, and of the other one of a law that has two: one of each draw; of inverted dropout
            the largest of those that share it, which is zero afterwards only if it was dropped.
        lowered: the law's numbers; None where nothing says what the law is, which then is taken to drop to zero.
        shared: axes that share a draw.
    """

    x: torch.Tensor
    o: torch.Tensor | None
    site: Site
    lowered: Lowered | None
    shared: tuple[int, ...]

    @staticmethod
    def of(x: torch.Tensor, site: Site, other: Any = None) -> "Taken":
        """Of the tensors that a site is about to take."""
        lowered = numbers(site, tuple(x.shape))
        mask = site.mask_shape or ()
        shared = tuple(axis for axis, size in enumerate(mask) if size == 1) if len(mask) == x.dim() else ()
        zeroes = _zeroes(lowered)
        o = _first(other.expand(x.shape), shared) if isinstance(other, torch.Tensor) and not zeroes else None
        return Taken((_largest if zeroes else _first)(x, shared), o, site, lowered, shared)

    def made(self, y: torch.Tensor) -> Sample:
        """What was drawn, from what became of x."""
        shape = tuple(y.shape)
        x = self.x.double()
        if _zeroes(self.lowered):
            return Sample(_largest(y, self.shared) == 0, x != 0, shape)
        after = _first(y, self.shared).double()
        assert self.lowered is not None
        if self.lowered.soft:
            return _numbers(x, after, self.lowered, shape)
        dropped, known = gone(x, after, self.lowered, 1.0 if self.o is None else self.o.double())
        return Sample(dropped, known, shape)


def _numbers(x: torch.Tensor, y: torch.Tensor, lowered: Lowered, shape: tuple[int, ...]) -> Sample:
    """The factors of a soft law, or the terms of one that only adds; of a law with both, what it gave."""
    law: Any = lowered.law
    assert isinstance(law, Soft)
    probe = np.array([0.25, 0.75])
    m, s = law.factors(probe, np.asarray(lowered.q), np)
    if s is None:
        return Sample(y / torch.where(x == 0, 1.0, x), x != 0, shape)
    everywhere = torch.ones_like(x, dtype=torch.bool)
    constant = np.ptp(np.broadcast_to(m, probe.shape)) == 0
    return Sample(y - float(np.ravel(m)[0]) * x if constant else y, everywhere, shape)


def zeroes(site: Site) -> bool:
    """Whether what a site drops becomes zero, as far as is known."""
    return _zeroes(None if site.noise is None else lower(site.noise, threshold(site.p)))


def _zeroes(lowered: Lowered | None) -> bool:
    """Whether what is dropped becomes zero and what is kept a multiple of what it was."""
    return lowered is None or (not lowered.soft and lowered.b == 0 and lowered.c == 0)


def _first(x: torch.Tensor, shared: tuple[int, ...]) -> torch.Tensor:
    """The first elements, copied; the first of those that share a draw."""
    x = _plain(x)
    if shared:
        x = x[tuple(slice(1) if axis in shared else slice(None) for axis in range(x.dim()))]
    return x.reshape(-1)[:_SIZE].clone().cpu()


def _largest(x: torch.Tensor, shared: tuple[int, ...]) -> torch.Tensor:
    """The first elements, copied; the largest of those that share a draw."""
    x = _plain(x)
    return (x.abs().amax(dim=shared) if shared else x).reshape(-1)[:_SIZE].clone().cpu()


def _plain(x: torch.Tensor) -> torch.Tensor:
    x = x.detach()
    return x.values() if x.is_nested or x.layout is not torch.strided else x
