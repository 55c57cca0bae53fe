"""Which two words key a mask: those of a `dropkit.Key`, of coordinates that JAX computes, or of a JAX PRNG key."""

import warnings
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import choice
from ..counter import FOLD_ROUNDS, MASK32, Key, site_id
from ..errors import DropkitTypeError, DropkitValueError
from .formula import Pair, philox4x32
from .traces import Counted

_fold = choice.fold()
_counted = Counted()
_ZERO = (np.uint32(0), np.uint32(0))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KeyWords:
    """The two words that the generator takes as key, folded from seed, site and step: a pytree of one array.

    Args:
        words: uint32, shape (2,).

    >>> KeyWords(jnp.array([7, 9], jnp.uint32)).words.shape
    (2,)
    """

    words: Any


AnyKey = Key | KeyWords | jax.Array


def key(seed: Any, site: Any = 0, step: Any = 0) -> KeyWords:
    """The key of a mask from coordinates that may be JAX's: `philox4x32-10(counter=(site, step), key=seed)`.

    Args:
        seed: an int in [0, 2**64), an integer scalar of JAX, or a JAX PRNG key (see `dropout`).
        site: an int in [0, 2**64), a name, or an integer scalar of JAX.
        step: an int in [0, 2**64) or an integer scalar of JAX; traced, it is data, and another one compiles nothing.

    Returns:
        What `dropout` takes as key: the words of `dropkit.Key(seed, site, step)`.

    Raises:
        DropkitValueError: a number outside [0, 2**64) (which cannot be seen of a traced one), an array of several.
        DropkitTypeError: not an integer.

    >>> from dropkit import Key
    >>> traced = jax.jit(lambda step: key(1, "drop", step).words)
    >>> traced(7).tolist() == list(Key(1, "drop", 7).words)
    True
    """
    parts = {"seed": seed, "site": site, "step": step}
    if not any(isinstance(value, jax.Array) for value in parts.values()):
        return KeyWords(_host_words(Key(seed, site, step)))
    return folded(*(halves(name, value) for name, value in parts.items()))


def folded(seed: Pair, site: Pair, step: Pair) -> KeyWords:
    """`key` from low and high words, which may be traced."""
    return KeyWords(_device_words(seed, site, step))


def pair(number: int) -> Pair:
    """The low and the high word of a number below 2**64."""
    return np.uint32(number & MASK32), np.uint32(number >> 32)


def names_in_stack(path: str, stack: tuple[int, ...]) -> list[str]:
    """The sites of a stack of layers, in C order: "drop.0", "drop.1"; of a single one, its path.

    >>> names_in_stack("drop", ()), names_in_stack("drop", (2,))
    (['drop'], ['drop.0', 'drop.1'])
    """
    return [".".join(map(str, (*([path] if path else []), *index))) for index in np.ndindex(stack)]


def words_of(given: Any) -> Any:
    """The two words of whatever `dropout` takes as key, uint32, shape (2,)."""
    if isinstance(given, Key):
        if _counted.notes((given.seed, given.site), given.step):
            warnings.warn(
                f"the key of site {given.site!r} has had another Python int as step in each of {_counted.programs} "
                f"programs, up to {given.step}, and each was traced and compiled anew; make the step an argument of "
                "the jitted function, an array, and the key dropkit.jax.key(seed, site, step)",
                stacklevel=4,  # who called `dropout`
            )
        return _host_words(given)
    if isinstance(given, KeyWords):
        return given.words
    if isinstance(given, jax.Array):
        return _prng_words(_checked(given))
    if given is None:
        raise DropkitValueError(
            "JAX has no ambient generator to draw a key from; pass key=dropkit.Key(seed, site, step), "
            "dropkit.jax.key(seed, site, step) with a traced step, or a JAX PRNG key"
        )
    raise DropkitTypeError(
        f"key must be a dropkit.Key such as Key(seed=0, site='drop', step=0), what dropkit.jax.key returns, or a JAX "
        f"PRNG key; got {given!r}"
    )


def prng_seed(given: jax.Array) -> Pair:
    """The seed, low and high word, that a JAX PRNG key stands for.

    Two words (threefry) are the seed itself, high word first, so that `jax.random.key(7)` is seed 7. Four (rbg) are
    mixed into two, `philox4x32-10(counter=words, key=0)`.
    """
    words = jax.random.key_data(given) if _typed(given) else given
    if words.shape == (2,):
        return words[1], words[0]
    if words.shape == (4,):
        return philox4x32((words[0], words[1], words[2], words[3]), _ZERO, FOLD_ROUNDS)[:2]
    raise DropkitValueError(f"a JAX PRNG key must have 2 or 4 words, got shape {words.shape}")


def _typed(given: jax.Array) -> bool:
    return bool(jnp.issubdtype(given.dtype, jax.dtypes.prng_key))


def _checked(given: jax.Array) -> jax.Array:
    """A PRNG key, typed or raw, and a single one."""
    if not _typed(given) and (given.dtype != jnp.uint32 or given.ndim != 1):
        raise DropkitTypeError(
            f"key must be a dropkit.Key or a JAX PRNG key, but got an array of {given.dtype} and shape {given.shape}"
        )
    if _typed(given) and given.ndim:
        raise DropkitValueError(f"key must be one PRNG key, got an array of shape {given.shape}; use jax.vmap over it")
    return given


def _host_words(given: Key) -> Any:
    return np.array(_fold(given.seed, site_id(given.site), given.step), np.uint32)


@jax.jit
def _prng_words(given: jax.Array) -> jax.Array:
    return _device_words(prng_seed(given), _ZERO, _ZERO)


@jax.jit
def _device_words(seed: Pair, site: Pair, step: Pair) -> jax.Array:
    counter = (*(jnp.uint32(word) for word in site), *(jnp.uint32(word) for word in step))
    return jnp.stack(philox4x32(counter, (jnp.uint32(seed[0]), jnp.uint32(seed[1])), FOLD_ROUNDS)[:2])


def halves(name: str, value: Any) -> Pair:
    """The low and the high word of a coordinate, checked."""
    if not isinstance(value, jax.Array):
        number = site_id(value) if name == "site" else getattr(Key(**{name: value}), name)
        return pair(number)
    if name == "seed" and (_typed(value) or (value.dtype == jnp.uint32 and value.ndim == 1)):
        return prng_seed(_checked(value))
    if not jnp.issubdtype(value.dtype, jnp.integer):
        raise DropkitTypeError(f"{name} must be an integer, got an array of {value.dtype}")
    if value.ndim:
        raise DropkitValueError(f"{name} must be one number, got an array of shape {value.shape}; use jax.vmap over it")
    if not isinstance(value, jax.core.Tracer):
        return halves(name, int(value))
    if value.dtype.itemsize <= 4:
        return value.astype(jnp.uint32), np.uint32(0)
    return value.astype(jnp.uint32), (value >> 32).astype(jnp.uint32)
