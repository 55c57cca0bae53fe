"""Whole words of an embedding, dropped wherever they stand."""

import torch
from torch import nn
from torch.nn import functional as F

from ...errors import DropkitTypeError
from ..layers import as_leaf
from .drop import Weights


class EmbeddingDropout(Weights):
    """An embedding whose words drop: `y = e[i] m[i] / (1 - p)`, one m for each row of the table and a forward.

    A word that is dropped is zero wherever it stands, in all samples. The table itself is left alone, so that an output
    layer tied to it sees it whole; `padding_idx`, `max_norm` and sparse gradients stay the embedding's.

    Args:
        embedding: an `nn.Embedding`; called with the numbers of words.
        p: drop probability of a word in [0, 1]; may be assigned at any time.
        when: "train", "always" or "never".

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; another module, of which
            `WeightDrop(module, "weight", p, share=(1,))` drops rows.

    Source: Gal and Ghahramani 2016 (arXiv:1512.05287); Merity, Keskar and Socher 2018 (arXiv:1708.02182), p = 0.1.

    >>> words = EmbeddingDropout(nn.Embedding(10, 4), 0.5)
    >>> y = words(torch.tensor([[3, 1, 3, 3]]))
    >>> bool((y[0, 0] == y[0, 2]).all()), words.mask_shape(y)
    (True, (10, 1))
    """

    share = (1,)

    def __init__(self, embedding: nn.Embedding, p: float = 0.1, *, when: str = "train") -> None:
        super().__init__(p, when=when)
        if not isinstance(embedding, nn.Embedding):
            raise DropkitTypeError(
                f"embedding must be a torch.nn.Embedding, got {type(embedding).__name__}: rows of another module's "
                "weight drop by WeightDrop(module, 'weight', p, share=(1,))"
            )
        self.embedding = embedding
        self.p = p

    def mask_shape(self, input: torch.Tensor) -> tuple[int, ...]:
        """One bit for each word that there is."""
        return (self.embedding.num_embeddings, 1)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The embedded words, those that are dropped as zeros."""
        if isinstance(input, torch.fx.Proxy):
            return as_leaf(self, input)
        y = self.embedding(input)
        if not self.active:
            return y
        # Half types are multiplied in single precision, as a mask on the table would be.
        dtype = torch.promote_types(y.dtype, torch.float32)
        words = torch.ones(self.embedding.num_embeddings, 1, dtype=dtype, device=y.device)
        factor = F.embedding(input, self._dropped(words, (1,)))
        zero = torch.zeros((), dtype=y.dtype, device=y.device)
        return torch.where(factor == 0, zero, (y.to(dtype) * factor).to(y.dtype))

    def _more_repr(self) -> str:
        return "" if self.when == "train" else f", when={self.when!r}"
