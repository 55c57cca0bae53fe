"""Steps and keys of layers whose state JAX traces: each a jitted function, traced once for all sites of a program.

A state is the five words of `dropkit.keras.state.Draws`. What a program costs to compile goes with its operations, so
the layers that count together begin a step and fold their keys in one call, as vectors with an entry for each.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..counter import FOLD_ROUNDS, MASK32
from ..jax.formula import philox4x32


class Words(NamedTuple):
    """What decides a noise, traced: the two words of the key, uint32 of shape (2,), and the level, a uint32."""

    key: Any
    level: Any


def begin(states: Sequence[Any], sites: Sequence[int]) -> list[tuple[Any, Words]]:
    """States after the beginning of a step, and what their first draws in it are at these sites."""
    numbers = np.array([_halves(site) for site in sites], np.uint32)
    after, keys, levels = _begin(tuple(states), numbers)
    return [(state, Words(key, level)) for state, key, level in zip(after, keys, levels, strict=True)]


def advanced(state: Any) -> Any:
    """A state after the beginning of a step."""
    return _advanced(state)


def drawn(state: Any, site: int, seed: int | None = None, step: int | None = None, behind: int = 0) -> Words:
    """What a draw is at a site in the step that was begun, or steps behind it, or under another seed or step."""
    halves = [None if number is None else np.array(_halves(number), np.uint32) for number in (site, seed, step)]
    return _drawn(state, *halves, np.uint32(1 + behind))


def _halves(number: int) -> tuple[int, int]:
    return number & MASK32, number >> 32


@partial(jax.jit, static_argnums=2)
def philox(counter: tuple[Any, ...], key: Any, rounds: int) -> tuple[Any, Any, Any, Any]:
    """`dropkit.counter.philox4x32` as one operation of the program around it."""
    low, high, group, domain = counter
    return philox4x32((low, high, group, domain), (key[0], key[1]), rounds)


@jax.jit
def _begin(states: tuple[Any, ...], sites: Any) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]:
    before = jnp.stack(states, axis=1)
    after = _counted(before)
    keys = _keys(before[::2][:2], sites.T, before[1:4:2])  # the step is the count before
    count = range(len(states))
    return tuple(after[:, i] for i in count), tuple(keys[:, i] for i in count), tuple(before[4, i] for i in count)


@jax.jit
def _advanced(state: Any) -> Any:
    return _counted(state)


@jax.jit
def _drawn(state: Any, site: Any, seed: Any, step: Any, back: Any) -> Words:
    if step is None:
        low, high = state[1], state[3]
        step = (low - back, high - (low < back))
    return Words(_keys(state[:3:2] if seed is None else seed, site, step), state[4])


def _counted(state: Any) -> Any:
    """Five words, or columns of them, with a count that is one higher."""
    seed_low, low, seed_high, high, level = state
    low = low + jnp.uint32(1)
    return jnp.stack([seed_low, low, seed_high, high + (low == 0), level])


def _keys(seed: Any, site: Any, step: Any) -> Any:
    """The two words of `dropkit.counter.fold`; low words first, in each."""
    k0, k1, _, _ = philox4x32((site[0], site[1], step[0], step[1]), (seed[0], seed[1]), FOLD_ROUNDS)
    return jnp.stack([k0, k1])
