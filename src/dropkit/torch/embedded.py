"""Noise on what words are embedded as."""

import math

import torch

from ..axes.noise import AdditiveUniform
from ..errors import DropkitValueError
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
