"""Several passes of a Keras model at one step, each with masks of its own."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from ..errors import DropkitTypeError, DropkitValueError
from ..turns import NESTED, passes_checked
from . import blocks, engine
from .base import Keyed
from .paths import walk
from .state import Clock


@contextmanager
def passes(model: keras.Layer, n: int) -> Iterator[Iterator[int]]:
    """n passes through a model at one step, whose masks differ: two views of a batch, as SimCSE and R-Drop ask.

    Pass 0 draws what the step draws without this; pass j > 0 draws at the site `path@j`: the masks of
    `dropkit.torch.passes`. All n are one step of a bound model's clock. It works in a `train_step`, in the `call` of a
    layer or model that runs another one several times, and around calls by hand. On JAX the block stands inside of a
    function that is compiled; and in a `train_step` there, each `stateless_call` gets the non-trainable variables that
    the one before it gave.

    Args:
        model: a model or layer with dropkit layers in it, bound or not. What other dropkit layers run in the block draw
            by the pass too.
        n: how many, at least 1.

    Returns:
        A context whose value yields 0, 1, ... n - 1; the calls of pass j belong into turn j of the loop.

    Raises:
        DropkitTypeError: not a Keras layer; n is no integer.
        DropkitValueError: n below 1; no dropkit layer in the model; a block inside another.
        DropkitRuntimeError: on JAX, a compiled function that is called inside the block.

    Sources: Gao et al. 2021 (SimCSE, arXiv:2104.08821); Liang et al. 2021 (R-Drop, arXiv:2106.14448).

    >>> import dropkit
    >>> model = dropkit.keras.bind(keras.Sequential([keras.Input((64,)), dropkit.keras.Dropout(0.5)]), seed=1)
    >>> with passes(model, 2) as each:
    ...     first, second = [model(keras.ops.ones((4, 64)), training=True) for _ in each]
    >>> bool(keras.ops.all(keras.ops.equal(first, second)))
    False
    """
    n = passes_checked(n)
    counts = [_Counts(clock) for clock in _clocks(model)]
    each = _each(counts, n)
    try:
        yield each
    finally:
        each.close()  # a loop that was left early is still in its pass
        for count in counts:
            count.end()


def _each(counts: "list[_Counts]", n: int) -> Generator[int, None, None]:
    turns = blocks.Turns(engine.tracing())
    for number in range(n):
        turns.next()
        for count in counts:
            count.begin()
        with blocks.saying(turn=number, turns=turns):
            yield number


class _Counts:
    """Draws of a model's layers in a forward that runs around the block: each pass counts them from the same number."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.start = self._now() or [0] * len(clock.members)
        self.most = self.start

    def _now(self) -> list[int] | None:
        """How many draws there were in the running forward; None if it has not been counted."""
        forward = engine.current_forward()
        if forward is None or self.clock.counted() is not forward:
            return None
        return [member.count for member in self.clock.members]

    def begin(self) -> None:
        """As at the first pass."""
        self._set(self.start)

    def end(self) -> None:
        """On from the longest pass."""
        self._set(None)

    def _set(self, counts: list[int] | None) -> None:
        now = self._now()
        if now is not None:
            self.most = list(map(max, self.most, now))
            for member, count in zip(self.clock.members, counts or self.most, strict=True):
                member.count = count


def _clocks(model: Any) -> list[Clock]:
    if not isinstance(model, keras.Layer):
        raise DropkitTypeError(f"passes needs a Keras model or layer, got {type(model).__name__}")
    if blocks.said().turn is not None:  # one name would be two draws
        raise DropkitValueError(NESTED.format(what="model"))
    clocks = {id(layer.seed_generator.clock): layer.seed_generator.clock
              for _, layer in walk(model) if isinstance(layer, Keyed)}  # fmt: skip
    if not clocks:
        raise DropkitValueError(
            f"no dropkit layer in {model.name!r}, so that every call has masks of its own anyway: dropkit.keras.swap "
            "and dropkit.keras.bind make passes repeatable"
        )
    return list(clocks.values())
