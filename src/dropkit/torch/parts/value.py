"""A tensor that wraps another, as far as dropout has to know it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..draw import Fresh


@dataclass(frozen=True, slots=True)
class Parts:
    """A tensor that wraps another: the plain one inside, where that lies, and how to wrap the result again."""

    local: torch.Tensor
    rebuilt: Callable[[torch.Tensor], torch.Tensor]
    placed: Callable[[Fresh], Fresh]
    share: Callable[[Sequence[int]], Sequence[int]]
