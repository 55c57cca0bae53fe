"""What a loss of the user's gave: a number for a batch, or numbers for each sample, whatever the framework."""

import math
from collections.abc import Sequence
from typing import Any

from ...errors import DropkitTypeError, DropkitValueError
from ...visible import a_type


def check_tensor(name: str, value: Any) -> None:
    """Refuse what is no tensor or array.

    >>> check_tensor("my:loss", None)
    Traceback (most recent call last):
    ...
    dropkit.errors.DropkitTypeError: loss my:loss gave a NoneType: it must give a tensor of numbers
    """
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise DropkitTypeError(f"loss {name} gave {a_type(value)}: it must give a tensor of numbers")


def check_shape(name: str, shape: Sequence[int], samples: int) -> None:
    """Refuse numbers that no sample has, or that samples have unequally many of.

    >>> check_shape("my:loss", (), 4), check_shape("my:loss", (4, 3), 4)
    (None, None)
    """
    if shape and (shape[0] % samples or not math.prod(shape)):
        raise DropkitValueError(
            f"loss {name} gave a tensor of shape {tuple(shape)} for {samples} samples: return one number, or one for "
            "each sample"
        )


def check_number(name: str, value: float, samples: int) -> None:
    """Refuse a loss that is none before any training."""
    if math.isnan(value):
        raise DropkitValueError(
            f"loss {name} is nan on the first {samples} samples, before any training: look for a logarithm of 0, a "
            "division by 0 or another loss"
        )
