"""`PATTERN=SPEC`: which dropouts, and what they are; a SPEC is a rate, or a kind and a rate such as `channel:0.1`."""

from dataclasses import dataclass

from ...errors import DropkitTypeError, DropkitValueError
from ...patterns import matches
from .variants import variant_of


@dataclass(frozen=True, slots=True)
class Spec:
    """What a dropout is: a rate, and a kind where it is said.

    >>> Spec.parse("channel:0.1"), Spec.parse("0.2")
    (Spec(p=0.1, variant='channel'), Spec(p=0.2, variant=''))
    """

    p: float
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> "Spec":
        """Read a rate, or a kind and a rate.

        Raises:
            DropkitValueError: neither.
            UnknownNameError: there is no such kind.
        """
        variant, _, rate = text.rpartition(":")
        if variant:
            variant_of(variant)
        try:
            p = float(rate)
        except ValueError:
            raise DropkitValueError(
                f"{text!r} is no dropout: write a rate such as 0.2, or a kind and a rate such as channel:0.1"
            ) from None
        if not 0 <= p <= 1:
            raise DropkitValueError(f"{text!r}: a rate must lie in [0, 1], got {p}")
        return cls(p, variant)

    def __str__(self) -> str:
        return f"{self.variant}:{self.p!r}" if self.variant else repr(self.p)


@dataclass(frozen=True, slots=True)
class Rule:
    """Which dropouts are what.

    >>> str(Rule.parse("conv*=channel:.1", "--insert"))
    'conv*=channel:0.1'
    """

    pattern: str
    spec: Spec

    @classmethod
    def parse(cls, text: str, option: str) -> "Rule":
        """Read "PATTERN=SPEC".

        Raises:
            DropkitTypeError, DropkitValueError: it is not written so.
        """
        if not isinstance(text, str):
            raise DropkitTypeError(f"{option} is a text such as 'conv*=channel:0.1', got {text!r}")
        pattern, found, spec = text.rpartition("=")
        if not found or not pattern:
            raise DropkitValueError(
                f"{option} {text!r} says not what where: write PATTERN=SPEC, such as {option} '*=0.2' or {option} "
                "'conv*=channel:0.1'"
            )
        try:
            return cls(pattern, Spec.parse(spec))
        except DropkitValueError as error:
            raise type(error)(*_refused(option, text, error)) if type(error) is DropkitValueError else error from None

    def means(self, *names: str) -> bool:
        """Whether its pattern matches one of the names."""
        return matches(names, self.pattern)

    def __str__(self) -> str:
        return f"{self.pattern}={self.spec}"


def _refused(option: str, text: str, error: DropkitValueError) -> tuple[str]:
    return (f"{option} {text!r}: {error}",)


def rules(texts: object, option: str) -> tuple[Rule, ...]:
    """Several, from a list of texts, or from a mapping of patterns and specs.

    >>> [str(rule) for rule in rules({"fc*": 0.5}, "insert")]
    ['fc*=0.5']
    """
    if texts is None:
        return ()
    if isinstance(texts, dict):
        texts = [f"{pattern}={spec}" for pattern, spec in texts.items()]
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, list | tuple):
        raise DropkitTypeError(f"{option} is a list of texts such as 'conv*=channel:0.1', got {texts!r}")
    return tuple(Rule.parse(text, option) for text in texts)
