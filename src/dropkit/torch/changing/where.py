"""Which modules of a model somebody means."""

from collections.abc import Callable

from torch import nn

from ... import patterns
from ...errors import DropkitTypeError

Where = str | nn.Module | type[nn.Module] | tuple[type[nn.Module], ...] | Callable[[str, nn.Module], bool]


def matcher(after: Where) -> Callable[[str, nn.Module], bool]:
    """Whether a path and its module are meant.

    Raises:
        DropkitTypeError: nothing that could tell.
    """
    if isinstance(after, str):
        return lambda path, module: patterns.matches([path], after)
    if isinstance(after, nn.Module):
        return lambda path, module: module is after
    kinds = after if isinstance(after, tuple) else (after,)
    if all(isinstance(kind, type) and issubclass(kind, nn.Module) for kind in kinds):
        return lambda path, module: isinstance(module, kinds)  # type: ignore[arg-type]
    if isinstance(after, tuple | type) or not callable(after):
        raise DropkitTypeError(
            f"after must be a pattern of paths, a module or class, or a function of (path, module), got {after!r}"
        )
    return after
