"""Where an nnx model can be changed: its modules by path, its rates, and what stands behind what."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from flax import nnx

from .. import patterns
from ..errors import DropkitTypeError, DropkitValueError
from .nnx import Dropout, KeyedStream
from .nnx.attention import attends, why_not
from .receipt import INSERTED, is_dropped
from .traces import Lanes, draws_by_hand

_RATES = ("rate", "p", "prob", "drop_prob")


class Place(NamedTuple):
    """A module and its first path in the model."""

    path: str
    module: Any


class FoundRate(NamedTuple):
    """A rate: of a dropout by its path, a number in another module by path and attribute."""

    name: str
    module: Any
    attribute: str
    path: str

    @property
    def p(self) -> Any:
        """The rate now."""
        return getattr(self.module, self.attribute)


def places(model: nnx.Module) -> list[Place]:
    """Every module below a model that can be called, once."""
    found = (Place(".".join(map(str, path)), module) for path, module in nnx.iter_modules(model) if module is not model)
    return [place for place in found if callable(place.module)]


def is_bound(model: nnx.Module) -> bool:
    """Whether a dropout of the model has a site's stream."""
    return any(isinstance(getattr(module, "rngs", None), KeyedStream) for _, module in nnx.iter_modules(model))


def swappable(model: nnx.Module) -> list[Place]:
    """flax' own dropouts, of its very class; the model itself may be one."""
    found = [Place(".".join(map(str, path)), module) for path, module in nnx.iter_modules(model)]
    return [place for place in found if type(place.module) is nnx.Dropout]


def attentions(model: nnx.Module) -> tuple[list[Place], dict[str, str]]:
    """flax' attentions whose dropout can be taken over; and those that cannot, by path, and why."""
    taken, left = [], {}
    for path, module in nnx.iter_modules(model):
        if isinstance(module, nnx.MultiHeadAttention) and not attends(module):
            name = ".".join(map(str, path))
            reason = "has an inserted dropout behind it: swap first" if is_dropped(module) else why_not(module)
            if reason is None:
                taken.append(Place(name, module))
            else:
                left[name or type(module).__name__] = reason
    return taken, left


def attention_drop(module: nnx.MultiHeadAttention) -> Dropout:
    """Our dropout for the number that an attention of flax has."""
    new = Dropout(module.dropout_rate, deterministic=module.deterministic)
    new.rngs = module.rngs
    if new.rngs is None:
        kernel = module.query.kernel[...]
        vars(new)["_lanes"] = Lanes(tuple(kernel.shape[: kernel.ndim - 3]))  # in, heads, features; others of a stack
    return new


def twin(drop: nnx.Dropout) -> Dropout:
    """Our dropout for one of flax."""
    new = Dropout(
        drop.rate,
        broadcast_dims=drop.broadcast_dims,
        deterministic=drop.deterministic,
        rng_collection=drop.rng_collection,
    )
    new.rngs = drop.rngs
    return new


def rates(model: nnx.Module) -> Iterator[FoundRate]:
    """Every rate of a model."""
    owners: dict[int, str] = {}
    found: list[tuple[str, Any]] = [(".".join(map(str, path)), module) for path, module in nnx.iter_modules(model)]
    for name, module in found:
        if attends(module):
            owners[id(module.dropout)] = name
    for name, module in found:
        if isinstance(module, nnx.Dropout):
            yield FoundRate(name or "the model itself", module, "rate", owners.get(id(module), name))
        elif attends(module):
            continue  # by its dropout
        elif isinstance(module, nnx.MultiHeadAttention):
            yield FoundRate(f"{name}.dropout_rate".removeprefix("."), module, "dropout_rate", name)
        elif draws_by_hand(type(module)):
            for attribute, value in vars(module).items():
                number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
                if number and (attribute in _RATES or "drop" in attribute):
                    yield FoundRate(f"{name}.{attribute}".removeprefix("."), module, attribute, name)


def targets(model: nnx.Module, after: Any) -> list[Place]:
    """The modules behind which a dropout is to stand."""
    known = places(model)
    meant = _matcher(after)
    chosen = [place for place in known if meant(place.path, place.module)]
    if not isinstance(after, str) and callable(model) and meant("", model):
        chosen.append(Place("the model itself", model))
    if not chosen:
        names = patterns.listed(f"{place.path} ({type(place.module).__name__})" for place in known)
        raise patterns.unmatched(f"after={after!r}", "nothing", type(model).__name__, names)
    for place in chosen:
        if is_dropped(place.module):
            raise DropkitValueError(
                f"{place.path} has an inserted dropout already; set its rate with set_rate, or restore first"
            )
        if isinstance(place.module, nnx.Dropout):
            raise DropkitValueError(
                f"cannot insert behind {place.path}: it is a dropout itself; set its rate with set_rate"
            )
    return chosen


def _matcher(after: Any) -> Callable[[str, Any], bool]:
    if isinstance(after, str):
        return lambda path, module: patterns.matches([path], after)
    kinds = after if isinstance(after, tuple) else (after,)
    if all(isinstance(kind, type) and issubclass(kind, nnx.Module) for kind in kinds):
        return lambda path, module: isinstance(module, kinds)
    if isinstance(after, tuple | type) or not callable(after):
        raise DropkitTypeError(
            f"after must be a pattern of paths, a class of modules or a function of (path, module), got {after!r}"
        )
    return after


def maker(model: nnx.Module, drop: Any) -> Callable[[Place], Dropout]:
    """What makes the dropout behind a place."""
    modes = {part.deterministic for _, part in nnx.iter_modules(model) if hasattr(part, "deterministic")}
    mode = modes.pop() if len(modes) == 1 else None
    if isinstance(drop, Dropout) and isinstance(drop.rngs, KeyedStream):
        raise DropkitValueError(
            "drop has the stream of one site, so that all places would drop alike; pass one without rngs, such as "
            "dropkit.jax.nnx.Dropout(0.1), and dropkit.jax.bind the model"
        )
    if not isinstance(drop, Dropout) and (isinstance(drop, nnx.Module) or not callable(drop)):
        raise DropkitTypeError(f"drop must be a dropout such as dropkit.jax.nnx.Dropout(0.1), got {drop!r}")

    def made(place: Place) -> Dropout:
        new = _copy(drop) if isinstance(drop, Dropout) else drop()
        if not isinstance(new, Dropout):
            raise DropkitTypeError(f"drop() must return a dropkit.jax.nnx.Dropout, got {new!r}")
        if new.rngs is None:
            vars(new)["_lanes"] = Lanes(_stack(place.module))  # as if it had been made in the stack
        if mode is not None:
            new.deterministic = mode
        return new

    return made


def _copy(drop: Dropout) -> Dropout:
    """A dropout of the same rate, law and share; each copy gets a stream of its own."""
    rngs, new = drop.rngs, nnx.clone(drop)
    new.rngs = None if rngs is None else rngs.fork()
    return new


def _stack(module: Any) -> tuple[int, ...]:
    """The shape of the stack of modules that this one is, as the arrays of flax' own layers in it tell."""
    for _, part in nnx.iter_modules(module):
        axes = {
            nnx.Linear: ("kernel", 2),
            nnx.Conv: ("kernel", len(getattr(part, "kernel_size", ())) + 2),
            nnx.Embed: ("embedding", 2),
            nnx.LayerNorm: ("scale", 1),
            nnx.RMSNorm: ("scale", 1),
        }.get(type(part))
        weight = getattr(part, axes[0], None) if axes else None
        if weight is not None and axes:
            shape = weight[...].shape
            return tuple(shape[: len(shape) - axes[1]])
    return ()


def inserted_paths(chosen: list[Place]) -> str:
    """Where the inserted dropouts are, for a sentence."""
    return patterns.listed(f"{place.path}.{INSERTED}" for place in chosen)
