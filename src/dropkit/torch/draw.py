"""What decides a mask: a key, a rate and a place."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from ..place import WHOLE, Part

# A key's two words; an int64 pair, or what it is folded of, where a compiler looks on; a key in device memory where a
# CUDA graph is captured.
Words = Any


class Unfolded(NamedTuple):
    """A key that the operator of a compiled graph folds when it runs."""

    state: torch.Tensor  # seed and step, an int64 pair with the bits of integers in [0, 2**64)
    site: int  # the site's number


class Draw(NamedTuple):
    """All that decides a noise besides the tensor's shape: the key, the law at its rate, and where the tensor lies."""

    key: Words
    lowered: Any  # a `Lowered`, whose t is kept of 65536, or a tensor of drop probabilities
    part: Part = WHOLE  # its rows are a copy: the caller may write into a tensor before backward


Fresh = Callable[[Any], Draw]  # the draw of one call, for what is lowered
