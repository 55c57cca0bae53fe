"""What can be said of a forward without running it: what a value may be, what is read, what gets a rate."""

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

ANY = "*"  # in a chain: one of the entries
DROPS = re.compile(r"drop|stochastic_?depth|surviv|keep_?prob", re.IGNORECASE)

Chain = tuple[str, ...]  # ("config", "layerdrop") is self.config.layerdrop or self.config["layerdrop"]


class At(NamedTuple):
    """A value that hangs on `self`."""

    chain: Chain


class Known(NamedTuple):
    """A value that is the same for every instance: a constant, a function, a module."""

    value: Any


Value = frozenset[Any]  # of At and Known: what an expression may be
NOTHING: Value = frozenset()


class Handed(NamedTuple):
    """A call that gets a rate."""

    function: str  # "F.dropout" where it is known, else as it is written
    known: bool  # whether it is a function that drops
    rates: frozenset[Chain]  # where the rate may come from
    numbers: frozenset[float]  # which it may be where it is written out
    source: str  # file and line


@dataclass
class Reading:
    """What a forward reads and hands on."""

    reads: set[Chain] = field(default_factory=set)
    handed: list[Handed] = field(default_factory=list)
    decides: set[Chain] = field(default_factory=set)  # of those that are read, what is compared, or drawn with
    called: set[str] = field(default_factory=set)  # methods of what hangs on self, by name
    whole: bool = True  # whether the source of all that belongs to the class was there

    def add(self, other: "Reading") -> None:
        """Both together."""
        self.reads |= other.reads
        self.handed += [call for call in other.handed if call not in self.handed]
        self.decides |= other.decides
        self.called |= other.called
        self.whole = self.whole and other.whole
