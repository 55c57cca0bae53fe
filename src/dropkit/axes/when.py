"""When: in which passes the noise is on."""

from enum import Enum

from ..errors import DropkitValueError


class When(Enum):
    """In which passes a dropout is active.

    >>> When.TRAIN.active(training=False), When.ALWAYS.active(training=False), When.NEVER.active(training=True)
    (False, True, False)
    """

    TRAIN = "train"
    ALWAYS = "always"  # Monte Carlo dropout: Gal and Ghahramani 2016
    NEVER = "never"

    @classmethod
    def of(cls, value: "When | str") -> "When":
        """A When from its name.

        Raises:
            DropkitValueError: a name that is none of train, always, never.

        >>> When.of("always")
        <When.ALWAYS: 'always'>
        """
        try:
            return cls(value)
        except ValueError:
            raise DropkitValueError(f"when must be one of train, always, never; got {value!r}") from None

    def active(self, training: bool) -> bool:
        """Whether noise is drawn, given the mode of the pass."""
        return self is When.ALWAYS or (self is When.TRAIN and training)


when = When.of  # its former name
