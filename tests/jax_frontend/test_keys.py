"""The words that key a mask, from Python's coordinates, from traced ones and from JAX's own keys."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropkit import DropkitError, Key, keep
from dropkit.counter import philox4x32
from dropkit.jax import KeyWords, dropout, key

BIG = 2**63 + 12345


def words(given: KeyWords) -> tuple[int, ...]:
    return tuple(np.asarray(given.words).tolist())


def kept(given: Any, shape: tuple[int, ...] = (64,)) -> np.ndarray:
    return np.asarray(dropout(jnp.ones(shape), 0.5, training=True, key=given)) != 0


@pytest.mark.parametrize(("seed", "site", "step"), [(0, 0, 0), (BIG, "encoder.drop", 7), (1, BIG, BIG), (2**32, 5, 9)])
def test_python_coordinates(seed: int, site: int | str, step: int) -> None:
    assert words(key(seed, site, step)) == Key(seed, site, step).words


def test_traced_coordinates() -> None:
    traced = jax.jit(lambda seed, site, step: key(seed, site, step).words)
    assert tuple(traced(3, 4, 5).tolist()) == Key(3, 4, 5).words
    only_step = jax.jit(lambda step: key(BIG, "name", step).words)
    for step in (jnp.uint32(2**32 - 1), jnp.int32(2**31 - 1), jnp.int8(5), np.uint16(9)):
        assert tuple(only_step(step).tolist()) == Key(BIG, "name", int(step)).words
    assert only_step._cache_size() == 4  # one for each type


def test_traced_coordinates_of_64_bits() -> None:
    with jax.enable_x64(True):
        traced = jax.jit(lambda step: key(1, "name", step).words)
        for step in (jnp.uint64(BIG), jnp.int64(2**40 + 3)):
            assert tuple(traced(step).tolist()) == Key(1, "name", int(step)).words


def test_arrays_that_are_known_are_checked() -> None:
    assert words(key(1, 2, jnp.int32(3))) == Key(1, 2, 3).words
    with pytest.raises(DropkitError, match=r"step must lie in \[0, 2\*\*64\), got -3"):
        key(1, 2, jnp.int32(-3))


def test_a_mapped_step() -> None:
    mapped = jax.vmap(lambda step: key(1, "name", step))(jnp.arange(3))
    assert [tuple(row) for row in mapped.words.tolist()] == [Key(1, "name", step).words for step in range(3)]


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey], ids=["typed", "raw"])
def test_a_prng_key_is_a_seed(make: Any) -> None:
    np.testing.assert_array_equal(kept(make(7)), keep((64,), 0.5, Key(7)))
    one = jax.random.split(make(7))[1]
    high, low = np.asarray(jax.random.key_data(one) if make is jax.random.key else one).tolist()
    np.testing.assert_array_equal(kept(one), keep((64,), 0.5, Key(high << 32 | low)))
    assert words(key(make(7), "site", 3)) == Key(7, "site", 3).words
    assert tuple(jax.jit(lambda k, step: key(k, "site", step).words)(make(7), 3).tolist()) == Key(7, "site", 3).words


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_a_prng_key_of_four_words(impl: str) -> None:
    given = jax.random.split(jax.random.key(7, impl=impl))[0]
    low, high, _, _ = philox4x32(tuple(np.asarray(jax.random.key_data(given)).tolist()), (0, 0), 10)
    np.testing.assert_array_equal(kept(given), keep((64,), 0.5, Key(high << 32 | low)))


def test_split_keys_give_different_masks() -> None:
    keys = jax.random.split(jax.random.key(0), 64)
    masks = np.asarray(jax.vmap(lambda k: dropout(jnp.ones(64), 0.5, training=True, key=k))(keys)) != 0
    assert len({mask.tobytes() for mask in masks}) == 64


def test_key_words_travel_through_scan() -> None:
    def step(carry: KeyWords, x: jax.Array) -> tuple[KeyWords, jax.Array]:
        return carry, dropout(x, 0.5, training=True, key=carry)

    _, y = jax.lax.scan(step, key(1, "name", 2), jnp.ones((3, 64)))
    np.testing.assert_array_equal(np.asarray(y) != 0, np.broadcast_to(keep((64,), 0.5, Key(1, "name", 2)), (3, 64)))


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        (None, ValueError, "JAX has no ambient generator to draw a key from; pass key=dropkit.Key"),
        (7, TypeError, r"key must be a dropkit.Key .* got 7"),
        (jnp.ones(2), TypeError, r"a dropkit.Key or a JAX PRNG key, but got an array of float32 and shape \(2,\)"),
        (jnp.uint32(3), TypeError, r"but got an array of uint32 and shape \(\)"),
        (jnp.zeros(3, jnp.uint32), ValueError, r"must have 2 or 4 words, got shape \(3,\)"),
        (
            jax.random.split(jax.random.key(0), 8),
            ValueError,
            r"one PRNG key, got an array of shape \(8,\); use jax.vmap",
        ),
    ],
)
def test_what_is_no_key(given: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        dropout(jnp.ones(3), 0.5, training=True, key=given)
    assert isinstance(caught.value, DropkitError)


@pytest.mark.parametrize(
    ("coordinates", "error", "match"),
    [
        ((-1,), ValueError, r"seed must lie in \[0, 2\*\*64\), got -1"),
        ((0, 1.5), TypeError, "site must be an integer or a name, got 1.5"),
        ((0, 0, jnp.ones(())), TypeError, "step must be an integer, got an array of float32"),
        ((0, 0, jnp.arange(3)), ValueError, r"step must be one number, got an array of shape \(3,\); use jax.vmap"),
        ((jax.random.split(jax.random.key(0)), 0, 0), ValueError, "one PRNG key"),
    ],
)
def test_what_is_no_coordinate(coordinates: tuple[Any, ...], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        key(*coordinates)
    assert isinstance(caught.value, DropkitError)


def test_steps_that_are_counted_into_programs_are_told_of() -> None:
    """A Python int in a key is a part of the program: a loop over steps compiles at each."""

    def run(step: int) -> None:
        jax.jit(lambda x: dropout(x, 0.5, training=True, key=Key(77, "counted", step)))(jnp.ones(8))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in (0, 1, 2, 9, 9, 5):
            run(step)
        jax.jit(  # one program of several steps
            lambda x: [dropout(x, 0.5, training=True, key=Key(77, "unrolled", step)) for step in range(6)]
        )(jnp.ones(8))
        for step in range(6):  # none
            dropout(jnp.ones(8), 0.5, training=True, key=Key(77, "eager", step))
        run(6), run(7)
    with pytest.warns(UserWarning, match=r"site 'counted' has had another Python int as step in each of 4 programs"):
        run(8)
