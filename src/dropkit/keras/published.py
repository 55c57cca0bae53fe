"""Published dropouts that Keras has no class of: a `Dropout` with the law and the share that the name says."""

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from ..axes.noise import Noise
from ..axes.noise import Zoneout as Keeping
from ..axes.share import Block, Sharing
from ..errors import DropkitValueError
from .arithmetic import axes_of
from .layers import Dropout, checked_data_format

_register = keras.saving.register_keras_serializable(package="dropkit")
MODES = ("row", "batch")


class _Published(Dropout):
    """A dropout whose law and share follow from its class and from a few arguments. Abstract."""

    law: ClassVar[Noise | None] = None
    own: ClassVar[tuple[str, ...]] = ()  # arguments of its own

    def _made(
        self, rate: float, seed: Any, site: Any, when: str, kwargs: Any, share: Sequence[int] | Sharing = ()
    ) -> None:
        self._start(rate, None, seed, site, when, share, self.law, kwargs)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        config = super().get_config()
        for implied in ("noise_shape", "noise", "share"):
            config.pop(implied, None)
        return {**config, **{name: getattr(self, name) for name in self.own}}


@_register
class StochasticDepth(_Published):
    """Drop a whole branch: `y = x m / (1 - rate)` with one m for each sample, or one for the batch.

    Stands on the output of a residual branch: `x + drop(branch(x))`.

    Args:
        rate: drop probability in [0, 1]; it can be moved as that of `Dropout`.
        mode: "row", each sample by itself, or "batch", all together, as in the paper.
        seed, site, when, **kwargs: as those of `Dropout`.

    Raises:
        ValueError, TypeError: as `Dropout`; another mode.

    Source: Huang et al. 2016 (arXiv:1603.09382), inverted.

    >>> y = StochasticDepth(0.5, seed=1, name="drop")(ops.ones((8, 3, 4)), training=True)
    >>> bool(ops.all(y == y[:, :1, :1]))
    True
    """

    own: ClassVar[tuple[str, ...]] = ("mode",)

    def __init__(
        self,
        rate: float,
        mode: str = "row",
        seed: int | None = None,
        *,
        site: int | str | None = None,
        when: str = "train",
        **kwargs: Any,
    ):
        if mode not in MODES:
            raise DropkitValueError(f"mode has to be either 'batch' or 'row', but got {mode!r}")
        self._made(rate, seed, site, when, kwargs)
        self.mode = mode

    def mask_shape(self, x: Any) -> tuple[Any, ...]:
        """One element for each sample, or one for all."""
        shape = ops.shape(x)
        rows = shape[:1] if self.mode == "row" else (1,) * min(len(shape), 1)
        return (*rows, *(1,) * (len(shape) - 1))

    def _shared(self, x: Any) -> Sharing:
        return axes_of(self.mask_shape(x), x)


@_register
class DropPath(StochasticDepth):
    """Drop a whole branch of each sample: `StochasticDepth` in mode "row", under the name that vision models use.

    Args:
        rate: drop probability in [0, 1]; it can be moved as that of `Dropout`.
        seed, site, when, **kwargs: as those of `Dropout`.

    Source: Huang et al. 2016 (arXiv:1603.09382), inverted.

    >>> y = DropPath(0.5, seed=1, name="drop")(ops.ones((8, 3)), training=True)
    >>> bool(ops.all(y == y[:, :1]))
    True
    """

    own = ()

    def __init__(
        self,
        rate: float,
        seed: int | None = None,
        *,
        site: int | str | None = None,
        when: str = "train",
        **kwargs: Any,
    ):
        super().__init__(rate, "row", seed, site=site, when=when, **kwargs)


class _Blocks(_Published):
    """Dropout of whole blocks of maps. Abstract."""

    own = ("block_size", "data_format")
    axes_of_map: ClassVar[int]

    def __init__(
        self,
        rate: float,
        block_size: int | Sequence[int],
        data_format: str | None = None,
        seed: int | None = None,
        *,
        site: int | str | None = None,
        when: str = "train",
        **kwargs: Any,
    ):
        data_format = checked_data_format(data_format)
        behind = 0 if data_format == "channels_first" else 1
        over = tuple(range(-self.axes_of_map - behind, -behind))
        size = tuple(block_size) if isinstance(block_size, list | tuple) else block_size
        self._made(rate, seed, site, when, kwargs, Block(size, over))
        self.block_size, self.data_format = size, data_format
        self.input_spec = keras.layers.InputSpec(ndim=self.axes_of_map + 2)


@_register
class DropBlock1D(_Blocks):
    """Drop whole blocks of batch x time x channels, each channel by itself; arguments of `DropBlock2D`.

    Source: Ghiasi, Lin and Le 2018 (arXiv:1810.12890).

    >>> DropBlock1D(0.1, 5).block_size
    5
    """

    axes_of_map = 1


@_register
class DropBlock2D(_Blocks):
    """Drop whole blocks of images, each channel by itself, so that the mean rate over the map is `rate`.

    Args:
        rate: drop probability in [0, 1]; it can be moved as that of `Dropout`.
        block_size: side of a block, or one for each axis; a block larger than the map is cut to it.
        data_format: "channels_first", "channels_last" or None for Keras' default.
        seed, site, when, **kwargs: as those of `Dropout`.

    Raises:
        ValueError, TypeError: as `Dropout`; a block size below 1; another data_format; an input of other axes.

    Source: Ghiasi, Lin and Le 2018 (arXiv:1810.12890).

    >>> layer = DropBlock2D(0.3, 3, data_format="channels_last", seed=1, name="drop")
    >>> tuple(layer(ops.ones((2, 9, 9, 4)), training=True).shape)
    (2, 9, 9, 4)
    """

    axes_of_map = 2


@_register
class DropBlock3D(_Blocks):
    """Drop whole blocks of volumes, each channel by itself; arguments of `DropBlock2D`.

    Source: Ghiasi, Lin and Le 2018 (arXiv:1810.12890).

    >>> DropBlock3D(0.1, (1, 7, 7)).block_size
    (1, 7, 7)
    """

    axes_of_map = 3


@_register
class Zoneout(_Published):
    """A dropped unit keeps its previous value: `layer(new, previous)`; in evaluation `(1 - rate) new + rate previous`.

    Args:
        rate: probability of keeping the previous value, in [0, 1]; it can be moved as that of `Dropout`.
        seed, site, when, **kwargs: as those of `Dropout`.

    Raises:
        ValueError, TypeError: as `Dropout`; a call without the previous state.

    Source: Krueger et al. 2017 (arXiv:1606.01305).

    >>> ops.convert_to_numpy(Zoneout(0.25)(ops.ones(2), ops.zeros(2))).tolist()
    [0.75, 0.75]
    """

    law = Keeping()

    def __init__(
        self,
        rate: float = 0.05,
        seed: int | None = None,
        *,
        site: int | str | None = None,
        when: str = "train",
        **kwargs: Any,
    ):
        self._made(rate, seed, site, when, kwargs)
