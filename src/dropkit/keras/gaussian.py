"""Keras' Gaussian noises, drawn by dropkit."""

from typing import Any

import keras
from keras import ops

from ..axes.noise import Soft
from . import arithmetic
from .base import Keyed
from .composed import wide_dtype
from .draw import LEVEL_ONE
from .rated import Rated
from .rates import Movable, encode_stddev

_register = keras.saving.register_keras_serializable(package="dropkit")


class Gaussian(Soft):
    """`y = x (1 + sqrt(p / q) z)`; 0 where q is 0."""

    source = "normal"

    def factors(self, n: Any, q: Any, xp: Any) -> tuple[Any, Any]:
        """m alone."""
        some = q > 0
        return xp.where(some, 1.0 + n * xp.sqrt((1.0 - q) / xp.where(some, q, 1.0)), 0.0), None


@_register
class GaussianDropout(Rated, keras.layers.GaussianDropout):
    """`keras.layers.GaussianDropout` with keyed noise: `y = x * (1 + s z)` in training, `s = sqrt(p / (1 - p))`.

    z are the standard normal numbers of `dropkit.normal` for the layer's key. Rate 1, where s has no value, gives 0.

    Args:
        rate: p in [0, 1], rounded to 1/65536; it can be moved as that of `Dropout`.
        seed, site, when, **kwargs: as those of `Dropout`.

    Source: Srivastava et al. 2014 (JMLR 15:1929), section 10.

    >>> layer = GaussianDropout(0.5, seed=1, name="noise")
    >>> ops.convert_to_numpy(layer(ops.ones((1, 4)), training=True)).shape
    (1, 4)
    """

    _noise = Gaussian()

    def __init__(
        self,
        rate: float,
        seed: int | None = None,
        *,
        site: int | str | None = None,
        when: str = "train",
        **kwargs: Any,
    ):
        keras.layers.Layer.__init__(self, **kwargs)
        self.set_up(rate, seed, site, when)
        self._build_at_init()


@_register
class GaussianNoise(Keyed, keras.layers.GaussianNoise):
    """`keras.layers.GaussianNoise` with keyed noise: `y = x + s z` in training.

    z are the standard normal numbers of `dropkit.normal` for the layer's key.

    Args:
        stddev: s in [0, 1], rounded to 2**-31; it can be moved as the rate of `Dropout`.
        seed, site, when, **kwargs: as those of `Dropout`.

    >>> layer = GaussianNoise(0.1, seed=1, name="noise")
    >>> layer.stddev.assign(0.0)
    >>> ops.convert_to_numpy(layer(ops.ones((1, 4)), training=True))
    array([[1., 1., 1., 1.]], dtype=float32)
    """

    stddev = Movable("stddev", encode_stddev, 1 << 7)

    def __init__(
        self,
        stddev: float,
        seed: int | None = None,
        *,
        site: int | str | None = None,
        when: str = "train",
        **kwargs: Any,
    ):
        keras.layers.Layer.__init__(self, **kwargs)
        level = encode_stddev("stddev", stddev)
        self._begin(seed, site, level, when)
        self.__dict__["_given"] = float(stddev), level
        self._build_at_init()

    def _noised(self, inputs: Any) -> Any:
        x, draw = self._floating(inputs), self._draw()
        level = draw.level
        if isinstance(level, int) and level == 0:
            return x
        dtype = wide_dtype(x)
        z = ops.cast(arithmetic.normal(ops.shape(x), draw, x), dtype)
        s = level if isinstance(level, int) else ops.cast(level, dtype)
        return ops.cast(ops.cast(x, dtype) + z * (s / float(LEVEL_ONE)), x.dtype)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {**super().get_config(), "stddev": float(self.stddev)}
