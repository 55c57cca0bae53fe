"""A strategy as a function of one's own gets it."""

import re
from collections.abc import Sequence
from typing import Any

from ...axes.rate import Constant, Rate, Step
from ...errors import DropkitTypeError, DropkitValueError
from ...visible import one_line

LONGEST = 100
NONE, FIXED, STEP = "none", "fixed", "step"
START, DROP, FLOOR = 0.5, 0.1, 0.1  # of the strategy "step", as recipes have it


class Chosen(str):
    """A strategy: its text, so that it can be compared with one; and what is in it.

    Args:
        text: any name, with numbers or words behind colons.

    >>> strategy = Chosen("fixed:0.3")
    >>> strategy == "fixed:0.3", strategy.name, strategy.values, strategy.p()
    (True, 'fixed', (0.3,), 0.3)
    >>> Chosen("none").p(), Chosen("step:100").p(step=250)
    (0.0, 0.3)
    """

    @property
    def name(self) -> str:
        """What stands before the first colon."""
        return self.partition(":")[0]

    @property
    def values(self) -> tuple[float | str, ...]:
        """What stands behind the colons: numbers where they are."""
        return tuple(map(_number, self.split(":")[1:]))

    @property
    def rate(self) -> Rate:
        """What moves the drop probability: 0 for "none", the number of "fixed:0.3" and of any other "name:0.3", and a
        staircase for "step:100", by 0.1 from 0.5 to 0.1 every 100 steps.

        Raises:
            DropkitValueError: it is another one.
        """
        if self == NONE:
            return Constant(0.0)
        values = self.values
        if len(values) == 1 and isinstance(values[0], float):
            if self.name == STEP and values[0] >= 1:
                return Step(start=START, drop=DROP, every=int(values[0]), floor=FLOOR)
            if 0 <= values[0] <= 1:
                return Constant(values[0])
            if self.name == FIXED:
                raise DropkitValueError(
                    f"strategy {str(self)!r}: a drop probability lies in [0, 1], got {values[0]:g}; write for example "
                    "fixed:0.2"
                )
        raise DropkitValueError(
            f"strategy {str(self)!r} has no drop probability that dropkit knows, as none, fixed:0.3 and step:100 have; "
            "read its .name and .values"
        )

    def p(self, step: int = 0) -> float:
        """The drop probability at a step."""
        return self.rate.at(step)

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return re.sub(r"[^\w.@+=-]|^\.", "-", self, flags=re.ASCII)[:LONGEST]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def chosen(strategies: Any, known: str = "strategies") -> list[Chosen]:
    """Strategies by their texts.

    Args:
        strategies: a list of them.
        known: what they are called in errors.

    Raises:
        DropkitTypeError: no list, or something in it is no text.
        DropkitValueError: none, one twice, or two that would lie in one folder.
    """
    if isinstance(strategies, str) or not isinstance(strategies, Sequence):
        raise DropkitTypeError(f"{known} must be a list of names such as ['none', 'fixed:0.1'], got {strategies!r}")
    for text in strategies:
        if not isinstance(text, str) or not text.strip():
            raise DropkitTypeError(f"{known} are names such as 'none' or 'fixed:0.1', got {text!r}")
    found = [Chosen(one_line(text)) for text in strategies]
    if not found:
        raise DropkitValueError(f"no {known} given; name two or more, such as none and fixed:0.1")
    places: dict[str, Chosen] = {}
    for one in found:
        other = places.setdefault(one.folder.lower(), one)
        if other is not one:
            same = "is given twice; each can be run once" if one == other else f"is too like {str(other)!r}; rename it"
            raise DropkitValueError(f"strategy {str(one)!r} {same}")
    return found
