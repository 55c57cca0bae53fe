"""Recurrent networks of flax.nnx whose input and recurrent masks are drawn once a sequence."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ...errors import DropkitTypeError, DropkitValueError
from ..keys import KeyWords, words_of
from ..ops import dropout
from ..place import sharing_too
from .layers import Dropout, active, drawn

_RECURRENT: dict[type, tuple[str, ...]] = {  # which modules of a cell see the hidden state
    nnx.LSTMCell: ("hi", "hf", "hg", "ho"),
    nnx.OptimizedLSTMCell: ("dense_h",),
    nnx.SimpleCell: ("dense_h",),
    nnx.GRUCell: ("dense_h",),
}


class Once(nnx.Variable):
    """What is drawn once for all steps of a sequence."""


class RNN(nnx.RNN):
    """`nnx.RNN` with its signature, and dropout of what enters the cell and of the hidden state: a mask a sequence.

    At each time t the cell gets `m_x * x_t / (1 - p_x)`, and its recurrent weights `m_h * h_{t-1} / (1 - p_h)`; the
    masks are the same at all t. What the cell carries from step to step otherwise, such as the memory of an LSTM or the
    share of its state that a GRU keeps, is not dropped. The masks are
    `dropkit.keep(inputs.shape, p_x, key, share=time)` and `dropkit.keep(h.shape, p_h, key)`, of the sites `dropout` and
    `recurrent_dropout`.

    Args:
        cell: any cell of nnx, or one of your own.
        dropout_rate, recurrent_dropout_rate: drop probabilities in [0, 1]; numbers, or nnx.Variables.
        recurrent: names of the cell's modules that see the hidden state; known for the cells of nnx and what derives
            from them.
        deterministic: whether to drop nothing; None if the call says so.
        rngs: as there; an nnx.Rngs gives the masks' stream too. A model that is bound needs none.
        **how: what `nnx.RNN` takes besides: time_major, return_carry, reverse, keep_order, unroll, ...

    Raises:
        DropkitValueError, DropkitTypeError: a rate outside [0, 1], NaN or no number; a cell whose recurrent modules are
            not known, or has none of these names.

    Sources: Gal and Ghahramani 2016 (arXiv:1512.05287); Keras' `dropout` and `recurrent_dropout`.

    >>> from dropkit.jax import bind, sites
    >>> rnn = RNN(nnx.LSTMCell(3, 4, rngs=nnx.Rngs(0)), dropout_rate=0.2, recurrent_dropout_rate=0.2)
    >>> list(sites(bind(rnn, seed=1))), rnn(jnp.ones((2, 5, 3))).shape
    (['dropout', 'recurrent_dropout'], (2, 5, 4))
    """

    def __init__(
        self,
        cell: Any,
        *,
        dropout_rate: Any = 0.0,
        recurrent_dropout_rate: Any = 0.0,
        recurrent: Sequence[str] | None = None,
        deterministic: bool | None = False,
        rngs: nnx.Rngs | bool = True,
        **how: Any,
    ):
        given = rngs if isinstance(rngs, nnx.Rngs) else None
        drops = [Dropout(rate, deterministic=deterministic) for rate in (dropout_rate, recurrent_dropout_rate)]
        self.recurrent = _recurrent(cell, recurrent, drops[1])
        super().__init__(cell, rngs=rngs, **how)
        if given is not None:
            for drop in drops:
                drop.rngs = given.dropout.fork()
        self.dropout, self.recurrent_dropout = drops

    def __call__(self, inputs: jax.Array, *, deterministic: bool | None = None, rngs: Any = None, **how: Any) -> Any:
        """As `nnx.RNN`; `rngs` give the masks' keys too if they have a stream "dropout".

        Args:
            inputs: (batch, time, features), or as the cell and `time_major` say.
            deterministic: overrides the constructor's.
            rngs: overrides the constructor's.
            **how: what the call of `nnx.RNN` takes besides.

        Raises:
            DropkitValueError: neither the constructor nor the call said deterministic, or gave rngs.
        """
        streams = rngs if isinstance(rngs, nnx.Rngs) and "dropout" in rngs else None
        if _on(self.dropout, deterministic):
            major = how.get("time_major")
            major = self.time_major if major is None else major
            time = 0 if major else inputs.ndim - self.cell.num_feature_axes - 1
            rate, key = drawn(self.dropout, streams)
            share = sharing_too(self.dropout.share, (time,))
            inputs = dropout(inputs, rate, training=True, key=key, share=share, noise=self.dropout.noise)
        if not _on(self.recurrent_dropout, deterministic):
            return super().__call__(inputs, rngs=rngs, **how)
        _recurrent(self.cell, self.recurrent or None, self.recurrent_dropout)  # its rate may have been 0 before
        inside = _copy(self)
        axes: dict[Any, Any] = {Once: None, **self.state_axes}
        vars(inside).update(cell=self._masked(streams), state_axes=nnx.StateAxes(axes))
        return super(RNN, inside).__call__(inputs, rngs=rngs, **how)

    def _masked(self, rngs: Any) -> Any:
        """The cell, whose recurrent modules get a hidden state with noise."""
        drop, cell = self.recurrent_dropout, _copy(self.cell)
        found = drawn(drop, rngs)
        words = Once(jnp.asarray(words_of(found.key)))
        rate = found.rate if isinstance(found.rate, float) else Once(jnp.asarray(found.rate))
        for name in self.recurrent:
            vars(cell)[name] = Masked(getattr(cell, name), words, rate, drop)
        return cell


class Masked(nnx.Module):
    """A module whose inputs get noise of one key."""

    def __init__(self, inner: Any, words: Once, rate: Any, drop: Dropout) -> None:
        self.inner, self.words, self.rate = inner, words, rate
        self.share, self.noise = drop.share, drop.noise

    def __call__(self, hidden: jax.Array) -> jax.Array:
        """What the module makes of the hidden state with noise."""
        rate = self.rate[...] if isinstance(self.rate, nnx.Variable) else self.rate
        key = KeyWords(self.words[...])
        noisy = dropout(hidden, rate, training=True, key=key, share=self.share, noise=self.noise)
        out: jax.Array = self.inner(noisy)
        return out


def _copy(module: Any) -> Any:
    """A module of the same modules and variables, whose attributes may be set."""
    copy = object.__new__(type(module))
    vars(copy).update(vars(module))
    return copy


def _recurrent(cell: Any, given: Sequence[str] | None, drop: Dropout) -> tuple[str, ...]:
    """The names of a cell's recurrent modules, checked."""
    if isinstance(given, str):
        raise DropkitTypeError(f"recurrent must be a sequence of names, got {given!r}; write ({given!r},)")
    if given is None:
        given = next((names for kind, names in _RECURRENT.items() if isinstance(cell, kind)), ())
        if not given and not _zero(drop):
            raise DropkitValueError(
                f"which modules of {type(cell).__name__} see the hidden state is not known; name them, such as "
                "recurrent=('dense_h',), or leave out recurrent_dropout_rate"
            )
    missing = [name for name in given if not callable(getattr(cell, name, None))]
    if missing:
        raise DropkitValueError(f"{type(cell).__name__} has no module {missing[0]!r} to call; recurrent is {given!r}")
    return tuple(given)


def _on(drop: Dropout, deterministic: bool | None) -> bool:
    """Whether a call drops; where nothing can be, nobody has to say it."""
    if _zero(drop):
        return False
    return active(drop, deterministic)


def _zero(drop: Dropout) -> bool:
    return isinstance(drop.rate, float) and drop.rate == 0
