"""Concrete dropout: a rate for each layer that gradients learn."""

from typing import Any

import keras
import numpy as np
from keras import ops

from ..errors import DropkitValueError
from . import arithmetic, engine
from .base import Keyed

_TEMPERATURE, _SPATIAL_TEMPERATURE = 0.1, 2.0 / 3.0


@keras.saving.register_keras_serializable(package="dropkit")
class ConcreteDropout(Keyed, keras.layers.Wrapper):
    """A layer whose input is dropped at a learned rate: `y = layer(x * z / (1 - p))`, with relaxed, keyed noise.

    `p = sigmoid(p_logit)`, `z = 1 - sigmoid((logit p + logit u) / temperature)` with u of `dropkit.uniform`. The loss
    gains `weight_regularizer * sum(kernel**2) / (1 - p) + dropout_regularizer * inputs * (p ln p + (1 - p) ln(1 - p))`
    at each call, where `inputs` is the size of one sample (of one pixel's channels in the spatial form).

    Args:
        layer: the layer to wrap, with a `kernel`: Dense, or a convolution, whose input is dropped by whole channels.
        weight_regularizer: l**2 / (tau N) for a prior length scale l, precision tau and N training samples.
        dropout_regularizer: 2 / (tau N).
        init_min, init_max: the first p is drawn uniformly between these.
        is_mc_dropout: whether noise is on in evaluation too, as in Monte Carlo dropout: another way to say
            `when="always"` or `when="train"`.
        temperature: of the relaxation; 0.1, or 2/3 in the spatial form, if left out.
        seed, site, **kwargs: as those of `Dropout`.
        when: "train", "always" or "never"; wins over is_mc_dropout.

    Raises:
        DropkitValueError: init_min and init_max not in order inside (0, 1); a temperature that is not above 0; at
            build, a layer without kernel or an input of unknown size.

    Source: Gal, Hron and Kendall 2017 (arXiv:1705.07832).

    >>> layer = ConcreteDropout(keras.layers.Dense(3), seed=1, name="dense")
    >>> y = layer(np.ones((2, 4), "float32"))
    >>> len(layer.trainable_weights), len(layer.losses)
    (3, 1)
    """

    def __init__(
        self,
        layer: keras.Layer,
        weight_regularizer: float = 1e-6,
        dropout_regularizer: float = 1e-5,
        init_min: float = 0.1,
        init_max: float = 0.1,
        is_mc_dropout: bool = True,
        temperature: float | None = None,
        seed: int | None = None,
        *,
        site: int | str | None = None,
        when: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(layer, **kwargs)
        if not 0.0 < init_min <= init_max < 1.0:
            raise DropkitValueError(
                f"init_min and init_max must satisfy 0 < init_min <= init_max < 1, got {init_min} and {init_max}"
            )
        if temperature is not None and not temperature > 0.0:
            raise DropkitValueError(f"temperature must be above 0, got {temperature}")
        self.weight_regularizer = weight_regularizer
        self.dropout_regularizer = dropout_regularizer
        self.init_min, self.init_max = init_min, init_max
        self.spatial = hasattr(layer, "kernel_size")
        self.temperature = temperature
        self._begin(seed, site, active=when or ("always" if is_mc_dropout else "train"))

    def build(self, input_shape: Any) -> None:
        """The wrapped layer's weights and p_logit."""
        super().build(input_shape)
        if not hasattr(self.layer, "kernel"):
            raise DropkitValueError(
                f"ConcreteDropout needs a layer with a kernel, such as Dense or Conv2D; {self.layer.name!r} has none"
            )
        sizes = [input_shape[self._channel_axis()]] if self.spatial else list(input_shape[1:])
        if None in sizes:
            raise DropkitValueError(
                "ConcreteDropout weighs its entropy by the input's size, but the input's shape is "
                f"{tuple(input_shape)}; give the model an Input with known sizes"
            )
        self.input_size = int(np.prod(sizes))
        low, high = (float(np.log(p) - np.log1p(-p)) for p in (self.init_min, self.init_max))
        initializer: Any = keras.initializers.Constant(low)
        if high > low:
            initializer = keras.initializers.RandomUniform(low, high)
        self.p_logit = self.add_weight(name="p_logit", shape=(1,), initializer=initializer, dtype="float32")

    @property
    def p(self) -> Any:
        """The drop probability, a tensor of shape (1,).

        >>> layer = ConcreteDropout(keras.layers.Dense(3))
        >>> layer.build((None, 4))
        >>> round(float(ops.convert_to_numpy(layer.p)[0]), 3)
        0.1
        """
        return ops.sigmoid(ops.cast(self.p_logit, "float32"))

    @property
    def is_mc_dropout(self) -> bool:
        """Whether noise is on in evaluation too."""
        return self.when == "always"

    @is_mc_dropout.setter
    def is_mc_dropout(self, value: bool) -> None:
        self.when = "always" if value else "train"  # refused: programs that were compiled would not follow

    def call(self, inputs: Any, training: bool = False) -> Any:
        """The wrapped layer on the dropped input; adds the loss."""
        self.add_loss(self.regularization())
        if not self.active(training):
            return self.layer(inputs)
        return self.layer(engine.run(self._noised, inputs))

    def regularization(self) -> Any:
        """The loss of this layer, a float32 scalar."""
        p = self.p
        kernel = ops.sum(ops.square(ops.cast(self.layer.kernel, "float32"))) / (1.0 - p)
        logit = ops.cast(self.p_logit, "float32")
        # ln p and ln(1 - p) from the logit, finite wherever p rounds to 0 or 1
        entropy = p * ops.log_sigmoid(logit) + (1.0 - p) * ops.log_sigmoid(-logit)
        return ops.sum(self.weight_regularizer * kernel + self.dropout_regularizer * self.input_size * entropy)

    def _noised(self, inputs: Any) -> Any:
        x = self._floating(inputs)
        noise = tuple(ops.shape(x))
        if self.spatial:
            channel = self._channel_axis() % len(noise)
            noise = tuple(size if axis in (0, channel) else 1 for axis, size in enumerate(noise))
        u = arithmetic.uniform(noise, self._draw(), x)
        default = _SPATIAL_TEMPERATURE if self.spatial else _TEMPERATURE
        temperature = default if self.temperature is None else self.temperature
        logit = ops.cast(self.p_logit, "float32") + ops.log(u) - ops.log1p(-u)
        z = ops.sigmoid(-logit / temperature)
        return ops.cast(ops.cast(x, "float32") * z / (1.0 - self.p), x.dtype)

    def _channel_axis(self) -> int:
        return 1 if getattr(self.layer, "data_format", None) == "channels_first" else -1

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the wrapped layer."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        names = ("weight_regularizer", "dropout_regularizer", "init_min", "init_max", "is_mc_dropout", "temperature")
        layer = keras.saving.serialize_keras_object(self.layer)
        return {**super().get_config(), **{name: getattr(self, name) for name in names}, "layer": layer}
