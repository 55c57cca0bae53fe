"""Keras' dropout layers, drawn by dropkit."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from ..axes.noise import Alpha, Noise
from ..axes.share import Sharing
from ..drop import Drop
from ..errors import DropkitValueError
from .arithmetic import axes_of
from .rated import NOBODY, Rated

_register = keras.saving.register_keras_serializable(package="dropkit")


class _Shaped(Rated):
    """A layer whose noise has a shape that the user says."""

    noise_shape: tuple[int | None, ...] | None

    def _start(
        self, rate: float, noise_shape: Any, seed: int | None, site: Any, when: str, share: Any, noise: Any, more: Any
    ) -> None:
        layer: Any = self
        # Not Keras' own __init__, which makes a generator that knows neither site nor rate.
        keras.layers.Layer.__init__(layer, **more)
        self.set_up(rate, seed, site, when)
        self.noise_shape = checked_noise_shape(noise_shape)
        self._set_axes(share, noise)
        layer._build_at_init()

    def _set_axes(self, share: Any, noise: Noise | None = None) -> None:
        """Set share and law; comes after the noise shape."""
        drop = Drop(0.0, share=share, noise=self._noise if noise is None else noise)
        if drop.share != NOBODY:
            if self.noise_shape is not None:
                raise DropkitValueError(
                    f"noise_shape={self.noise_shape} and share={share!r} both say who shares a draw; leave out one"
                )
            self.__dict__["_share"] = drop.share
        if noise is not None:
            self.__dict__["_noise"] = noise

    def _shared(self, x: Any) -> Sharing:
        return self._share if self.noise_shape is None else axes_of(self.mask_shape(x), x)

    def mask_shape(self, x: Any) -> tuple[Any, ...]:
        """As noise_shape says it, with the input's size where that is None; else 1 where `share` says."""
        return super().mask_shape(x) if self.noise_shape is None else concrete_noise_shape(x, self.noise_shape)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes; noise and share, where they were given, as plain values."""
        return {**super().get_config(), "noise_shape": self.noise_shape}


@_register
class Dropout(_Shaped, keras.layers.Dropout):
    """`keras.layers.Dropout` whose mask is a function of coordinates: `y = x * keep / (1 - rate)` in training.

    Args:
        rate: drop probability in [0, 1], rounded to 1/65536 (the scale is exact for the rounded value). It is data:
            `layer.rate.assign(0.2)` and `layer.rate = 0.2` act on compiled models without a new compilation.
        noise_shape: shape of the mask, aligned with the input's last axes: None for the input's size, 1 for a shared
            draw.
        seed: an int in [0, 2**64); None draws one that `keras.utils.set_random_seed` governs.
        site: name or number of this dropout among those of its seed; the layer's name if left out. `bind` leaves a site
            that is given here: layers of one site and shape share their masks.
        when: "train" (on where `training` is true), "always" (Monte Carlo dropout: `predict` draws too) or "never". It
            is saved with the layer.
        share: axes along which one draw is shared, in place of noise_shape; or a value of `dropkit.axes.share`.
        noise: what becomes of kept and dropped elements, a value of `dropkit.axes.noise`. One that needs a second
            tensor gets it as the second argument of a call, `layer(x, other)`. Both are saved with the layer.
        **kwargs: Keras' own (`name`, `dtype`, `trainable`).

    Shapes: any, output as input. Dtypes: floating ones are kept (half types are scaled in float32 and rounded once);
    integers become the layer's compute type.

    Raises:
        ValueError, TypeError: a rate outside [0, 1], NaN or no number; a bad noise_shape or seed (with Keras' words);
            an unknown `when`; a noise or share that is none; noise_shape and share at once.

    Call n in training is step n: its mask is `dropkit.keep(noise, rate, Key(layer.seed, layer.site, n))`. A layer
    called again within one call of its model has the sites `site#1`, `site#2`, ... there. `dropkit.keras.bind` gives
    all layers of a model one seed and sites from their paths.

    Source: Srivastava et al. 2014 (JMLR 15:1929).

    >>> layer = Dropout(0.5, seed=1, name="drop")
    >>> ops.convert_to_numpy(layer(np.ones((2, 8), "float32"), training=True))
    array([[0., 0., 0., 0., 2., 2., 2., 0.],
           [0., 2., 2., 2., 0., 0., 2., 0.]], dtype=float32)
    """

    def __init__(
        self,
        rate: float,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        *,
        site: int | str | None = None,
        when: str = "train",
        share: Sequence[int] | Sharing = (),
        noise: Noise | None = None,
        **kwargs: Any,
    ):
        self._start(rate, noise_shape, seed, site, when, share, noise, kwargs)


@_register
class AlphaDropout(_Shaped, keras.layers.AlphaDropout):
    """`keras.layers.AlphaDropout` with keyed masks: mean 0 and variance 1 are kept, for SELU networks.

    `y = a x + b` if kept, `a alpha' + b` if dropped, with alpha' = -1.7581, `a = ((1 - p)(1 + p alpha'^2))^(-1/2)` and
    `b = -a p alpha'`; rate 1 gives 0. Arguments, mask and errors are those of `Dropout`, whose `noise=Alpha()` it is.

    Source: Klambauer et al. 2017 (arXiv:1706.02515).

    >>> layer = AlphaDropout(0.5, seed=1, name="drop")
    >>> ops.convert_to_numpy(layer(np.ones((1, 8), "float32"), training=True)).round(3)
    array([[-0.779, -0.779, -0.779, -0.779,  1.666,  1.666,  1.666, -0.779]],
          dtype=float32)
    """

    _noise = Alpha()

    def __init__(
        self,
        rate: float,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        *,
        site: int | str | None = None,
        when: str = "train",
        share: Sequence[int] | Sharing = (),
        **kwargs: Any,
    ):
        self._start(rate, noise_shape, seed, site, when, share, None, kwargs)


class _Spatial(Rated):
    """Dropout of whole feature maps: one draw for each sample and channel."""

    data_format: str
    _axes: int  # spatial axes

    def _start(
        self, rate: float, data_format: str | None, seed: int | None, site: Any, when: str, kwargs: dict[str, Any]
    ) -> None:
        layer: Any = self
        keras.layers.Layer.__init__(layer, **kwargs)
        layer.set_up(rate, seed, site, when)
        layer.noise_shape = None
        layer.data_format = checked_data_format(data_format)
        layer.input_spec = keras.layers.InputSpec(ndim=self._axes + 2)
        layer._build_at_init()

    def mask_shape(self, x: Any) -> tuple[Any, ...]:
        """One element for each sample and channel."""
        shape, ones = ops.shape(x), (1,) * self._axes
        first = self.data_format == "channels_first"
        return (shape[0], shape[1], *ones) if first else (shape[0], *ones, shape[-1])

    def _shared(self, x: Any) -> Sharing:
        return axes_of(self.mask_shape(x), x)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes; the dtype is the whole policy, so mixed precision survives."""
        config = super().get_config()
        return config if self._axes == 1 else {**config, "data_format": self.data_format}


@_register
class SpatialDropout1D(_Spatial, keras.layers.SpatialDropout1D):
    """`keras.layers.SpatialDropout1D` with keyed masks: drops whole feature maps of batch x time x channels.

    Arguments, mask and errors are those of `Dropout`, without noise_shape; the mask has one element for each sample
    and channel.

    Source: Tompson et al. 2015 (arXiv:1411.4280).

    >>> layer = SpatialDropout1D(0.5, seed=1, name="drop")
    >>> ops.convert_to_numpy(layer(np.ones((1, 3, 6), "float32"), training=True))
    array([[[0., 0., 0., 0., 2., 2.],
            [0., 0., 0., 0., 2., 2.],
            [0., 0., 0., 0., 2., 2.]]], dtype=float32)
    """

    _axes = 1

    def __init__(
        self,
        rate: float,
        seed: int | None = None,
        *,
        site: int | str | None = None,
        when: str = "train",
        **kwargs: Any,
    ):
        self._start(rate, "channels_last", seed, site, when, kwargs)


@_register
class SpatialDropout2D(_Spatial, keras.layers.SpatialDropout2D):
    """`keras.layers.SpatialDropout2D` with keyed masks: drops whole feature maps of images.

    Arguments, mask and errors are those of `SpatialDropout1D`; data_format is "channels_first", "channels_last" or
    None for Keras' default.

    Source: Tompson et al. 2015 (arXiv:1411.4280).

    >>> layer = SpatialDropout2D(0.5, data_format="channels_first", seed=1, name="drop")
    >>> y = layer(np.ones((1, 6, 2, 2), "float32"), training=True)
    >>> ops.convert_to_numpy(y)[0, :, 0, 0]
    array([0., 0., 0., 0., 2., 2.], dtype=float32)
    """

    _axes = 2

    def __init__(
        self,
        rate: float,
        data_format: str | None = None,
        seed: int | None = None,
        *,
        site: int | str | None = None,
        when: str = "train",
        **kwargs: Any,
    ):
        self._start(rate, data_format, seed, site, when, kwargs)


@_register
class SpatialDropout3D(_Spatial, keras.layers.SpatialDropout3D):
    """`keras.layers.SpatialDropout3D` with keyed masks: drops whole feature maps of volumes.

    Arguments, mask and errors are those of `SpatialDropout2D`.

    Source: Tompson et al. 2015 (arXiv:1411.4280).

    >>> layer = SpatialDropout3D(0.5, data_format="channels_first", seed=1, name="drop")
    >>> y = layer(np.ones((1, 6, 2, 2, 2), "float32"), training=True)
    >>> ops.convert_to_numpy(y)[0, :, 0, 0, 0]
    array([0., 0., 0., 0., 2., 2.], dtype=float32)
    """

    _axes = 3

    def __init__(
        self,
        rate: float,
        data_format: str | None = None,
        seed: int | None = None,
        *,
        site: int | str | None = None,
        when: str = "train",
        **kwargs: Any,
    ):
        self._start(rate, data_format, seed, site, when, kwargs)


def checked_data_format(data_format: str | None) -> str:
    """A data format, Keras' default for None, or Keras' own error."""
    data_format = keras.config.image_data_format() if data_format is None else str(data_format).lower()
    if data_format not in ("channels_first", "channels_last"):
        raise DropkitValueError(
            "The `data_format` argument must be one of {'channels_first', 'channels_last'}. "
            f"Received: data_format={data_format}"
        )
    return data_format


def checked_noise_shape(noise_shape: Any) -> tuple[int | None, ...] | None:
    """A noise shape as a tuple, or Keras' own errors; NumPy's integers are integers too."""
    if noise_shape is None:
        return None
    start = "Invalid value received for argument `noise_shape`. "
    if isinstance(noise_shape, str):
        raise DropkitValueError(f"{start}Expected a tuple or list of integers. Received: noise_shape={noise_shape}")
    try:
        sizes = tuple(noise_shape)
    except TypeError:
        raise DropkitValueError(
            f"{start}Expected an iterable of integers (e.g., a tuple or list). Received: noise_shape={noise_shape}"
        ) from None
    for i, size in enumerate(sizes):
        if size is None:
            continue
        if not isinstance(size, int | np.integer):
            raise DropkitValueError(
                f"{start}Expected all elements to be integers or None. Received element at index {i}: {size} "
                f"(type: {type(size).__name__})"
            )
        if size <= 0:
            raise DropkitValueError(
                f"{start}Expected all dimensions to be positive integers or None. Received negative or zero value at "
                f"index {i}: {size}"
            )
    return tuple(None if size is None else int(size) for size in sizes)


def concrete_noise_shape(x: Any, noise_shape: tuple[int | None, ...] | None) -> tuple[Any, ...]:
    """The noise tensor's shape, with as many axes as x; sizes that a compiler traces stay traced."""
    shape = tuple(ops.shape(x))
    if noise_shape is None:
        return shape
    if len(noise_shape) > len(shape):
        raise DropkitValueError(
            f"noise_shape {noise_shape} has more axes than the input, whose shape is {tuple(x.shape)}"
        )
    last = shape[len(shape) - len(noise_shape) :]
    noise = tuple(size if n is None else n for n, size in zip(noise_shape, last, strict=True))
    for n, size in zip(noise, last, strict=True):
        if isinstance(n, int) and isinstance(size, int) and n not in (1, size):
            raise DropkitValueError(
                f"noise_shape {noise_shape} does not broadcast to the input's shape {tuple(x.shape)}: each of its "
                "sizes must be None, 1 or the input's"
            )
    return (1,) * (len(shape) - len(noise_shape)) + noise
