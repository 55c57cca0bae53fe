"""What a reader finds, before anything is divided or encoded."""

from dataclasses import dataclass, replace
from typing import Any

from ....errors import DataError


@dataclass(frozen=True, slots=True)
class Part:
    """Samples and their targets: arrays, or a pandas table; y is None where x is its own target, as tokens are."""

    x: Any
    y: Any = None


@dataclass(frozen=True, slots=True)
class Raw:
    """What was read.

    Args:
        name: of the source, for messages.
        train: all there is, where `test` is None and a part is still to be split off.
        test: the test part, where the source has one.
        target: what y is called.
        labels: names of the classes 0, 1, ..., where the source knows them.
        notes: sentences on how it was read.
    """

    name: str
    train: Part
    test: Part | None = None
    target: str = "y"
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        """Training part, or all; and the test part where there is one."""
        return (self.train,) if self.test is None else (self.train, self.test)

    @property
    def words(self) -> tuple[str, ...]:
        """What the parts are called in messages."""
        return ("",) if self.test is None else ("training ", "test ")

    def noted(self, *notes: str) -> "Raw":
        """The same with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    def checked(self) -> "Raw":
        """The same, once lengths agree.

        Raises:
            DataError: an empty part, or x and y of different lengths.
        """
        for part, words in zip(self.parts, self.words, strict=True):
            if not getattr(part.x, "ndim", 1):
                raise DataError(f"{self.name}: {words}x is a single number; its first axis must count samples")
            count = len(part.x)
            if not count or (part.y is not None and not len(part.y)):
                raise DataError(f"{self.name}: the {words}part has no samples; it needs at least one")
            if part.y is not None and len(part.y) != count:
                raise DataError(
                    f"{self.name}: {words}x has {count} samples and {self.target} {len(part.y)}; give as many of each, "
                    "in the same order"
                )
        return self
