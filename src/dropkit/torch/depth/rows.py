"""Rows of a batch that run through a layer by themselves: gathered before, put back behind."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...errors import DropkitTypeError, DropkitValueError
from ..drawing.coordinates import at, current
from ..named import Named
from . import running


def checked_names(given: Any, name: str = "by_row") -> tuple[str, ...]:
    """Names of keyword arguments.

    Raises:
        DropkitTypeError: they are none.
    """
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, Sequence) or not all(isinstance(held, str) for held in names):
        raise DropkitTypeError(
            f"{name} must hold names of keyword arguments such as ('key_padding_mask',), got {given!r}"
        )
    return tuple(names)


class Rows:
    """Those rows of a batch that a layer keeps.

    Args:
        numbers: of each row of the batch, in the whole.
        kept: whether it runs.
        by_row: names of keyword arguments with a row for each sample.
    """

    def __init__(self, numbers: NDArray[np.uint64], kept: NDArray[np.bool_], by_row: tuple[str, ...]) -> None:
        self.numbers, self.by_row = numbers, by_row
        self.index = np.flatnonzero(kept)
        self.none, self.all = not kept.any(), bool(kept.all())

    def places(self, x: torch.Tensor) -> torch.Tensor:
        """Where the kept rows stand, on x's device."""
        return torch.from_numpy(self.index).to(x.device, non_blocking=True)

    def run(
        self, compiler: Any, layer: nn.Module, x: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> torch.Tensor:
        """What the layer makes of the kept rows, all of them or some.

        Raises:
            DropkitTypeError, DropkitValueError: an output that is no tensor, or of another shape.
        """
        compiled = callable(compiler)
        # one row is another program to a compiler, which then would compile for it: a second one runs along
        alone = compiled and len(self.index) == 1 and len(self.numbers) > 1
        index = np.append(self.index, (self.index[0] + 1) % len(self.numbers)) if alone else self.index
        places = torch.from_numpy(index).to(x.device, non_blocking=True)
        few = x if self.all and not compiled else x.index_select(0, places)
        kwargs = {name: self._gathered(name, value, places) for name, value in kwargs.items()}
        with ExitStack() as stack:
            if any(isinstance(part, Named) for part in layer.modules()):
                stack.enter_context(at(rows=torch.from_numpy(self.numbers[index].astype(np.int64))))
            if compiled:
                few = running.wanting_gradient(few, layer)
                for tensor in (few, current().rows, *kwargs.values()):
                    if isinstance(tensor, torch.Tensor) and len(tensor) == len(few):
                        torch._dynamo.maybe_mark_dynamic(tensor, 0)
            y = running.call(compiler, layer, (few, *args), kwargs)
        checked_output(layer, few, y)
        return y[: len(self.index)] if alone else y

    def _gathered(self, name: str, value: Any, places: torch.Tensor) -> Any:
        if name not in self.by_row or value is None:
            return value
        if not isinstance(value, torch.Tensor) or value.dim() == 0 or len(value) != len(self.numbers):
            raise DropkitValueError(
                f"by_row names {name!r}, which must be a tensor with one row for each of the {len(self.numbers)} "
                f"samples, got {tuple(value.shape) if isinstance(value, torch.Tensor) else value!r}"
            )
        return value.index_select(0, places.to(value.device))

    def added(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """x with what was made of the kept rows added to them."""
        return x + y if self.all else self._put(torch.Tensor.index_add, x, y)

    def replaced(self, x: torch.Tensor, y: torch.Tensor, factor: float) -> torch.Tensor:
        """x with what was made of the kept rows in their place; what that changes is multiplied by a factor."""
        if factor != 1.0:
            before = x if self.all else x.index_select(0, self.places(x))
            y = before + (y - before) * factor
        return y if self.all else self._put(torch.Tensor.index_copy, x, y)

    def _put(self, put: Callable[..., torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        dtype = torch.result_type(x, y)
        return put(x.to(dtype), 0, self.places(x), y.to(dtype))


def checked_output(layer: nn.Module, x: torch.Tensor, y: Any) -> None:
    """Refuse an output that cannot stand beside the input.

    Raises:
        DropkitTypeError, DropkitValueError: no tensor, or of another shape.
    """
    if not isinstance(y, torch.Tensor):
        raise DropkitTypeError(
            f"{type(layer).__name__} gave a {type(y).__name__}, but where it is dropped its input takes the place of "
            "its output: wrap it in a module that gives one tensor"
        )
    if y.shape != x.shape:
        raise DropkitValueError(
            f"{type(layer).__name__} made {tuple(y.shape)} of {tuple(x.shape)}, but where it is dropped its input "
            "takes the place of its output: a layer that changes the shape cannot be dropped"
        )
