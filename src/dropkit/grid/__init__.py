"""The grid: published dropouts as values on the axes noise x share x when, each with its paper. A dict one can read."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import UnknownNameError
from .activations import ACTIVATIONS
from .depth import DEPTH
from .entry import Variant as Variant
from .graphs import GRAPHS
from .heads import HEADS
from .tokens import TOKENS
from .weights import WEIGHTS


class Grid(Mapping[str, Variant]):
    """Variants by name.

    >>> grid["alpha"].paper
    'Klambauer et al. 2017 (arXiv:1706.02515)'
    """

    def __init__(self, variants: dict[str, Variant]):
        self._variants = variants

    def __getitem__(self, name: str) -> Variant:
        if name not in self._variants:
            raise UnknownNameError("variant", name, self.names())
        return self._variants[name]

    def __contains__(self, name: Any) -> bool:
        return name in self._variants

    def __iter__(self) -> Iterator[str]:
        return iter(self._variants)

    def __len__(self) -> int:
        return len(self._variants)

    def names(self) -> tuple[str, ...]:
        """The names of all variants."""
        return tuple(self._variants)


grid = Grid({**ACTIVATIONS, **WEIGHTS, **DEPTH, **TOKENS, **GRAPHS, **HEADS})
