"""Noise on words and on what they are embedded as."""

import math
from collections.abc import Iterable

import torch

from ..axes.noise import AdditiveUniform, Fill
from ..errors import DropkitTypeError, DropkitValueError
from .depth.path import Depth
from .layers import as_leaf

FULL = 0.25  # the p at which noise has the size that alpha says


class EmbeddingNoise(Depth):
    """Uniform noise on embeddings while training, NEFTune: `y = x + b (2 u - 1)`, b = alpha / sqrt(L d).

    L is the length and d the width of x, batch x L x d, padding counted. A rate moves it: b is the above times
    sqrt(3 p / (1 - p)), 1 at the default p = 1/4; at p = 1, where this has no value, nothing is added.

    Behind the embeddings of a model of Hugging Face's:
    `dropkit.torch.insert(model, model.get_input_embeddings(), EmbeddingNoise(5.0))`.

    Args:
        alpha: the size; 5 to 15 in the paper.
        p: the rate, in [0, 1]; may be assigned at any time.
        when: "train", "always" or "never".

    Shapes: batch x L x d, or L x d; output as input. Dtypes: float16, bfloat16, float32, float64; rounded once.

    Raises:
        DropkitValueError, DropkitTypeError: an alpha that is negative or not finite; p outside [0, 1], NaN or no
            number; an input of fewer than two axes.

    Source: Jain et al. 2024 (arXiv:2310.05914).

    >>> y = EmbeddingNoise(5.0)(torch.zeros(2, 10, 10))
    >>> bool((y.abs() < 0.5).all()), bool((y.abs() > 0.4).any())
    (True, True)
    """

    law_known = shows_mask = False  # its size depends on the input's
    effect = "adds"

    def __init__(self, alpha: float = 5.0, p: float = FULL, *, when: str = "train") -> None:
        super().__init__(p, when=when)
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 <= alpha < math.inf:
            raise DropkitValueError(f"alpha must be a finite number of at least 0, got {alpha!r}")
        self.alpha = float(alpha)
        self.noise = AdditiveUniform()
        self.p = p

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The embeddings with noise, or as they are where there is none."""
        if isinstance(input, torch.fx.Proxy):
            return as_leaf(self, input)
        if not self.active or self.alpha == 0:
            return input
        if input.dim() < 2:
            raise DropkitValueError(f"EmbeddingNoise takes batch x length x width, got {tuple(input.shape)}")
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        size = self.alpha / math.sqrt(input.shape[-2] * input.shape[-1])
        return (wide + size * self._dropped(torch.zeros_like(wide), ())).to(input.dtype)

    def mask_shape(self, input: torch.Tensor) -> tuple[int, ...]:
        """A number for each element."""
        return tuple(input.shape)

    def extra_repr(self) -> str:
        """The size, and the rate where it is another than the usual."""
        return f"alpha={self.alpha:g}" + ("" if self.p == FULL else f", p={self.p}") + self._more_repr()


class WordDropout(Depth):
    """Replace numbers of words, each place by itself, by the one that stands for unknown words, with probability p.

    Args:
        p: probability of a replacement in [0, 1]; may be assigned at any time.
        unknown: what stands for unknown words.
        spare: numbers that are never replaced, as of padding.
        when: "train", "always" or "never".

    Shapes: any, of whole numbers; output as input.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; an unknown or spare that is no whole
            number of at least 0; an input of another type.

    Source: Bowman et al. 2016 (arXiv:1511.06349); as a regulariser of classifiers Iyyer et al. 2015, p = 0.3.

    >>> WordDropout(1.0, unknown=1, spare=[0])(torch.tensor([[5, 7, 0]]))
    tensor([[1, 1, 0]])
    """

    law_known = shows_mask = False  # what is dropped is another number
    effect = "replaces"

    def __init__(self, p: float = 0.3, *, unknown: int, spare: Iterable[int] = (), when: str = "train") -> None:
        super().__init__(p, when=when)
        self.unknown, self.spare = _number("unknown", unknown), tuple(_number("spare", one) for one in spare)
        self.noise = Fill(0.0)
        self.p = p

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The numbers, some of them replaced."""
        if isinstance(input, torch.fx.Proxy):
            return as_leaf(self, input)
        if input.is_floating_point() or input.is_complex() or input.dtype == torch.bool:
            raise DropkitTypeError(f"WordDropout takes numbers of words, which are whole, got {input.dtype}")
        if not self.active:
            return input
        goes = self._dropped(torch.ones(input.shape, device=input.device), ()) == 0
        for number in self.spare:
            goes = goes & (input != number)
        return torch.where(goes, self.unknown, input)

    def mask_shape(self, input: torch.Tensor) -> tuple[int, ...]:
        """A bit for each place."""
        return tuple(input.shape)

    def _more_repr(self) -> str:
        return f", unknown={self.unknown}" + (f", spare={self.spare}" if self.spare else "") + super()._more_repr()


def _number(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DropkitValueError(f"{name} must be a whole number of at least 0, got {value!r}")
    return value
