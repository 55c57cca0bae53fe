"""A strategy as it is written, and the folder that its runs lie in."""

import hashlib
import re
from dataclasses import dataclass

from ...errors import DropkitTypeError


@dataclass(frozen=True, slots=True)
class Strategy:
    """A strategy as written on the command line: a name and, after colons, numbers; what they are, the strategy says.
    Behind an @ a pattern of sites, which it is limited to.

    >>> Strategy.parse("fixed:.2:0.5")
    Strategy(name='fixed', values=(0.2, 0.5))
    >>> str(Strategy.parse("fixed:.2:0.5")), Strategy.parse("fixed:.2:0.5").folder
    ('fixed:0.2:0.5', 'fixed-0.2-0.5')
    >>> str(Strategy.parse("step:100"))
    'step:100'
    >>> Strategy.parse("fixed:0.1@conv*").places
    'conv*'
    """

    name: str
    values: tuple[float, ...] = ()
    places: str = ""

    @classmethod
    def parse(cls, text: str) -> "Strategy":
        """Read "name" or "name:number:number".

        Raises:
            DropkitTypeError: the text is not a string, or what follows a colon is not a number.
        """
        if not isinstance(text, str):
            raise DropkitTypeError(f"a strategy is a name such as 'fixed' or 'fixed:0.2:0.5', got {text!r}")
        said, at, places = text.partition("@")
        if at and not places:
            raise DropkitTypeError(f"strategy {text!r}: a pattern of sites must follow the @, as in fixed:0.1@conv*")
        name, *numbers = said.split(":")
        return cls(name, tuple(_number(number, text) for number in numbers), places)

    def __str__(self) -> str:
        # Rates as ever, since folders are named after them: fixed:1 is fixed:1.0. Counts as counts.
        counts = self.name != "fixed"
        numbers = (int(value) if counts and value.is_integer() else value for value in self.values)
        return ":".join([self.name, *map(repr, numbers)]) + (f"@{self.places}" if self.places else "")

    @property
    def folder(self) -> str:
        """The name of the strategy's folder."""
        found = str(self).replace(":", "-")
        if not self.places:
            return found
        # A pattern may hold what no folder's name may, and two patterns must not share one.
        digest = hashlib.sha256(self.places.encode()).hexdigest()[:6]
        return re.sub(r"[^A-Za-z0-9._@-]+", "_", found) + f"-{digest}"


def _number(text: str, strategy: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DropkitTypeError(
            f"strategy {strategy!r}: a number must follow each colon, got {text!r}; write for example fixed:0.2:0.5, "
            "step:100 or weight-decay:1e-4"
        ) from None
