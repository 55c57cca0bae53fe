"""What functions that serve recipes, models and loops of one's own can be asked, and the refusal of the rest."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ..errors import DropkitValueError


def joined(
    own: Callable[..., Any], others: Collection[Callable[..., Any]], given: Collection[str], returns: Any
) -> inspect.Signature:
    """Every argument by name: those of recipes first, then what others add.

    Args:
        own: the function for recipes and models.
        others: those for loops and estimators.
        given: what these are given, None where they are not meant.
        returns: what comes back.
    """
    words = dict(inspect.signature(own).parameters)
    for function in others:
        for name, word in inspect.signature(function).parameters.items():
            default = None if name in given else word.default
            words.setdefault(name, word.replace(kind=inspect.Parameter.KEYWORD_ONLY, default=default))
    return inspect.Signature(list(words.values()), return_annotation=returns)


def check_known(name: str, given: str, function: Callable[..., Any], asked: Mapping[str, Any]) -> None:
    """Refuse what a function has no use for.

    >>> check_known("train", "run", lambda run, seed: None, {"size": "tiny"})
    Traceback (most recent call last):
    ...
    dropkit.errors.DropkitValueError: train(run=...) takes no size; it takes seed
    """
    known = inspect.signature(function).parameters
    for word in asked:
        if word not in known:
            takes = ", ".join(each for each in known if each != given)
            raise DropkitValueError(f"{name}({given}=...) takes no {word}; it takes {takes}")
