"""What the layers with a drop probability share: a law at a rate, under a share."""

from functools import partial
from typing import Any

from keras import ops

from ..axes.noise import Bernoulli, Noise
from ..axes.share import Axes, Sharing
from ..drop import checked_other
from ..errors import DropkitRuntimeError, DropkitTypeError
from ..place import noise_shape
from . import arithmetic, composed, engine, values
from .base import Keyed
from .draw import kept_of
from .rates import Movable, encode_rate

_RATE_GRID = 1 << 15  # 1/65536 in units of 2**-31
NOBODY = Axes()


class Rated(Keyed):
    """A layer with a drop probability, a law and a share."""

    rate = Movable("rate", encode_rate, _RATE_GRID)
    # What a layer is that was told nothing; one that was told has its own, under the same name.
    _noise: Noise = Bernoulli()
    _share: Sharing = NOBODY

    def set_up(self, rate: Any, seed: int | None, site: int | str | None, when: str) -> None:
        """Make state and rate; comes after Keras' `Layer.__init__`."""
        level = encode_rate("rate", rate)
        self._begin(seed, site, level, when)
        self.__dict__["_given"] = float(rate), level

    @property
    def noise(self) -> Noise:
        """The law: what becomes of kept and of dropped elements; fixed when the layer is made, as `when` is."""
        return self._noise

    @noise.setter
    def noise(self, value: Any) -> None:
        raise self._fixed("noise", value)

    @property
    def share(self) -> Sharing:
        """Who shares a draw besides what noise_shape says; fixed when the layer is made, as `when` is."""
        return self._share

    @share.setter
    def share(self, value: Any) -> None:
        raise self._fixed("share", value)

    def _fixed(self, name: str, value: Any) -> DropkitRuntimeError:
        layer: Any = self
        return DropkitRuntimeError(
            f"{name} is fixed when a layer is made, got {value!r} for {layer.name!r}: make it with {name}={value!r}"
        )

    def call(self, inputs: Any, other: Any = None, training: bool = False) -> Any:  # type: ignore[override]
        """The input with noise where it is on; else the input, or what the law makes of it then.

        Args:
            inputs: any shape.
            other: the second tensor of a law that needs one; it broadcasts to the input.
            training: the mode of the pass.
        """
        law = self._noise
        if other is not None or law.needs_other:
            if isinstance(other, bool):  # the second argument of Keras' own `call`
                other, training = None, other
            self._check_other(inputs, other)
        if self.active(training):
            noised = self._noised if other is None else partial(self._noised, other=other)
            return engine.run(self, noised, inputs)
        return inputs if law.off(0.5) is None else engine.aside(partial(self._without, other=other), inputs)

    def _check_other(self, inputs: Any, other: Any) -> None:
        if isinstance(inputs, list | tuple) and self._noise.needs_other:
            raise DropkitTypeError(
                f"noise {self._noise!r} takes two tensors, each an argument of its own: layer(x, other), not "
                "layer([x, other])"
            )
        checked_other(self._noise, other)

    def compute_output_spec(self, inputs: Any, other: Any = None, **more: Any) -> Any:
        """That of the input; refuses what a call would refuse, when a functional model is made."""
        self._check_other(inputs, other)
        return super().compute_output_spec(inputs, **more)  # type: ignore[misc]

    def mask_shape(self, x: Any) -> tuple[Any, ...]:
        """Shape of the noise for an input, 1 where a draw is shared."""
        return noise_shape(ops.shape(x), self._share.axes)

    def _shared(self, x: Any) -> Sharing:
        """Who shares a draw in an input."""
        return self._share

    def _noised(self, inputs: Any, other: Any = None) -> Any:
        x = self._floating(inputs)
        other = other if other is None or ops.is_tensor(other) else ops.convert_to_tensor(other)
        return arithmetic.dropout(x, self._draw(), self._shared(x), self._noise, other)

    def _without(self, inputs: Any, other: Any = None) -> Any:
        x = self._floating(inputs)
        other = other if other is None or ops.is_tensor(other) else ops.convert_to_tensor(other)
        return composed.without(x, kept_of(self.seed_generator.level_now()), self._noise, other)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes; noise and share, where they were given, as plain values."""
        config = {**super().get_config(), "rate": float(self.rate)}
        if "_noise" in self.__dict__:
            config["noise"] = values.plain("noise", self._noise)
        if self._share != NOBODY:
            config["share"] = values.plain("share", self._share)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """A layer from what `get_config` gave.

        Raises:
            DropkitValueError, DropkitTypeError: a saved noise or share whose class is not known here, or is none.
        """
        made: dict[str, Any] = {
            axis: values.of_plain(axis, config[axis]) for axis in ("noise", "share") if axis in config
        }
        return super().from_config({**config, **made})
