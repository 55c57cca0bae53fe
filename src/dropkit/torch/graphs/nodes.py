"""Features of nodes, and messages along edges."""

import torch

from ...axes.noise import Raw
from ...errors import DropkitValueError
from ..depth.path import Depth
from ..layers import as_leaf


class DropNode(Depth):
    """Drop all features of a node: `y = x m / (1 - p)`, one m for each node.

    Args:
        p: drop probability in [0, 1].
        scale: divide by 1 - p in training, as GRAND's paper has it; else `x m` in training and `(1 - p) x` in
            evaluation, as its code does.
        when: "train", "always" or "never".

    Shapes: nodes x ..., output as input. Dtypes: float16, bfloat16, float32, float64.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; an input without nodes.

    The mask is `dropkit.keep` that shares all axes but the first; `at(rows=...)` numbers the nodes of a part.

    Source: Feng et al. 2020, "GRAND" (arXiv:2005.11079).

    >>> torch.unique(DropNode(0.5)(torch.ones(64, 8)), dim=1).shape
    torch.Size([64, 1])
    """

    def __init__(self, p: float = 0.5, *, scale: bool = True, when: str = "train") -> None:
        super().__init__(p, when=when)
        self.scale = bool(scale)
        if not scale:
            self.noise = Raw()
            self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The features with those of some nodes dropped, or the features themselves where nothing is."""
        if isinstance(x, torch.fx.Proxy):
            return as_leaf(self, x)
        if x.dim() == 0:
            raise DropkitValueError("DropNode takes nodes x features, got a tensor without axes")
        return self._dropped(x, tuple(range(1, x.dim())))

    def mask_shape(self, input: torch.Tensor) -> tuple[int, ...]:
        """One bit for each node."""
        return (input.shape[0], *[1] * (input.dim() - 1))

    def _more_repr(self) -> str:
        return ("" if self.scale else ", scale=False") + super()._more_repr()


class DropMessage(Depth):
    """Drop elements of the messages along edges: `y = x m / (1 - p)`, one m for each element of (E, features).

    Stands between the messages and their sum at the targets, where it says all that dropout of features, edges and
    nodes can say.

    Args:
        p: drop probability in [0, 1].
        when: "train", "always" or "never".

    Shapes: edges x ..., output as input. Dtypes: float16, bfloat16, float32, float64.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number.

    The mask is `dropkit.keep`; `at(rows=...)` numbers the edges of a part.

    Source: Fang et al. 2023 (arXiv:2204.10037).

    >>> DropMessage(0.5)(torch.ones(6, 4)).shape
    torch.Size([6, 4])
    """

    def __init__(self, p: float = 0.5, *, when: str = "train") -> None:
        super().__init__(p, when=when)

    def forward(self, messages: torch.Tensor) -> torch.Tensor:
        """The messages with elements dropped, or the messages themselves where nothing is."""
        if isinstance(messages, torch.fx.Proxy):
            return as_leaf(self, messages)
        return self._dropped(messages, ())
