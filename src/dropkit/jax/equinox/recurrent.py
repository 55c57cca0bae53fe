"""Recurrent cells of Equinox whose input and recurrent masks are drawn once a sequence."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ..keys import AnyKey, folded, pair, words_of
from .layers import Dropout

_ZERO = pair(0)


class LSTMCell(eqx.nn.LSTMCell):
    """`eqx.nn.LSTMCell` with its signature, and dropout of the input and of the hidden state that its weights see.

    The cell gets `m_x * x / (1 - p_x)` and `m_h * h / (1 - p_h)`; its memory c is not dropped. In a bound model the key
    is that of seed, path and step, so that the masks of all steps of a sequence are one: those of
    `dropkit.keep((batch, features), p, key)`, of the sites `dropout` and `recurrent_dropout`. A key that is given does
    the same: give each call of a sequence the same one.

    Args:
        input_size, hidden_size, ...: those of `eqx.nn.LSTMCell`.
        dropout_p, recurrent_dropout_p: drop probabilities in [0, 1].
        inference: whether to drop nothing.
        key: for the weights' first values.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number.

    Sources: Gal and Ghahramani 2016 (arXiv:1512.05287); Keras' `dropout` and `recurrent_dropout`.

    >>> cell = LSTMCell(3, 4, dropout_p=0.5, key=jax.random.key(0))
    >>> h, c = cell(jnp.ones(3), (jnp.zeros(4), jnp.zeros(4)), key=jax.random.key(1))
    >>> h.shape
    (4,)
    """

    dropout: Dropout
    recurrent_dropout: Dropout

    def __init__(
        self, *sizes: Any, dropout_p: Any = 0.0, recurrent_dropout_p: Any = 0.0, inference: bool = False, **how: Any
    ):
        super().__init__(*sizes, **how)
        self.dropout, self.recurrent_dropout = Dropout(dropout_p, inference), Dropout(recurrent_dropout_p, inference)

    def __call__(
        self, input: jax.Array, hidden: Any, *, key: AnyKey | None = None, inference: bool | None = None
    ) -> Any:
        """The next hidden state and memory.

        Args:
            input: (input_size,).
            hidden: h and c, (hidden_size,) each.
            key: any key that `dropkit.jax.dropout` takes; the same for all steps of a sequence.
            inference: overrides the constructor's.

        Raises:
            DropkitRuntimeError: neither a key nor a step.
        """
        h, c = hidden
        noisy = _noisy(self, input, h, key, inference)
        return super().__call__(noisy[0], (noisy[1], c))


class GRUCell(eqx.nn.GRUCell):
    """`eqx.nn.GRUCell` with its signature, and dropout of the input and of the hidden state that its weights see.

    Arguments and masks are those of `LSTMCell`. The share of its state that the cell keeps is not dropped.

    Sources: Gal and Ghahramani 2016 (arXiv:1512.05287); Keras' `dropout` and `recurrent_dropout`.

    >>> cell = GRUCell(3, 4, recurrent_dropout_p=0.5, key=jax.random.key(0))
    >>> cell(jnp.ones(3), jnp.ones(4), key=jax.random.key(1)).shape
    (4,)
    """

    dropout: Dropout
    recurrent_dropout: Dropout

    def __init__(
        self, *sizes: Any, dropout_p: Any = 0.0, recurrent_dropout_p: Any = 0.0, inference: bool = False, **how: Any
    ):
        super().__init__(*sizes, **how)
        self.dropout, self.recurrent_dropout = Dropout(dropout_p, inference), Dropout(recurrent_dropout_p, inference)

    def __call__(
        self, input: jax.Array, hidden: jax.Array, *, key: AnyKey | None = None, inference: bool | None = None
    ) -> jax.Array:
        """The next hidden state; arguments and errors are those of `LSTMCell`.

        Args:
            input: (input_size,).
            hidden: (hidden_size,).
            key: any key that `dropkit.jax.dropout` takes; the same for all steps of a sequence.
            inference: overrides the constructor's.
        """
        x, seen = _noisy(self, input, hidden, key, inference)
        if seen is hidden:  # nothing was drawn for it
            out: jax.Array = super().__call__(x, hidden)
            return out
        from_input = self.weight_ih @ x
        if self.bias is not None:
            from_input = from_input + self.bias
        reset_x, keep_x, new_x = jnp.split(from_input, 3)
        reset_h, keep_h, new_h = jnp.split(self.weight_hh @ seen, 3)
        if self.bias_n is not None:
            new_h = new_h + self.bias_n
        new = jnp.tanh(new_x + jax.nn.sigmoid(reset_x + reset_h) * new_h)
        return new + jax.nn.sigmoid(keep_x + keep_h) * (hidden - new)


def _noisy(
    cell: Any, x: jax.Array, h: jax.Array, key: AnyKey | None, inference: bool | None
) -> tuple[jax.Array, jax.Array]:
    """Input and hidden state with noise; a key that is given is a seed, whose sites are 0 and 1."""
    keys: list[AnyKey | None] = [None, None]
    if key is not None and (cell.dropout.active(inference) or cell.recurrent_dropout.active(inference)):
        words = words_of(key)
        keys = [folded((words[0], words[1]), pair(site), _ZERO) for site in (0, 1)]
    noisy = cell.dropout(x, key=keys[0], inference=inference)
    return noisy, cell.recurrent_dropout(h, key=keys[1], inference=inference)
