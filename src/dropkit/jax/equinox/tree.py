"""The pytree of an Equinox model: its dropouts by path, what else drops in it, and which of them are stacks."""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax

from ..traces import draws_by_hand
from .layers import Dropout

Model = TypeVar("Model")


def sites(model: Any) -> dict[str, Dropout]:
    """The dropkit dropouts of a model by their paths in it.

    >>> list(sites([Dropout(0.5), {"drop": Dropout(0.1)}]))
    ['0', '1.drop']
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(model, is_leaf=_is_drop)
    return {name_of(path): leaf for path, leaf in flat if _is_drop(leaf)}


def each(model: Model, change: Callable[[str, Dropout], Any]) -> Model:
    """The model with what `change(path, dropout)` returns in place of each dropout."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: change(name_of(path), leaf) if _is_drop(leaf) else leaf, model, is_leaf=_is_drop
    )


def replaced(drop: Dropout, **fields: Any) -> Dropout:
    """A copy of other fields; the constructor has no arguments for them."""
    copy = object.__new__(type(drop))
    for name in drop.__dataclass_fields__:
        object.__setattr__(copy, name, fields.get(name, getattr(drop, name)))
    return copy


def _is_drop(leaf: Any) -> bool:
    return isinstance(leaf, Dropout)


def name_of(path: Any) -> str:
    """A path of a pytree as a site has it."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def foreign(model: Any) -> list[str]:
    """What else drops in the model, by path: Equinox' own dropouts, attention's among them, and hand-written ones."""
    found: list[str] = []

    def look(path: Any, part: Any) -> None:
        if isinstance(part, eqx.nn.Dropout) and not _is_drop(part):
            if not (isinstance(part.p, int | float) and part.p == 0):
                found.append(f"{name_of(path)} ({type(part).__name__})")
        elif isinstance(part, eqx.Module) and draws_by_hand(type(part)):
            found.append(f"{name_of(path) or type(part).__name__} (jax.random.bernoulli)")

    _walk(model, look)
    return found


def stacks(model: Any) -> dict[str, tuple[int, ...]]:
    """The shape of the stack that each dropout is, by path: as it was made, or as the layers beside it say."""
    found: dict[str, tuple[int, ...]] = {}

    def look(path: Any, part: Any) -> None:
        if _is_drop(part):
            found[name_of(path)] = part.made.sizes or found.get(name_of(path), ())
            return
        children = _children(part)
        shapes = [shape for _, child in children if (shape := _leading(child)) is not None]
        for key, child in children:
            if _is_drop(child) and shapes:
                found[name_of((*path, key))] = min(shapes, key=len)

    _walk(model, look)
    return found


def _leading(layer: Any) -> tuple[int, ...] | None:
    """The leading axes of a weight that its layer does not account for: those of a stack. None if nobody can tell."""
    own = {
        eqx.nn.Linear: 2,
        eqx.nn.Embedding: 2,
        eqx.nn.Conv: getattr(layer, "num_spatial_dims", 0) + 2,
        eqx.nn.LayerNorm: len(getattr(layer, "shape", ())),
        eqx.nn.RMSNorm: len(getattr(layer, "shape", ())),
    }
    weight = getattr(layer, "weight", None)
    for kind, axes in own.items():
        if isinstance(layer, kind) and eqx.is_array(weight):
            return tuple(weight.shape[: weight.ndim - axes])
    return None


def _walk(part: Any, look: Any, path: tuple[Any, ...] = ()) -> None:
    """Call look(path, part) for a pytree and all that is in it, from the outside in; not for what is in a dropout."""
    look(path, part)
    if not isinstance(part, eqx.nn.Dropout):
        for key, child in _children(part):
            _walk(child, look, (*path, key))


def _children(part: Any) -> list[tuple[Any, Any]]:
    """What lies directly in a node of a pytree, with its keys."""
    flat, _ = jax.tree_util.tree_flatten_with_path(part, is_leaf=lambda inner: inner is not part)
    return [(keys[0], child) for keys, child in flat if keys]
