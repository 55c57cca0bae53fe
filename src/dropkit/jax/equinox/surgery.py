"""Equinox' own dropouts of a finished model become dropkit's, and again Equinox' own."""

import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from ...axes.noise import Bernoulli
from ...axes.when import When
from ...errors import DropkitTypeError, DropkitValueError
from . import recurrent, tree
from .attention import MultiheadAttention
from .layers import Dropout
from .tree import Model

_THEIRS: dict[type, type] = {recurrent.LSTMCell: eqx.nn.LSTMCell, recurrent.GRUCell: eqx.nn.GRUCell}


def swap(model: Model) -> Model:
    """A model whose dropouts are dropkit's where they were Equinox' own: same p and inference, all weights the same.

    `eqx.nn.Dropout` becomes `Dropout`, and `eqx.nn.MultiheadAttention` becomes `MultiheadAttention`, both of
    `dropkit.jax.equinox`. Calls with a key go on as they were, with masks of dropkit; after `dropkit.jax.bind` none is
    needed. A model is a value: the one given stays as it is, and `restore` makes Equinox' own of the result. An
    optimizer's state belongs to one of the two: make it afterwards.

    Args:
        model: an eqx.Module, or any pytree of them.

    Returns:
        Another model.

    Raises:
        DropkitValueError: nothing of Equinox' own drops in it; p outside [0, 1].

    Warns:
        UserWarning: dropouts of another make stay: subclasses, and layers that draw by hand. They are named.

    >>> attention = eqx.nn.MultiheadAttention(2, 8, dropout_p=0.1, key=jax.random.key(0))
    >>> model = swap([attention, eqx.nn.Dropout(0.3)])
    >>> list(tree.sites(model))
    ['0.dropout', '1']
    """
    taken: list[str] = []

    def change(path: str, layer: Any) -> Any:
        taken.append(path)
        if type(layer) is eqx.nn.Dropout:
            return _ours(layer)
        return _as(MultiheadAttention, layer, dropout=_ours(layer.dropout))

    swapped = _each(model, _theirs, change)
    left = tree.foreign(swapped)
    if not taken:
        others = f"it has others: {', '.join(left)}" if left else "it has none"
        raise DropkitValueError(f"no dropout of Equinox to swap in {type(model).__name__}: {others}")
    if left:
        warnings.warn(
            f"swap leaves dropouts that it cannot replace, and they need keys as before: {', '.join(left)}",
            stacklevel=2,
        )
    return swapped


def restore(model: Model) -> Model:
    """A model of Equinox' own layers again, with the weights and rates of this one: what `swap` took over, taken back.

    Args:
        model: what `swap` returned, or any model whose dropouts Equinox has too; bound or not.

    Returns:
        Another model.

    Raises:
        DropkitValueError: nothing of dropkit in it; a dropout that Equinox has not: another law, a share, or on at
            other times.

    >>> model = restore(swap([eqx.nn.Dropout(0.3)]))
    >>> type(model[0]) is eqx.nn.Dropout, model[0].p
    (True, 0.3)
    """
    found = tree.sites(model)
    if not found:
        raise DropkitValueError(f"nothing of dropkit to restore in {type(model).__name__}")
    cells = {name for kind in _THEIRS for name in _named(model, kind)}
    for path, drop in found.items():
        plain = drop.share == () and drop.when is When.TRAIN and type(drop.noise) is Bernoulli
        if not plain and path.rpartition(".")[0] not in cells:
            raise DropkitValueError(
                f"Equinox has no dropout such as {path!r}: {type(drop).__name__}, share {drop.share!r}, "
                f"when {drop.when.value!r}"
            )

    def change(path: str, layer: Any) -> Any:
        if isinstance(layer, Dropout):
            return eqx.nn.Dropout(layer.p, layer.inference)
        if type(layer) is MultiheadAttention:
            drop: Any = layer.dropout
            return _as(eqx.nn.MultiheadAttention, layer, dropout=eqx.nn.Dropout(drop.p, drop.inference))
        return _as(_THEIRS[type(layer)], layer)

    return _each(model, _of_ours, change)


def _theirs(leaf: Any) -> bool:
    return type(leaf) in (eqx.nn.Dropout, eqx.nn.MultiheadAttention)


def _of_ours(leaf: Any) -> bool:
    return isinstance(leaf, Dropout) or type(leaf) is MultiheadAttention or type(leaf) in _THEIRS


def _ours(drop: Any) -> Any:
    """Our dropout for one of Equinox; one that is ours already stays."""
    if isinstance(drop, Dropout):
        return drop
    if type(drop) is not eqx.nn.Dropout:
        raise DropkitTypeError(f"an attention's dropout must be an eqx.nn.Dropout, got {type(drop).__name__}")
    return Dropout(drop.p, drop.inference)


def _as(kind: type, layer: Any, **fields: Any) -> Any:
    """A layer of another class, with the fields that the class has."""
    new: Any = object.__new__(kind)
    for name in kind.__dataclass_fields__:  # type: ignore[attr-defined]
        object.__setattr__(new, name, fields.get(name, getattr(layer, name)))
    return new


def _each(model: Model, meant: Callable[[Any], bool], change: Callable[[str, Any], Any]) -> Model:
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: change(tree.name_of(path), leaf) if meant(leaf) else leaf, model, is_leaf=meant
    )


def _named(model: Any, kind: type) -> list[str]:
    flat, _ = jax.tree_util.tree_flatten_with_path(model, is_leaf=lambda leaf: type(leaf) is kind)
    return [tree.name_of(path) for path, leaf in flat if type(leaf) is kind]
