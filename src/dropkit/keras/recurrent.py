"""Keras' recurrent cells and layers, whose masks are keyed and drawn once a sequence.

    x_t -> x_t * keep_x / (1 - dropout),    h_t-1 -> h_t-1 * keep_h / (1 - recurrent_dropout)

with the same two masks at all steps of a sequence. Where a cell multiplies by its gates one after the other (as it does
with recurrent dropout), each gate has masks of its own: they lie beside each other on the last axis of one draw.
"""

import threading
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell as _KerasConvLSTMCell

from . import engine
from .held import Holder, Rate, check_rates, retell, saved_drops, telling, told

_register = keras.saving.register_keras_serializable(package="dropkit")
INPUT, STATE = "dropout", "recurrent_dropout"


class _Sequences(threading.local):
    """The masks of cells that run: (the call in which they were drawn, masks by the names of rates), by cells' ids."""

    def __init__(self) -> None:
        self.masks: dict[int, tuple[Any, dict[str, Any]]] = {}


_sequences = _Sequences()


class Cell(Holder):
    """A cell of Keras' that drops what it reads and what it remembers."""

    held_as: Mapping[str, str] = {INPUT: "_dropout_layer", STATE: "_recurrent_dropout_layer"}
    dropout = Rate(INPUT, "_dropout_layer")
    recurrent_dropout = Rate(STATE, "_recurrent_dropout_layer")

    def get_dropout_mask(self, step_input: Any) -> Any:
        """The masks of what is read: one, or a list with one for each gate; None where nothing is dropped."""
        return self._mask(INPUT, step_input, None)

    def get_recurrent_dropout_mask(self, step_input: Any) -> Any:
        """The masks of what is remembered, likewise."""
        return self._mask(STATE, step_input, None)

    def reset_dropout_mask(self) -> None:
        """The sequence is over."""
        self._forget(INPUT)

    def reset_recurrent_dropout_mask(self) -> None:
        """The sequence is over."""
        self._forget(STATE)

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        """Keras' own step, with the masks of the sequence."""
        state = states[0] if isinstance(states, list | tuple) else states
        drawn = {INPUT: self._mask(INPUT, inputs, training), STATE: self._mask(STATE, state, training)}
        on = {name: 0.5 for name, mask in drawn.items() if mask is not None}
        with telling(self, on):
            return super().call(inputs, states, training=bool(on))  # type: ignore[misc]

    def _masks(self) -> dict[str, Any]:
        """Masks that were drawn in the running call; those that a call left behind which failed are gone."""
        call = engine.repeated() or engine.current_call()
        of, masks = _sequences.masks.get(id(self), (None, {}))
        if of != call:
            masks = {}
        _sequences.masks[id(self)] = call, masks
        return masks

    def _forget(self, name: str) -> None:
        masks = self._masks()
        masks.pop(name, None)
        if not masks:
            del _sequences.masks[id(self)]

    def _mask(self, name: str, like: Any, training: bool | None) -> Any:
        """The masks of this sequence, drawn at their first use.

        A recurrent layer asks for them before its loop, and does not say whether it trains. The running call knows; in
        a forward that torch runs again there is none, and it is as it was.
        """
        masks, again = self._masks(), engine.repeated()
        if training is None and again and not told(self):
            masks.pop(name, None)  # left by another forward that was run again, which ends where enough is known
        if name not in masks:
            if training is None:
                call = engine.current_call()
                training = self.__dict__.get("_trained") if again or call is None else call.get_value("training")
            self.__dict__["_trained"] = bool(training)
            masks[name] = self._drawn(name, like, bool(training))
        return masks[name]

    def _drawn(self, name: str, like: Any, training: bool) -> Any:
        drop = self.drops.get(name)
        if drop is None or not drop.active(training):
            return None
        gates = getattr(self, "dropout_mask_count", None)
        ones = ops.ones_like(like)
        if gates is None:
            return drop(ones, training=training)
        return ops.split(drop(ops.concatenate([ones] * gates, axis=-1), training=training), gates, axis=-1)


class _Layer:
    """A recurrent layer that makes its cell. Comes before Keras' class among the bases."""

    def _start(self, seed: Any, site: Any, when: str) -> None:
        layer: Any = self
        own = CELLS[type(layer.cell)]
        object.__setattr__(layer.cell, "__class__", own)
        layer.cell.take_over(seed, site, when, layer.name)

    def inner_loop(self, sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        """Keras' own; cuDNN's kernels take a sequence that is dropped beforehand."""
        cell: Any = self.cell  # type: ignore[attr-defined]
        on = {name: 0.5 for name, drawn in cell._masks().items() if drawn is not None}
        dropped = training or (on.keys() == {INPUT} and "use_cudnn" in vars(self))
        with telling(cell, on):
            return super().inner_loop(sequences, initial_state, mask, dropped)  # type: ignore[misc]

    @property
    def drops(self) -> dict[str, Any]:
        """The dropouts of its cell, by the names of their rates."""
        found: dict[str, Any] = self.cell.drops  # type: ignore[attr-defined]
        return found

    def get_config(self) -> dict[str, Any]:
        """Keras' own, and what else the dropouts were told."""
        config = super().get_config()  # type: ignore[misc]
        cell: Any = self.cell  # type: ignore[attr-defined]
        rates = {name: float(drop.rate) for name, drop in cell.drops.items()}
        return {**config, **rates, **saved_drops(cell)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """A layer from what `get_config` gave."""
        config = dict(config)
        saved = config.pop("drops", {})
        layer = super().from_config(config)  # type: ignore[misc]
        retell(layer.cell, saved)
        return layer


class _OwnCell(Cell):
    """A cell that users make."""

    def __init__(
        self,
        units: int,
        *args: Any,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        site: int | str | None = None,
        when: str = "train",
        **kwargs: Any,
    ):
        check_rates(dropout=dropout, recurrent_dropout=recurrent_dropout)
        super().__init__(units, *args, dropout=dropout, recurrent_dropout=recurrent_dropout, **kwargs)  # type: ignore[call-arg]
        self.take_over(seed, site, when)


class _OwnLayer(_Layer):
    """A recurrent layer that users make."""

    def __init__(
        self,
        *args: Any,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        site: int | str | None = None,
        when: str = "train",
        **kwargs: Any,
    ):
        check_rates(dropout=dropout, recurrent_dropout=recurrent_dropout)
        super().__init__(*args, dropout=dropout, recurrent_dropout=recurrent_dropout, **kwargs)  # type: ignore[call-arg]
        self._start(seed, site, when)


@_register
class LSTMCell(_OwnCell, keras.layers.LSTMCell):
    """`keras.layers.LSTMCell` with keyed masks, drawn once a sequence.

    Args:
        units: as Keras has it.
        dropout, recurrent_dropout: drop probabilities in [0, 1]; with 0 nothing is held there, and nothing drops.
        seed, site, when: as `LSTM` has them.
        **kwargs: Keras' own.

    A sequence is one run of the layer around it; of a cell that is called by itself, the outermost call.

    Raises:
        ValueError, TypeError: as `LSTM`.

    Source: Gal and Ghahramani 2016 (arXiv:1512.05287).

    >>> cell = LSTMCell(4, dropout=0.5, recurrent_dropout=0.5, seed=1, name="cell")
    >>> {name: drop.site for name, drop in cell.drops.items()}
    {'dropout': 'cell/dropout', 'recurrent_dropout': 'cell/recurrent_dropout'}
    """


@_register
class GRUCell(_OwnCell, keras.layers.GRUCell):
    """`keras.layers.GRUCell` with keyed masks, drawn once a sequence.

    Arguments and errors are those of `LSTMCell`.

    Source: Gal and Ghahramani 2016 (arXiv:1512.05287).

    >>> list(GRUCell(4, dropout=0.5).drops)
    ['dropout']
    """


@_register
class SimpleRNNCell(_OwnCell, keras.layers.SimpleRNNCell):
    """`keras.layers.SimpleRNNCell` with keyed masks, drawn once a sequence.

    Arguments and errors are those of `LSTMCell`.

    Source: Gal and Ghahramani 2016 (arXiv:1512.05287).

    >>> list(SimpleRNNCell(4, recurrent_dropout=0.5).drops)
    ['recurrent_dropout']
    """


@_register
class ConvLSTMCell(Cell, _KerasConvLSTMCell):
    """The cell of `ConvLSTM1D`, `2D` and `3D`."""


@_register
class LSTM(_OwnLayer, keras.layers.LSTM):
    """`keras.layers.LSTM` whose inputs and states are dropped by keyed masks, drawn once a sequence.

    `x_t * keep_x / (1 - dropout)` and `h_t-1 * keep_h / (1 - recurrent_dropout)`, the same two masks at every step.

    Args:
        units: as Keras has it.
        dropout, recurrent_dropout: drop probabilities in [0, 1]; with 0 nothing is held there, and nothing drops.
        seed: an int in [0, 2**64); None draws one that `keras.utils.set_random_seed` governs.
        site: name or number before "/dropout" and "/recurrent_dropout"; the layer's name if left out. `bind` leaves a
            site that is given here.
        when: "train", "always" or "never", as in `Dropout`.
        **kwargs: Keras' own.

    Shapes, dtypes and padding masks are Keras'. The mask is `dropkit.keep((batch, features), p, key)`; where Keras
    multiplies gate by gate, as it does with recurrent dropout, `dropkit.keep((batch, gates * features), p, key)`, cut
    into gates along the last axis.

    Raises:
        ValueError, TypeError: a rate outside [0, 1], NaN or no number; a bad seed; Keras' own.

    Source: Gal and Ghahramani 2016 (arXiv:1512.05287).

    >>> layer = LSTM(4, dropout=0.5, seed=1, name="read")
    >>> layer(ops.ones((2, 3, 8)), training=True).shape == (2, 4), layer.drops["dropout"].site
    (True, 'read/dropout')
    """


@_register
class GRU(_OwnLayer, keras.layers.GRU):
    """`keras.layers.GRU` whose inputs and states are dropped by keyed masks, drawn once a sequence.

    Arguments, masks and errors are those of `LSTM`.

    Source: Gal and Ghahramani 2016 (arXiv:1512.05287).

    >>> GRU(4, dropout=0.5, seed=1)(ops.ones((2, 3, 8)), training=True).shape == (2, 4)
    True
    """


@_register
class SimpleRNN(_OwnLayer, keras.layers.SimpleRNN):
    """`keras.layers.SimpleRNN` whose inputs and states are dropped by keyed masks, drawn once a sequence.

    Arguments, masks and errors are those of `LSTM`.

    Source: Gal and Ghahramani 2016 (arXiv:1512.05287).

    >>> SimpleRNN(4, recurrent_dropout=0.5, seed=1)(ops.ones((2, 3, 8)), training=True).shape == (2, 4)
    True
    """


@_register
class ConvLSTM1D(_OwnLayer, keras.layers.ConvLSTM1D):
    """`keras.layers.ConvLSTM1D` whose inputs and states are dropped by keyed masks, drawn once a sequence.

    Arguments, masks and errors are those of `LSTM`; a mask has the shape of one step, its gates along the last axis.

    Source: Gal and Ghahramani 2016 (arXiv:1512.05287).

    >>> ConvLSTM1D(4, 3, dropout=0.5, seed=1)(ops.ones((2, 3, 8, 1)), training=True).shape == (2, 6, 4)
    True
    """


@_register
class ConvLSTM2D(_OwnLayer, keras.layers.ConvLSTM2D):
    """`keras.layers.ConvLSTM2D` whose inputs and states are dropped by keyed masks, drawn once a sequence.

    Arguments, masks and errors are those of `ConvLSTM1D`.

    Source: Gal and Ghahramani 2016 (arXiv:1512.05287).

    >>> list(ConvLSTM2D(4, 3, dropout=0.5).drops)
    ['dropout']
    """


@_register
class ConvLSTM3D(_OwnLayer, keras.layers.ConvLSTM3D):
    """`keras.layers.ConvLSTM3D` whose inputs and states are dropped by keyed masks, drawn once a sequence.

    Arguments, masks and errors are those of `ConvLSTM1D`.

    Source: Gal and Ghahramani 2016 (arXiv:1512.05287).

    >>> list(ConvLSTM3D(4, 3, dropout=0.5).drops)
    ['dropout']
    """


CELLS: dict[type, type] = {
    keras.layers.LSTMCell: LSTMCell,
    keras.layers.GRUCell: GRUCell,
    keras.layers.SimpleRNNCell: SimpleRNNCell,
    _KerasConvLSTMCell: ConvLSTMCell,
}
LAYERS: dict[type, type] = {
    keras.layers.LSTM: LSTM,
    keras.layers.GRU: GRU,
    keras.layers.SimpleRNN: SimpleRNN,
    keras.layers.ConvLSTM1D: ConvLSTM1D,
    keras.layers.ConvLSTM2D: ConvLSTM2D,
    keras.layers.ConvLSTM3D: ConvLSTM3D,
}
