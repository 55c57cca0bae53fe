"""A tensor that wraps another, as far as dropout has to know it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..draw import Fresh


@dataclass(frozen=True, slots=True)
class Parts:
    """A tensor that wraps another: the plain one inside, where that lies, and how to wrap the result again."""

    local: torch.Tensor
    rebuilt: Callable[[torch.Tensor], torch.Tensor]
    placed: Callable[[Fresh], Fresh]
    share: Callable[[Any], Any]
    matched: Callable[[torch.Tensor], torch.Tensor]  # another tensor of that shape, as the plain one inside
