"""What a surgery on an nnx model did, and how it is taken back: edits of modules, each of which knows its way back."""

from collections.abc import Callable
from types import new_class
from typing import Any

from flax import nnx

from .. import receipt
from ..errors import DropkitTypeError
from ..visible import a_type
from .nnx import Dropout
from .nnx.attention import attends, kind_of

INSERTED = "dropkit_drop"  # the attribute that `insert` adds
MISSING: Any = object()
_KINDS: dict[type, type] = {}


class Edit:
    """One change of one module."""

    line = ""
    """What is changed, for people."""

    def do(self) -> None:
        """Make the change."""

    def stands(self) -> bool:
        """Whether nothing has been put over it since."""
        return True

    def undo(self) -> None:
        """Take it back."""


class Receipt(receipt.Receipt):
    """What a surgery did, in `lines`; `restore()` gives the original back, once. As a context it does so at the end.

    >>> from dropkit.jax import set_rate
    >>> model = nnx.Sequential(Dropout(0.5))
    >>> with set_rate(model, "*", 0.1) as receipt:
    ...     print(receipt)
    layers.0: rate 0.5 -> 0.1
    >>> model.layers[0].rate
    0.5
    """


class Replacement(Edit):
    """A dropout of flax that becomes one of ours, where it stands: whatever refers to it goes on to do so."""

    def __init__(self, path: str, layer: nnx.Dropout, new: Dropout) -> None:
        self.layer, self.before = layer, dict(vars(layer))
        extra = {name: value for name, value in self.before.items() if name not in vars(nnx.Dropout(0.0))}
        self.after = {**vars(new), **extra}
        self.line = f"{path}: {described(layer)} -> {described(new)}"

    def do(self) -> None:
        """Make it one of ours."""
        self._become(Dropout, self.after)

    def stands(self) -> bool:
        """Whether it is one still."""
        return type(self.layer) is Dropout

    def undo(self) -> None:
        """One of flax' again, in the mode that it is in now."""
        self._become(nnx.Dropout, {**self.before, "deterministic": self.layer.deterministic})

    def _become(self, kind: type, attributes: dict[str, Any]) -> None:
        object.__setattr__(self.layer, "__class__", kind)
        vars(self.layer).clear()
        vars(self.layer).update(attributes)


class Attention(Edit):
    """An attention of flax whose number becomes a dropout of ours in it."""

    def __init__(self, path: str, module: nnx.MultiHeadAttention, drop: Dropout) -> None:
        self.module: Any = module
        self.drop = drop
        self.rate, self.rngs, self.kind = module.dropout_rate, module.rngs, type(module)
        shared = ", one mask for all samples and heads" if module.broadcast_dropout else ""
        self.line = f"{path}: flax {self.kind.__name__}({self.rate}) -> dropkit Dropout({self.rate}) in it{shared}"

    def do(self) -> None:
        """Put the dropout in the number's place."""
        vars(self.module).pop("dropout_rate")
        object.__setattr__(self.module, "__class__", kind_of(self.kind))
        self.module.dropout, self.module.rngs = self.drop, None

    def stands(self) -> bool:
        """Whether it is there still."""
        return attends(self.module) and type(self.module) is kind_of(self.kind) and self._has()

    def undo(self) -> None:
        """The number and its stream again; mode, cache and all else as they are now."""
        if "dropout" in vars(self.module):
            del self.module.dropout
        object.__setattr__(self.module, "__class__", self.kind)
        self.module.dropout_rate, self.module.rngs = self.rate, self.rngs

    def _has(self) -> bool:
        return getattr(self.module, "dropout", None) is self.drop


class Insertion(Edit):
    """A dropout behind a module."""

    def __init__(self, path: str, module: Any, drop: Dropout) -> None:
        self.module, self.drop = module, drop
        self.line = f"{path}: {described(drop)} behind {type(module).__name__}"

    def do(self) -> None:
        """Put it there."""
        object.__setattr__(self.module, "__class__", _kind(type(self.module)))
        setattr(self.module, INSERTED, self.drop)

    def stands(self) -> bool:
        """Whether it is there still."""
        return getattr(self.module, INSERTED, None) is self.drop

    def undo(self) -> None:
        """Take it away."""
        delattr(self.module, INSERTED)
        object.__setattr__(self.module, "__class__", type(self.module).__mro__[1])


class Assignment(Edit):
    """Another rate, in an attribute."""

    def __init__(self, name: str, module: Any, attribute: str, rate: float) -> None:
        self.module, self.attribute, self.rate = module, attribute, rate
        self.before = {each: vars(module).get(each, MISSING) for each in (attribute, "_rate", "p", "rate_ndim")}
        moving = self.before["p"]
        self.value = moving[...] if isinstance(moving, nnx.Variable) else MISSING
        self.line = f"{name}: {attribute} {getattr(module, attribute)} -> {rate}"

    def do(self) -> None:
        """Assign it."""
        setattr(self.module, self.attribute, self.rate)

    def undo(self) -> None:
        """The old rate again, as a part of the program or as state, as it was."""
        if not isinstance(self.module, Dropout):
            setattr(self.module, self.attribute, self.before[self.attribute])
        elif self.value is not MISSING:
            self.module.p.set_value(self.value)
        else:
            if "p" in vars(self.module):
                del self.module.p
            vars(self.module).update({name: self.before[name] for name in ("_rate", "rate_ndim")})


def is_dropped(module: Any) -> bool:
    """Whether a dropout was inserted behind it."""
    return type(module) in _KINDS.values()


def _kind(own: type) -> type:
    """The class that a module of this one becomes: one for each, so that programs are found again."""
    if own not in _KINDS:
        theirs: Callable[..., Any] = own.__call__

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            return _drop_output(self, theirs(self, *args, **kwargs), kwargs.get("deterministic"))

        names = {
            "__call__": call,
            "__module__": own.__module__,
            "__qualname__": own.__qualname__,
            "__doc__": own.__doc__,
        }
        pytree = getattr(own, "_pytree__is_pytree", True)
        _KINDS[own] = new_class(own.__name__, (own,), {"pytree": pytree}, lambda space: space.update(names))
    return _KINDS[own]


def _drop_output(module: Any, output: Any, deterministic: bool | None) -> Any:
    """An output with noise; a tuple or list keeps its type and all but its first entry."""
    if hasattr(output, "dtype"):
        return getattr(module, INSERTED)(output, deterministic=deterministic)
    if isinstance(output, list | tuple) and output:
        first = _drop_output(module, output[0], deterministic)
        fields = getattr(output, "_fields", None)
        return output._replace(**{fields[0]: first}) if fields else type(output)((first, *output[1:]))  # type: ignore[union-attr]
    raise DropkitTypeError(
        f"a dropout was inserted behind {a_type(module)} that returns {a_type(output)}: it can only "
        "drop an array, or the first entry of a tuple; insert it behind a module that returns an array"
    )


def described(drop: nnx.Dropout) -> str:
    """A dropout's class, and its rate now."""
    return f"{'dropkit' if isinstance(drop, Dropout) else 'flax'} {type(drop).__name__}({drop.rate})"
