"""Several passes of an nnx model at one step, each with masks of its own."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ..errors import DropkitTypeError, DropkitValueError
from ..turns import NESTED, passes_checked
from .binding import kind_of, sites

if TYPE_CHECKING:
    from flax import nnx

    from .streams import KeyedStream

_open: ContextVar[bool] = ContextVar("dropkit_jax_passes", default=False)


@contextmanager
def passes(model: "nnx.Module", n: int) -> Iterator[Iterator[int]]:
    """n passes through a bound nnx model at one step, whose masks differ: two views of a batch, for SimCSE and R-Drop.

    Pass 0 draws what the step draws without this; pass j > 0 draws at the site `name@j`: the masks of
    `dropkit.torch.passes`. After the block each layer has counted one pass. Keys and steps are written into the model's
    state, so the block may stand around a compiled function that takes the model, or inside one.

    An Equinox model is a value: `dropkit.jax.equinox.passes(model, n)` gives a model for each pass; and
    `dropkit.jax.linen.passes(seed, step, n)` the rngs for each.

    Args:
        model: a flax.nnx model that `dropkit.jax.bind` bound. Where `nnx.scan` or `nnx.vmap` go over a stack of layers,
            the block stands around them.
        n: how many, at least 1.

    Returns:
        A context whose value yields 0, 1, ... n - 1; the calls of pass j belong into turn j of the loop.

    Raises:
        DropkitTypeError: not an nnx.Module; n is no integer.
        DropkitValueError: n below 1; a model that is not bound, or reseeded since; a block inside another.

    Sources: Gao et al. 2021 (SimCSE, arXiv:2104.08821); Liang et al. 2021 (R-Drop, arXiv:2106.14448).

    >>> from flax import nnx
    >>> from dropkit.jax import bind
    >>> from dropkit.jax.nnx import Dropout
    >>> model = bind(nnx.Sequential(Dropout(0.5)), seed=1)
    >>> with passes(model, 2) as each:
    ...     first, second = [model(jnp.ones(64)) for _ in each]
    >>> bool((first == second).all()), int(model.layers[0].rngs.count[...])
    (False, 1)
    """
    n = passes_checked(n)
    turns = [_Turns(stream) for stream in _streams(model)]
    token = _open.set(True)
    each = _each(turns, n)
    try:
        yield each
    finally:
        _open.reset(token)
        each.close()
        for turn in turns:
            turn.end()


def _each(turns: "list[_Turns]", n: int) -> Generator[int, None, None]:
    for number in range(n):
        for turn in turns:
            turn.begin(number)
        yield number


class _Turns:
    """The stream of a layer: each pass begins at the step where the first one began, at a site of its own."""

    def __init__(self, stream: "KeyedStream") -> None:
        self.stream = stream
        self.key, self.start = stream.key[...], stream.count[...]
        self.furthest = self.start

    def begin(self, number: int) -> None:
        """The key of this pass, and the step of the first."""
        self._keep()
        self.stream.key.set_value(self.stream.key_in(number, self.key))
        self.stream.count.set_value(self.start)

    def end(self) -> None:
        """The model's own key, and the step where the longest pass ended."""
        self._keep()
        self.stream.key.set_value(self.key)
        self.stream.count.set_value(self.furthest)

    def _keep(self) -> None:
        self.furthest = jnp.maximum(self.furthest, self.stream.count[...])


def _streams(model: Any) -> "list[KeyedStream]":
    kind = kind_of(model)
    if kind != "nnx":
        others = {
            "equinox": ": a model of Equinox is a value, use dropkit.jax.equinox.passes(model, n)",
            "linen": ": a module of Linen has no state, use dropkit.jax.linen.passes(seed, step, n)",
        }
        raise DropkitTypeError(f"passes needs a flax.nnx.Module, got {type(model).__name__}{others.get(kind, '')}")
    if _open.get():  # one name would be two draws
        raise DropkitValueError(NESTED.format(what="model"))
    from .streams import KeyedStream

    streams = [drop.rngs for drop in sites(model).values() if isinstance(drop.rngs, KeyedStream)]
    if not any(stream.site is not None for stream in streams):
        raise DropkitValueError(
            f"this {type(model).__name__} is not bound, so that every call has masks of its own anyway: "
            "dropkit.jax.bind(model, seed=0) makes passes repeatable"
        )
    named = [stream for stream in streams if stream.site is not None]
    for stream in named:
        stream.key_in(1, stream.key[...])  # refuses here what it cannot name
    return named
