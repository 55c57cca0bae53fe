"""Philox4x32, the counter-based generator under every mask, and the folding of coordinates into its key.

A counter-based generator has no state: `philox(counter, key)` is a pure function, so any element of any mask can be
computed alone, in any order, on any machine.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11; known answers published
with Random123. Seven rounds are the fewest that passed BigCrush there, ten are the authors' default.
"""

import hashlib
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .errors import DropkitTypeError, DropkitValueError

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
MASK32 = 0xFFFFFFFF
MASK64 = 0xFFFFFFFFFFFFFFFF

FOLD_ROUNDS = 10
MASK_ROUNDS = 7


def wrapping_product(word: Any, multiplier: int) -> tuple[Any, Any]:
    """High and low 32 bits of a product of two 32-bit numbers, where integers wrap modulo 2**64 or do not end."""
    product = word * multiplier
    # A right shift of a negative int64 drags the sign in, so the high word is masked as well as the low one.
    return (product >> 32) & MASK32, product & MASK32


def wrapping_sum(word: Any, number: int) -> Any:
    """The low 32 bits of a sum of two 32-bit numbers."""
    return (word + number) & MASK32


def split_product(word: Any, multiplier: int) -> tuple[Any, Any]:
    """The same by halves of the multiplier, never past 2**49: for compilers that fold constants and do not wrap."""
    low, high = word * (multiplier & 0xFFFF), word * (multiplier >> 16)
    carry = (low >> 16) + high
    return carry >> 16, ((carry & 0xFFFF) << 16) | (low & 0xFFFF)


def philox4x32(
    counter: tuple[Any, Any, Any, Any],
    key: tuple[Any, Any],
    rounds: int,
    product: Callable[[Any, int], tuple[Any, Any]] = wrapping_product,
    plus: Callable[[Any, int], Any] = wrapping_sum,
) -> tuple[Any, Any, Any, Any]:
    """Philox4x32: four 32-bit words from four counter words and two key words.

    One round: `hi0:lo0 = M0 * c0`, `hi1:lo1 = M1 * c2`, then `c = (hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0)`; between
    rounds the key words grow by the Weyl constants.

    Args:
        counter: four words below 2**32. Python ints, or arrays of any library whose integers have 64 bits (NumPy
            uint64, torch int64): the products wrap modulo 2**64, and only their 64 bits are used.
        key: two words below 2**32, ints or arrays that broadcast against the counter.
        rounds: 7 for masks, 10 for folding keys.
        product: how to multiply a word by a 32-bit constant: high and low 32 bits.
        plus: how to add a 32-bit constant to a word: the low 32 bits. With these two, words may be of 32 bits.

    Returns:
        Four words below 2**32, of the counter's kind.

    >>> [hex(word) for word in philox4x32((0, 0, 0, 0), (0, 0), rounds=10)]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        high0, low0 = product(c0, MULTIPLIERS[0])
        high1, low1 = product(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = plus(k0, WEYL[0]), plus(k1, WEYL[1])
    return c0, c1, c2, c3


def site_id(site: int | str) -> int:
    """The 64-bit number of a site: an int as it is, a name as little-endian `blake2b(name, digest_size=8)`.

    >>> site_id(7), site_id("drop")
    (7, 7508919393090751231)
    """
    if isinstance(site, str):
        return _name_id(site)
    return _uint64("site", site)


@lru_cache(maxsize=4096)
def _name_id(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def fold(seed: int, site: int | str, step: int) -> tuple[int, int]:
    """The two key words of a mask: `philox4x32-10(counter=(site, step), key=seed)`, its first two words.

    >>> fold(1, "encoder.layers.0.dropout", 7)
    (1482149649, 1459989465)
    """
    number = site_id(site)
    counter = (number & MASK32, number >> 32, step & MASK32, step >> 32)
    k0, k1, _, _ = philox4x32(counter, (seed & MASK32, seed >> 32), FOLD_ROUNDS)
    return k0, k1


@dataclass(frozen=True, slots=True)
class Key:
    """The coordinates of a mask: which experiment, which dropout, which draw.

    Args:
        seed: the experiment, an int in [0, 2**64).
        site: the dropout in the model, an int in [0, 2**64) or a name.
        step: the draw at that site (training step, MC sample, ...), an int in [0, 2**64).

    Raises:
        DropkitValueError: a number outside [0, 2**64).
        DropkitTypeError: not an integer (or, for the site, not a name).

    >>> Key(seed=1, site="encoder.drop", step=7)
    Key(seed=1, site='encoder.drop', step=7)
    """

    seed: int = 0
    site: int | str = 0
    step: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", _uint64("seed", self.seed))
        object.__setattr__(self, "step", _uint64("step", self.step))
        if not isinstance(self.site, str):
            object.__setattr__(self, "site", _uint64("site", self.site))

    @property
    def words(self) -> tuple[int, int]:
        """The two 32-bit words that the generator takes as key."""
        return fold(self.seed, self.site, self.step)


def _uint64(name: str, value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        wanted = "an integer or a name" if name == "site" else "an integer"
        raise DropkitTypeError(f"{name} must be {wanted}, got {value!r} of type {type(value).__name__}") from None
    if not 0 <= number <= MASK64:
        raise DropkitValueError(f"{name} must lie in [0, 2**64), got {number}")
    return number
