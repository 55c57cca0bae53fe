"""What a surgery did, and how it is taken back: edits of instances, each of which knows its way back."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from ... import receipt
from ...errors import DropkitTypeError
from ...visible import a_type
from .. import layers
from ..reading.structure import held
from .overlay import Overlay

INSERTED = "dropkit_drop"  # the name of the submodule that `insert` adds
_MISSING: Any = object()


class Receipt(receipt.Receipt):
    """What a surgery did, in `lines`; `restore()` gives the original back, once. As a context it does so at the end.

    Restored are the very module objects, at their places and in their order, and attributes with their values and
    types. The one thing carried over is the mode: a module that comes back takes the `training` flag of what stood in
    its place, so that `train()` and `eval()` in between are not undone.

    >>> import dropkit.torch
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    >>> with dropkit.torch.set_rate(model, "*", 0.1) as receipt:
    ...     print(receipt)
    1: p 0.5 -> 0.1
    >>> model[1].p
    0.5
    """

    __slots__ = ()

    def restore(self) -> None:
        """Give the original back.

        Raises:
            DropkitRuntimeError: it was restored already; something else stands in a place that was edited, so that a
                later surgery has to be restored first. Nothing is changed then.

        >>> import dropkit.torch
        >>> model = nn.Sequential(nn.Dropout(0.5))
        >>> dropkit.torch.strip(model).restore()
        >>> model
        Sequential(
          (0): Dropout(p=0.5, inplace=False)
        )
        """
        super().restore()


class Position(NamedTuple):
    """Where a submodule sits."""

    path: str
    parent: nn.Module
    name: str
    module: nn.Module


def positions(model: nn.Module) -> Iterator[Position]:
    """Every place below a model, one for each name in each parent; a shared module has several."""
    for path, parent in model.named_modules():
        for name, module in parent._modules.items():
            if module is not None:
                yield Position(f"{path}.{name}" if path else name, parent, name, module)


@dataclass(slots=True)
class Replacement:
    """Another module in a place."""

    place: Position
    new: nn.Module
    silenced: Any = field(default=_MISSING, init=False)

    @property
    def line(self) -> str:
        """Path, what was there, what is."""
        return f"{self.place.path}: {described(self.place.module)} -> {described(self.new)}"

    def do(self) -> None:
        """Put it there; what leaves is off, so that a bound model no longer counts it among its active dropouts."""
        old = self.place.module
        if isinstance(old, layers.Drawn) and old.when != "never":
            self.silenced = old.__dict__.get("when")
            old.when = "never"
        self.place.parent._modules[self.place.name] = self.new

    def stands(self) -> bool:
        """Whether it is there still."""
        return self.place.parent._modules.get(self.place.name) is self.new

    def undo(self) -> None:
        """Put the old one back, in the mode that the place is in now."""
        old = self.place.module
        if self.silenced is not _MISSING:
            if self.silenced is None:
                del old.when
            else:
                old.when = self.silenced
        old.training = self.new.training
        self.place.parent._modules[self.place.name] = old


@dataclass(slots=True)
class Overlaid:
    """An edit that lays a value over an attribute."""

    over: Overlay = field(init=False)

    def do(self) -> None:
        """Lay it."""
        self.over.lay()

    def stands(self) -> bool:
        """Always: whatever was assigned since, the original is what comes back."""
        return True

    def undo(self) -> None:
        """The old object again; where another receipt assigned later, when that is restored."""
        self.over.lift(even_if_changed=True)


@dataclass(slots=True)
class Assignment(Overlaid):
    """Another number in an attribute."""

    path: str
    module: Any
    attribute: str
    value: float
    before: Any = field(init=False)

    def __post_init__(self) -> None:
        self.before = held(self.module, self.attribute)
        self.over = Overlay(self.module, self.attribute, self.value)

    @property
    def line(self) -> str:
        """Name, attribute, old and new value."""
        return f"{self.path}: {self.attribute} {self.before!r} -> {self.value!r}"


@dataclass(slots=True)
class Insertion:
    """A dropout as a submodule, run on its owner's output by a hook."""

    path: str
    module: nn.Module
    drop: nn.Module
    hook: Any = field(default=None, init=False)

    @property
    def line(self) -> str:
        """Behind what, and what."""
        return f"{self.path}: {described(self.drop)} behind {type(self.module).__name__}"

    def do(self) -> None:
        """Add both."""
        self.module.add_module(INSERTED, self.drop)
        self.hook = self.module.register_forward_hook(drop_output)

    def stands(self) -> bool:
        """Whether the submodule is there still."""
        return self.module._modules.get(INSERTED) is self.drop

    def undo(self) -> None:
        """Remove both."""
        self.hook.remove()
        del self.module._modules[INSERTED]


def drop_output(module: nn.Module, args: Any, output: Any) -> Any:
    """The hook behind which an inserted dropout stands; a tuple keeps its type and all but its first entry."""
    drop = getattr(module, INSERTED)
    if isinstance(output, torch.Tensor):
        return drop(output)
    if isinstance(output, tuple) and output:
        first = drop_output(module, args, output[0])
        fields = getattr(output, "_fields", None)
        if fields:  # a named tuple, such as a packed sequence
            return output._replace(**{fields[0]: first})  # type: ignore[attr-defined]
        return type(output)((first, *output[1:]))
    raise DropkitTypeError(
        f"a dropout was inserted behind {a_type(module)} that returns {a_type(output)}: it can only "
        "drop a tensor, or the first entry of a tuple; insert it behind a submodule that returns a tensor"
    )


def described(module: nn.Module) -> str:
    home = type(module).__module__.partition(".")[0]
    kind = "dropkit " if home == "dropkit" else "torch.nn " if home == "torch" else ""
    return kind + repr(module).replace("\n", " ")
