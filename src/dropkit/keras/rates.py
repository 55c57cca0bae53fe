"""A drop probability that reads as a float and moves without a new compilation."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from ..errors import DropkitTypeError, DropkitValueError
from ..threshold import ONE, threshold
from . import bits, engine
from .draw import LEVEL_ONE

Encode = Callable[[str, Any], int]


class Level(float):
    """A float that a layer reads at each call: `layer.rate.assign(0.2)` moves it, and nothing is compiled again.

    It is the value at the time of reading, a float in every respect; read `layer.rate` again after assigning.

    >>> from dropkit.keras import Dropout
    >>> layer = Dropout(0.5)
    >>> layer.rate.assign(0.2)
    >>> layer.rate, layer.rate < 0.5, f"{layer.rate:.0%}"
    (0.2, True, '20%')
    """

    __slots__ = ("_assign",)
    _assign: Callable[[Any], None]

    def __new__(cls, value: float, assign: Callable[[Any], None]) -> "Level":
        """The value, and what writes another."""
        level = super().__new__(cls, value)
        level._assign = assign
        return level

    def assign(self, value: Any) -> None:
        """Another value: a number in [0, 1], or a scalar tensor, which may be traced.

        Raises:
            DropkitValueError, DropkitTypeError: outside [0, 1], NaN or no number (a traced one is clipped).
        """
        self._assign(value)

    def __reduce__(self) -> Any:
        return float, (float(self),)


def encode_rate(name: str, value: Any) -> int:
    """A drop probability as a level, on the grid of 1/65536 that masks know."""
    return (ONE - threshold(checked(name, value))) << 15


def encode_stddev(name: str, value: Any) -> int:
    """A standard deviation as a level, in units of 2**-31."""
    return round(checked(name, value) * LEVEL_ONE)


def checked(name: str, value: Any) -> float:
    """A number in [0, 1], with Keras' own words where it is none."""
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise DropkitTypeError(
            f"Invalid value received for argument `{name}`. Expected a float value between 0 and 1. "
            f"Received: {name}={value!r} of type {type(value).__name__}"
        )
    number = float(value)
    if not 0.0 <= number <= 1.0:  # False for NaN
        raise DropkitValueError(
            f"Invalid value received for argument `{name}`. Expected a float value between 0 and 1. "
            f"Received: {name}={value}"
        )
    return number


class Movable:
    """A number in the state of a layer.

    Args:
        name: what Keras calls it.
        encode: the number as a level, or an error that names it.
        grid: to what the level is rounded where it is traced.
    """

    def __init__(self, name: str, encode: Encode, grid: int):
        self.name = name
        self.encode = encode
        self.grid = grid

    def __get__(self, layer: Any, owner: Any = None) -> Any:
        if layer is None:
            return self
        given, level = layer.__dict__["_given"]
        now = layer.seed_generator.level()
        if now is None or now == level:  # the very float that was given, not the nearest on the grid
            return Level(given, lambda value: self.__set__(layer, value))
        return Level(now / LEVEL_ONE, lambda value: self.__set__(layer, value))

    def __set__(self, layer: Any, value: Any) -> None:
        if engine.traced(value):
            layer.seed_generator.set_level(self._traced_level(value))
            return
        if isinstance(value, keras.Variable) or not hasattr(value, "__float__"):
            value = ops.convert_to_numpy(value).item() if hasattr(value, "shape") else value
        level = self.encode(self.name, value)
        layer.seed_generator.set_level(level)
        layer.__dict__["_given"] = float(value), level

    def _traced_level(self, value: Any) -> Any:
        clipped = ops.clip(ops.cast(getattr(value, "value", value), "float32"), 0.0, 1.0)
        steps = ops.cast(ops.round(clipped * float(LEVEL_ONE // self.grid)), bits.DTYPE)
        return steps * bits.word(self.grid)
