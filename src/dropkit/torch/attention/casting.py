"""Regions of autocast: what products are computed in."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch

F = TypeVar("F", bound=Callable[..., Any])


def cast_to(q: torch.Tensor) -> torch.dtype | None:
    """What a region of autocast computes products of such a tensor in; None outside of one."""
    kind = q.device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def uncast(backward: F) -> F:
    """A backward pass whose products keep the dtype of what was saved, where it runs inside of a region too."""

    @wraps(backward)
    def run(ctx: Any, grad: torch.Tensor, *more: Any) -> Any:
        with torch.autocast(grad.device.type, enabled=False):
            return backward(ctx, grad, *more)

    return cast(F, run)
