"""Keyed models: every dropout named by its path, one seed, and steps counted in the model's own state."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import jax.numpy as jnp

from ..counter import Key, site_id
from ..errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from .keys import names_in_stack
from .traces import draws_by_hand, lanes

if TYPE_CHECKING:
    from flax import nnx

    from .nnx import Dropout

Model = TypeVar("Model")


def bind(model: Model, seed: int = 0, **how: Any) -> Model:
    """Make a model's masks a function of (seed, path, step): the same on any device, resumable, no keys to hand on.

    A flax.nnx model: every dropkit dropout in it is named by its path, such as "blocks.0.drop", and its stream counts
    the layer's own training calls from 0: its n-th call is step n. Seed, site and step are the stream's `key` and
    `count`, so they are in `nnx.state(model)`, in its checkpoints, and in what `nnx.split` and `nnx.jit` carry. A stack
    of layers made by `nnx.vmap` has the sites "blocks.drop.0", "blocks.drop.1", ... `rngs` given to a call still win.

    An Equinox model: see `dropkit.jax.equinox.bind`; the result is another model, and takes its step from `with_step`.

    Args:
        model: an nnx.Module or an eqx.Module with dropkit dropouts in it.
        seed: an int in [0, 2**64).
        **how: for nnx `step`, the number of the first step, below 2**32 (default 0); for Equinox `axis_name`.

    Returns:
        The same nnx model, or another Equinox model. Bound again, it starts over.

    Raises:
        DropkitValueError: no dropkit dropout in the model; a bad seed or step.
        DropkitTypeError: a model of neither library; a seed or step that is no integer.

    Warns:
        UserWarning: dropouts of another make stay unbound; they are named.

    >>> import dropkit
    >>> from flax import nnx
    >>> from dropkit.jax.nnx import Dropout
    >>> model = bind(nnx.Sequential(nnx.Linear(8, 8, rngs=nnx.Rngs(0)), Dropout(0.5)), seed=1)
    >>> first, second = model(jnp.ones((2, 8))), model(jnp.ones((2, 8)))
    >>> bool(((second != 0) == dropkit.keep((2, 8), 0.5, dropkit.Key(1, "layers.1", step=1))).all())
    True
    """
    if _is("equinox", "Module", model):
        from . import equinox

        return equinox.bind(model, seed, **how)
    if not _is("flax.nnx", "Module", model):
        raise DropkitTypeError(f"bind needs a flax.nnx.Module or an equinox.Module, got {type(model).__name__}")
    return _bind_nnx(model, seed, **how)


def _bind_nnx(model: Any, seed: int, step: int = 0) -> Any:
    from .streams import KeyedStream, first_step, keyed

    seed, first = Key(seed).seed, first_step(Key(step=step).step)
    if lanes():
        raise DropkitRuntimeError(
            "bind was called inside a vmap, where all of a stack would get one site; bind what the vmap returns"
        )
    named = sites(model)
    foreign = foreign_dropouts(model)
    if not named:
        found = f"it has others: {', '.join(foreign)}; dropkit.jax.swap it first" if foreign else "it has none"
        raise DropkitValueError(f"no dropkit dropout to bind in {type(model).__name__}: {found}")
    if foreign:
        warnings.warn(
            "bind leaves dropouts unbound that are not dropkit's, and they need rngs as before: "
            f"{', '.join(foreign)}; dropkit.jax.swap takes over what it can",
            stacklevel=3,
        )
    for path, drop in named.items():
        stack = drop.stack
        key = keyed([site_id(name) for name in names_in_stack(path, stack)], seed).reshape(stack)
        drop.rngs = KeyedStream(key, tag=drop.rng_collection, site=path, stack=stack)
        drop.rngs.count.set_value(jnp.full(stack, first, jnp.uint32))
    return model


@contextmanager
def at(model: "nnx.Module", *, step: int | None = None, seed: int | None = None) -> Iterator[None]:
    """Within the block a bound nnx model draws its masks from this step on, of this seed; afterwards all is as it was.

    The step is written into the model's state, which is data: a compiled function sees it.

    Args:
        model: what `bind` returned; use it outside of traces.
        step: number of the next step; by default the running one.
        seed: another seed; by default the model's.

    Raises:
        DropkitValueError: nothing in the model is bound; a bad seed or step.

    >>> from flax import nnx
    >>> from dropkit.jax.nnx import Dropout
    >>> model = bind(nnx.Sequential(Dropout(0.5)), seed=1)
    >>> first = model(jnp.ones(8))
    >>> with at(model, step=0):
    ...     again = model(jnp.ones(8))
    >>> bool((first == again).all())
    True
    """
    import jax

    from .streams import KeyedStream, first_step

    streams = [drop.rngs for drop in sites(model).values() if isinstance(drop.rngs, KeyedStream)]
    if not streams:
        raise DropkitValueError(f"this {type(model).__name__} is not bound; dropkit.jax.bind(model, seed=...) first")
    first = None if step is None else first_step(Key(step=step).step)
    number = None if seed is None else Key(seed).seed
    before = [(stream.key[...], stream.count[...]) for stream in streams]
    for stream, (key, count) in zip(streams, before, strict=True):
        if first is not None:
            stream.count.set_value(jnp.full_like(count, first))
        if number is not None:
            words = jax.random.key_data(key).at[..., 0].set(number >> 32).at[..., 1].set(number & 0xFFFFFFFF)
            stream.key.set_value(jax.random.wrap_key_data(words, impl="rbg"))
    try:
        yield
    finally:
        for stream, (key, count) in zip(streams, before, strict=True):
            stream.key.set_value(key)
            stream.count.set_value(count)


def sites(model: "nnx.Module") -> dict[str, "Dropout"]:
    """The dropkit dropouts of an nnx model by their paths in it; one that is at two places has the first.

    >>> from flax import nnx
    >>> from dropkit.jax.nnx import Dropout
    >>> list(sites(nnx.Sequential(Dropout(0.5), Dropout(0.1))))
    ['layers.0', 'layers.1']
    """
    from flax import nnx

    from .nnx import Dropout

    found = [(path, part) for path, part in nnx.iter_modules(model) if isinstance(part, Dropout)]
    return {".".join(map(str, path)): part for path, part in found}


def foreign_dropouts(model: "nnx.Module") -> list[str]:
    """What else drops in the model, by path: flax's own layers, Linen's among them, and hand-written ones."""
    found: list[str] = []
    from flax import nnx

    for path, part in nnx.iter_modules(model):
        if (kind := _drops(part)) is not None:
            found.append(f"{'.'.join(map(str, path)) or type(part).__name__} ({kind})")
    return found


def _drops(part: Any) -> str | None:
    """As what a module that is not dropkit's drops; None if it does not."""
    from flax import nnx

    from .nnx import Dropout
    from .nnx.attention import attends

    if isinstance(part, nnx.Dropout):
        return None if isinstance(part, Dropout) or _never(part.rate) else type(part).__name__
    if isinstance(part, nnx.MultiHeadAttention):
        return None if attends(part) or _never(part.dropout_rate) else type(part).__name__
    if isinstance(part, nnx.bridge.ToNNX):
        linen = type(part.to_nnx__module)
        return "flax.linen.Dropout" if linen.__name__ == "Dropout" else None
    return "jax.random.bernoulli" if draws_by_hand(type(part)) else None


def _never(rate: Any) -> bool:
    return isinstance(rate, int | float) and rate == 0


def kind_of(model: Any) -> str:
    """Of which library it is: "nnx", "linen", "equinox", or "" for none of them."""
    known = {"nnx": "flax.nnx", "linen": "flax.linen", "equinox": "equinox"}
    return next((kind for kind, module in known.items() if _is(module, "Module", model)), "")


def _is(module: str, name: str, value: Any) -> bool:
    """Whether it is an instance of a library's class, without importing the library."""
    return module in sys.modules and isinstance(value, getattr(sys.modules[module], name))
