"""A few thousand elements of a mask that was drawn: enough to tell whether two are the same."""

from dataclasses import dataclass

import torch

from ...mask import alpha_factors, threshold
from ...torch.finding.inventory import Site

_SIZE = 4096
_ENOUGH = 64  # elements
_CHANCE = 1e-9  # that two independent masks look the same; above that nothing is concluded


@dataclass(frozen=True)
class Sample:
    """Elements of a draw: dropped or not (or the random numbers themselves), and where that is known."""

    values: torch.Tensor
    known: torch.Tensor
    shape: tuple[int, ...]

    @staticmethod
    def of_values(drawn: torch.Tensor) -> "Sample":
        """Of random numbers."""
        values = taken(drawn)
        return Sample(values, torch.ones_like(values, dtype=torch.bool), tuple(drawn.shape))

    @staticmethod
    def of_mask(before: torch.Tensor, y: torch.Tensor, site: Site) -> "Sample":
        """Of a dropout that made y of x, where `before` is what was taken of x."""
        after, x = taken(y, site).double(), before.double()
        if not alpha(site):
            return Sample(after == 0, x != 0, tuple(y.shape))
        scale, shift, gone = alpha_factors(threshold(site.p))
        known = (x * scale + shift - gone).abs() > 1e-2
        return Sample((after - gone).abs() < 1e-3, known, tuple(y.shape))

    def differences(self, other: "Sample") -> tuple[int, int]:
        """How many elements differ, and of how many that both know."""
        if self.values.shape != other.values.shape:
            return self.values.numel(), self.values.numel()
        both = self.known & other.known
        return int((self.values != other.values)[both].sum()), int(both.sum())

    def same(self, other: "Sample") -> bool:
        """Whether nothing tells them apart."""
        return self.shape == other.shape and self.differences(other)[0] == 0

    def twin(self, other: "Sample", p: float) -> bool:
        """Whether they are the same and too many elements for chance; independent ones agree with p^2 + (1 - p)^2."""
        wrong, compared = self.differences(other)
        agree = p * p + (1 - p) ** 2
        return self.shape == other.shape and wrong == 0 and compared >= _ENOUGH and agree**compared < _CHANCE


def alpha(site: Site) -> bool:
    """Whether what a site drops becomes a constant other than zero."""
    return "alpha" in site.kind.lower()


def taken(x: torch.Tensor, site: Site | None = None) -> torch.Tensor:
    """The first elements, copied; of those that share a draw the largest, which is zero only if all are."""
    x = x.detach()
    if x.is_nested or x.layout is not torch.strided:
        x = x.values()
    shape = () if site is None or site.mask_shape is None else site.mask_shape
    shared = [axis for axis, size in enumerate(shape) if size == 1] if len(shape) == x.dim() else []
    if shared and site is not None:
        x = x[tuple(slice(1) if axis in shared else slice(None) for axis in range(x.dim()))] if alpha(site) else (
            x.abs().amax(dim=shared))  # fmt: skip
    return x.reshape(-1)[:_SIZE].clone().cpu()
