"""Dropouts that layers of other kinds hold: those of attention weights, and of what a recurrent cell reads.

Each is a `Dropout` of its own among the layers of its holder, under the name that Keras gives its rate. So `bind` names
it by its path ("read/lstm_cell/recurrent_dropout"), and what knows dropouts knows it: rates that move, blocks, files.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import DropkitRuntimeError, DropkitTypeError
from .layers import Dropout
from .rates import encode_rate
from .receipt import attach, detach

_SAVED = ("seed", "site", "bound", "when", "noise", "share")


class _Calls(threading.local):
    """Which holders run here, and what Keras' code is told of their rates meanwhile."""

    told: tuple[tuple[Any, Mapping[str, float]], ...] = ()


_calls = _Calls()


@contextmanager
def telling(holder: Any, rates: Mapping[str, float]) -> Iterator[None]:
    """Inside, Keras' code reads these numbers as rates of a holder.

    It asks whether they lie between 0 and 1, and leaves dropout out of the program if not. But our rates are data, and
    a program has to be right for every value.
    """
    before = _calls.told
    _calls.told = ((holder, rates), *before)
    try:
        yield
    finally:
        _calls.told = before


def told(holder: Any) -> bool:
    """Whether Keras' code runs inside `telling` for this holder."""
    return any(running is holder for running, _ in _calls.told)


class Rate:
    """A rate of a holder: that of the dropout it holds.

    Args:
        name: what Keras calls it.
        held: the attribute with the dropout.
    """

    def __init__(self, name: str, held: str) -> None:
        self.name, self.held = name, held

    def __get__(self, holder: Any, owner: Any = None) -> Any:
        if holder is None:
            return self
        for running, rates in _calls.told:
            if running is holder:
                return rates.get(self.name, 0.0)
        drop = getattr(holder, self.held, None)
        made = holder.__dict__.get(self.name, 0.0)
        return drop.rate if isinstance(drop, Dropout) and made else made

    def __set__(self, holder: Any, value: Any) -> None:
        made = holder.__dict__.get(self.name, 0.0)
        drop = getattr(holder, self.held, None)
        if isinstance(drop, Dropout):
            drop.rate = value
        elif isinstance(holder, Holder) and holder.__dict__.get("_ready") and encode_rate(self.name, value):
            whose = getattr(holder, "name", "")
            raise DropkitRuntimeError(
                f"{self.name} of {whose!r} was 0 when it was made, so that nothing drops there, got "
                f"{value!r}: make it with a {self.name} above 0; it can be moved to 0 and back afterwards"
            )
        holder.__dict__[self.name] = made or float(value)


class Holder:
    """A layer that holds dropouts. Comes before Keras' class among the bases.

    What is in its `__dict__` under the name of a rate is the rate that it was made with: 0 says that nothing is held.
    """

    held_as: Mapping[str, str] = {"dropout": "_dropout_layer"}  # rate: attribute

    def take_over(self, seed: Any, site: Any, when: str, prefix: str | None = None) -> None:
        """Make the dropouts in place of Keras' generator, if there is one; comes after Keras' `__init__`."""
        layer: Any = self
        if getattr(layer, "seed_generator", None) is not None:
            detach(layer, "seed_generator")
        layer.seed = seed
        for name, attribute in self.held_as.items():
            made = layer.__dict__.get(name, 0.0)
            if made or self._always_held:
                drop = made_drop(self, name, made, seed, site, when, prefix)
                attach(self, attribute, drop)
        layer.__dict__["_ready"] = True

    _always_held = False

    @property
    def drops_at_all(self) -> bool:
        """Whether it was made with a rate above 0."""
        return any(self.__dict__.get(name) for name in self.held_as)

    @property
    def drops(self) -> dict[str, Dropout]:
        """The dropouts that it holds, by the names of their rates."""
        found = {name: getattr(self, attribute, None) for name, attribute in self.held_as.items()}
        return {name.lstrip("_"): drop for name, drop in found.items() if isinstance(drop, Dropout)}

    def get_config(self) -> dict[str, Any]:
        """Keras' own, the rates as they are now, and what else the dropouts were told."""
        config: dict[str, Any] = super().get_config()  # type: ignore[misc]
        for name, drop in self.drops.items():
            if name in config and self.__dict__.get(name, self.__dict__.get(f"_{name}")):
                config[name] = float(drop.rate)
        return {**config, **saved_drops(self)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """A layer from what `get_config` gave."""
        config = dict(config)
        saved = config.pop("drops", {})
        layer = super().from_config(config)  # type: ignore[misc]
        retell(layer, saved)
        return layer


def made_drop(
    holder: Any, name: str, rate: float, seed: Any, site: Any, when: str, prefix: str | None = None
) -> Dropout:
    """A dropout for a holder; without a site it is named after both, so that no two holders of one seed draw alike."""
    label = name.lstrip("_")
    if site is not None and not isinstance(site, int | str):
        raise DropkitTypeError(f"site must be a name or a number, got {site!r}")
    own = None if site is None else f"{site}/{label}"
    drop = Dropout(rate, seed=seed, site=own, when=when, name=label, dtype=holder.dtype_policy)
    if own is None and seed is not None:
        drop.seed_generator.site = f"{prefix or holder.name}/{label}"
    return drop


def saved_drops(holder: Holder) -> dict[str, Any]:
    """What a config of a holder says of the dropouts in it."""
    saved = {
        name: {key: value for key, value in drop.get_config().items() if key in _SAVED}
        for name, drop in holder.drops.items()
    }
    return {"drops": saved} if saved else {}


def retell(holder: Holder, saved: Mapping[str, Any]) -> None:
    """The dropouts of a holder as a config says."""
    for name, attribute in holder.held_as.items():
        label, old = name.lstrip("_"), getattr(holder, attribute, None)
        if label in saved and isinstance(old, Dropout):
            new = Dropout.from_config(
                {**saved[label], "rate": float(old.rate), "name": label, "dtype": old.dtype_policy}
            )
            if not new.seed_generator.keyed:
                new.seed_generator.site = old.seed_generator.site
            detach(holder, attribute)
            attach(holder, attribute, new)


def check_rates(**rates: Any) -> None:
    """Refuse what is no rate; Keras' own recurrent layers take any number and cut it off."""
    for name, rate in rates.items():
        encode_rate(name, rate)
