"""The state of a layer: seed, step and level in one variable, which compiled programs read and advance."""

import operator
import random
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.saving.keras_saveable import KerasSaveable

from .. import choice
from ..counter import MASK32, MASK64, Key, site_id
from ..errors import DropkitRuntimeError, DropkitValueError
from ..turns import in_pass
from . import bits, blocks, engine
from .draw import Draw

SAVED = "draws"  # the name of a keyed layer's state in weights files
_fold = choice.fold()


class Clock:
    """Layers that count together: each forward in which one of them drops is a step for all.

    Args:
        members: the states that advance.
    """

    def __init__(self, members: Iterable["Draws"]):
        self.members = tuple(members)
        self.counted: Callable[[], Any] = lambda: None  # the forward that was counted last, while it lives
        self.behind = 0  # steps by which the counted forward, one of several passes, lies behind the last one begun
        self._first: Any = weakref.WeakKeyDictionary()  # forward -> first draws in it, by member, where JAX traces them

    def enter(self, here: blocks.Said = blocks.NOTHING) -> None:
        """Count the running forward, unless it has been; under a given step only the draws in it are counted anew."""
        forward = engine.current_forward()
        if forward is None or forward is not self.counted():
            if forward is not None:
                self.counted = weakref.ref(forward)
            for member in self.members:
                member.count = 0
            behind = None if here.turns is None or here.step is not None else here.turns.behind(self)
            self.behind = behind or 0
            if here.step is None and behind is None:
                self._begin(forward)

    def _begin(self, forward: Any) -> None:
        """Begin a step, on JAX for all whose state is traced at once."""
        traced = [member for member in self.members if not member.advance_known()]
        if engine.backend() != "jax":
            for member in traced:
                member.advance_traced()
        elif traced:
            from . import jax_state

            begun = jax_state.begin(
                [member.state.value for member in traced], [site_id(member.site) for member in traced]
            )
            for member, (state, _) in zip(traced, begun, strict=True):
                member.state.assign(state)
            if forward is not None:
                firsts = ((member.state.value, words) for member, (_, words) in zip(traced, begun, strict=True))
                self._first[forward] = dict(zip(map(id, traced), firsts, strict=True))

    def first(self, member: "Draws") -> Any:
        """What a member draws at its own site first in the running forward, if its state is still that of then."""
        forward = engine.current_forward()
        firsts = {} if forward is None else self._first.get(forward, {})
        state, words = firsts.get(id(member), (None, None))
        return words if state is member.state.value else None


class Draws(keras.random.SeedGenerator, KerasSaveable):
    """Which noise comes next: a SeedGenerator, so that Keras carries its variable through fit, jit and stateless calls.

    The variable holds five words: the seed's low one, the count of steps begun (low), their high ones, and the level
    (drop probability or standard deviation in units of 2**-31). Keras counts it among a layer's variables and not
    among its weights. In weights files that of a keyed layer stands beside the weights, under a path of its own, where
    Keras' own layers do not look: files are exchanged with them both ways.

    Args:
        seed: an int in [0, 2**64), or None for one from the generator that `keras.utils.set_random_seed` governs.
        site: name or number of the dropout.
        level: of 2**31.
    """

    def __init__(self, seed: int | None, site: int | str = 0, level: int = 0, name: str | None = None):
        given = _checked_seed(seed)
        # Where Keras' own SeedGenerator finds its default: set_random_seed seeds it.
        drawn = random.randint(1, int(1e9)) if given is None else given
        self.name = name or "seed_generator"
        self.backend = keras.src.backend
        self._initial_seed = given
        self.site = site
        self.keyed = False  # by a site that was given, or bound: what is saved, so that a resumed run goes on
        self.count = 0  # draws in the running forward
        self.clock = Clock([self])
        start = np.array([drawn & MASK32, 0, drawn >> 32, 0, level], bits.DTYPE)
        self.state = keras.Variable(
            lambda *args, **kwargs: ops.convert_to_tensor(start, bits.DTYPE),
            shape=(5,),
            dtype=bits.DTYPE,
            trainable=False,
            aggregation="none",
            name="seed_generator_state",
        )

    @property
    def seed(self) -> int | None:
        """The seed as it was given."""
        return self._initial_seed

    def draw(self) -> Draw:
        """The next draw; it begins a step if this is the first one in the running forward."""
        here = blocks.said()
        self.clock.enter(here)
        behind = self.clock.behind
        first = self.count == 0 and here.site is here.seed is here.step is None and not (here.turn or behind)
        site = self.site if self.count == 0 else f"{self.site}#{self.count}"
        self.count += 1
        if here.site is not None:
            site = here.site
        site = in_pass(site, here.turn)
        now = engine.integers(self.state.value)
        if now is None:
            value = self.state.value
            if engine.backend() == "jax":
                from . import jax_state

                if here.turns is not None and here.step is None and not here.turns.traced:
                    raise DropkitRuntimeError(
                        "a function that JAX compiles was called inside of passes, whose steps it could not count: "
                        "open the block inside of the function (in fit, in train_step or call)"
                    )
                known = self.clock.first(self) if first else None
                key, level = known or jax_state.drawn(value, site_id(site), here.seed, here.step, behind)
                return Draw(key, level, None, here.rows)
            seed = (value[0], value[2]) if here.seed is None else _halves(here.seed)
            step = _before(value[1], value[3], 1 + behind) if here.step is None else _halves(here.step)
            return Draw(bits.fold(seed, site_id(site), step), value[4], None, here.rows)
        number = ((now[1] | now[3] << 32) - 1 - behind) & MASK64 if here.step is None else here.step
        key = Key(now[0] | now[2] << 32 if here.seed is None else here.seed, site, number)
        return Draw(_fold(key.seed, site_id(site), key.step), now[4], key, here.rows)

    def advance(self) -> None:
        """Begin a step."""
        self.count = 0
        if not self.advance_known():
            self.advance_traced()

    def advance_known(self) -> bool:
        """Begin a step where the numbers are known; False where they are not."""
        now = engine.integers(self.state.value)
        if now is None:
            return False
        after = ((now[1] | now[3] << 32) + 1) & MASK64
        self._assign([now[0], after & MASK32, now[2], after >> 32, now[4]])
        return True

    def advance_traced(self) -> None:
        """Begin a step in a program."""
        if engine.backend() == "jax":
            from . import jax_state

            self.state.assign(jax_state.advanced(self.state.value))
            return
        seed_low, low, seed_high, high, level = (self.state.value[i] for i in range(5))
        carry = ops.cast(ops.equal(low, bits.word(MASK32)), bits.DTYPE)
        one = bits.word(1)
        self.state.assign(
            ops.stack([seed_low, (low + one) & bits.word(MASK32), seed_high, (high + carry) & bits.word(MASK32), level])
        )

    def next(self, ordered: bool = True) -> Any:
        """A seed and a count for `keras.random`, as Keras' own generator gives; the count goes up by one."""
        value = self.state.value[:2] * bits.word(1)
        self.advance()
        return value

    def level(self) -> int | None:
        """The level, or None where it is traced, or in the hands of a running epoch."""
        now = engine.integers(self.state.value) if engine.attached(self.state) else None
        return None if now is None else now[4]

    def level_now(self) -> Any:
        """The level in the running forward: an int, or traced."""
        value = self.state.value
        return value[4] if engine.traced(value) else int(ops.convert_to_numpy(value)[4])

    def set_level(self, level: Any) -> None:
        """Another level, an int or traced; nothing is compiled again."""
        if not engine.attached(self.state):
            raise DropkitRuntimeError(
                "on JAX, Keras keeps the state of a running epoch apart from the model and would overwrite what is "
                "assigned now: in a callback, ask for `self.model` first, or leave it to dropkit.keras.RateSchedule"
            )
        now = engine.integers(self.state.value) if isinstance(level, int) else None
        if now is not None:
            self._assign([*now[:4], level])
            return
        last = ops.reshape(ops.cast(ops.convert_to_tensor(bits.word(level)), bits.DTYPE), (1,))
        self.state.assign(ops.concatenate([self.state.value[:4], last]))

    def rekey(self, seed: int, site: int | str, step: int) -> None:
        """Another seed, site and number of the next step; the level stays."""
        key = Key(seed, site, step)
        now = engine.integers(self.state.value)
        assert now is not None
        self._assign([seed & MASK32, key.step & MASK32, seed >> 32, key.step >> 32, now[4]])
        self._initial_seed, self.site, self.count = key.seed, key.site, 0

    def save_own_variables(self, store: Any) -> None:
        """The words of a keyed layer, so that a resumed run goes on with the next mask."""
        if self.keyed:
            store[SAVED] = ops.convert_to_numpy(self.state.value).astype(np.int64)

    def load_own_variables(self, store: Any) -> None:
        """The words, where this layer is keyed and the file has them."""
        if self.keyed and SAVED in store.keys():  # noqa: SIM118 - a store is no mapping
            self.state.assign(np.asarray(store[SAVED]).astype(bits.DTYPE))

    def _obj_type(self) -> str:
        return "Operation"  # to Keras' saving: something that has no parts of its own to look into

    def _assign(self, numbers: list[int]) -> None:
        self.state.assign(np.array(numbers, bits.DTYPE))

    def get_config(self) -> dict[str, Any]:
        """seed and site."""
        return {"seed": self._initial_seed, "site": self.site, "name": self.name}


def _halves(number: int) -> tuple[int, int]:
    return number & MASK32, number >> 32


def _before(low: Any, high: Any, steps: int) -> tuple[Any, Any]:
    """A number of two words less a small one."""
    borrow = ops.cast(ops.less(low, bits.word(steps)), bits.DTYPE)
    return (low - bits.word(steps)) & bits.word(MASK32), (high - borrow) & bits.word(MASK32)


def _checked_seed(seed: Any) -> int | None:
    if seed is None:
        return None
    try:
        number = operator.index(seed)
    except TypeError:
        # Keras reports the type as a ValueError too.
        raise DropkitValueError(f"Argument `seed` must be an integer. Received: seed={seed}") from None
    if not 0 <= number <= MASK64:
        raise DropkitValueError(f"Argument `seed` must lie in [0, 2**64). Received: seed={seed}")
    return number
