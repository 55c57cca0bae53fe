"""A dropout behind layers of a Keras model that is there already."""

import warnings
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import keras
from keras.src.layers.rnn.stacked_rnn_cells import StackedRNNCells
from keras.src.models.functional import Functional

from .. import patterns
from ..errors import DropkitTypeError, DropkitValueError
from .base import Keyed
from .finding import NOISES
from .inserted import INSERTED, Dropped, Insertion
from .paths import walk
from .receipt import Receipt, check_model

Where = str | type[keras.Layer] | tuple[type[keras.Layer], ...] | Callable[[str, keras.Layer], bool]


def insert(model: keras.Layer, after: Where, drop: keras.Layer | Callable[[], keras.Layer]) -> Receipt:
    """Put a dropout behind every layer that matches, in a model that is there already, built or not.

    A layer that matches becomes one of a class of its own, which derives from its class and has the same name; the
    dropout is a layer `dropkit_drop` in it, so that `bind`, `swap` and `set_rate` see it, and its `call` runs it on the
    output: a tensor, or the first entry of a tuple. So the graph of a functional model, weights, paths, optimizers and
    whatever refers to the layer stay. Behind a `Sequential` means behind its last layer; behind a functional block
    likewise, where nothing else in the block uses that one. A layer that a model calls twice has it behind both calls.

    Sequential and functional models are saved and loaded with it (where `dropkit.keras` is imported). A model of a
    class of your own is loaded as its `from_config` makes it: insert again before its weights are loaded.

    Args:
        model: edited in place, and compiled anew when it runs next. Another model that shares layers with it has to be
            compiled again by hand.
        after: a pattern of layer paths as in `fnmatch` ("encoder/*/dense"), a layer class or a tuple of them, or a
            function of (path, layer) that says whether.
        drop: a dropout layer, of which each place gets a copy, that computes in the dtype of the layer before it; or a
            function without arguments that makes one.

    Returns:
        A `Receipt`, whose `restore()` gives the original back.

    Raises:
        DropkitValueError: nothing matches; a match that is never called (an Input, the cell of a recurrent layer,
            where nothing else matches), is a dropout itself, or has an inserted dropout already; a drop that is bound.
            Nothing is changed then.
        DropkitTypeError: not a Keras layer; an `after` or `drop` of another kind; when the model runs, an output of
            another.

    Warns:
        UserWarning: the model is bound: what is inserted is not, until it is bound again. Or the model's own `call` has
            no argument `training`, so that `fit` does not say that it trains, and no dropout in it acts.

    >>> from dropkit.keras import Dropout
    >>> layers = [keras.layers.Dense(4, activation="relu", name="hidden"), keras.layers.Dense(2, name="output")]
    >>> model = keras.Sequential([keras.Input((8,)), *layers])
    >>> print(insert(model, "hidden", Dropout(0.1)))
    hidden: dropkit Dropout(0.1) behind Dense
    >>> len(model.weights)
    4
    """
    check_model(model, "insert")
    targets, notes = _targets(model, after)
    make = _maker(drop)
    edits = [Insertion(path, layer, make(path, layer)) for path, layer in targets.items()]
    bound = any(isinstance(layer, Keyed) and layer.seed_generator.keyed for _, layer in walk(model))
    receipt = Receipt(model, edits, notes)
    if isinstance(model, keras.Model) and not model._call_has_training_arg:
        warnings.warn(
            f"fit does not tell {model.name!r} that it trains, since its call has no argument `training`, so that no "
            "dropout in it acts there: write call(self, x, training=None)",
            stacklevel=2,
        )
    if bound:
        names = patterns.listed(f"{path}/{INSERTED}" for path in targets)
        warnings.warn(f"the model is bound and these are not: {names}; dropkit.keras.bind it again", stacklevel=2)
    return receipt


def _targets(model: keras.Layer, after: Where) -> tuple[dict[str, Any], list[str]]:
    """The layers behind which a dropout is to stand, by path; and what is said of others that match."""
    known = {id(layer): path for path, layer in walk(model)}
    chosen = [_behind(known, layer) for layer in _chosen(model, after)]
    if not chosen:
        names = patterns.listed(f"{path} ({type(layer).__name__})" for path, layer in _below(model))
        built = "" if model.built else "; a model that is not built may lack layers: call it once, then insert"
        raise patterns.unmatched(f"after={after!r}", "nothing", repr(model.name), names, built)
    unused = _never_called(model)
    found = {known[id(layer)]: layer for layer in chosen}
    targets = {path: layer for path, layer in found.items() if id(layer) not in unused}
    for path, layer in (targets or found).items():
        _check_insertable(path, layer, unused.get(id(layer)))
    return targets, [f"{path}: left alone, {unused[id(found[path])]}" for path in found if path not in targets]


def _below(model: keras.Layer) -> Iterator[tuple[str, Any]]:
    return ((path, layer) for path, layer in walk(model) if layer is not model and not _is_input(layer))


def _chosen(model: keras.Layer, after: Where) -> Iterator[Any]:
    if isinstance(after, str):  # a pattern means layers of the model, and never the model
        found = [layer for path, layer in _below(model) if fnmatchcase(path, after)]
        return iter(found or [layer for path, layer in walk(model) if path == after and _is_input(layer)])
    kinds = after if isinstance(after, tuple) else (after,)
    if all(isinstance(kind, type) and issubclass(kind, keras.Layer) for kind in kinds):
        return (layer for _, layer in walk(model) if isinstance(layer, kinds))  # type: ignore[arg-type]
    if isinstance(after, tuple | type) or not callable(after):
        raise DropkitTypeError(
            f"after must be a pattern of layer paths, a class of layers or a function of (path, layer), got {after!r}"
        )
    return (layer for path, layer in walk(model) if after(path, layer))


def _behind(known: dict[int, str], layer: Any) -> Any:
    """The layer that makes the output of a block: blocks with a graph have no `call` of their own to add to."""
    while isinstance(layer, keras.Sequential | Functional):
        if type(layer).call not in (keras.Sequential.call, Functional.call):
            return layer
        last = _last(layer)
        if id(last) not in known:
            raise DropkitValueError(
                f"cannot insert behind {known[id(layer)]}: its output is no layer's alone; name the layers in it that "
                "a dropout is to stand behind"
            )
        layer = last
    return layer


def _last(block: Any) -> Any:
    """The layer whose output is a block's, if nothing else uses it; else None."""
    if isinstance(block, keras.Sequential):
        return block.layers[-1] if block.layers else None
    if len(block.outputs) != 1:
        return None
    last, node, _ = block.outputs[0]._keras_history
    own = [each for nodes in block._nodes_by_depth.values() for each in nodes]
    if sum(each.operation is last for each in own) != 1:
        return None  # called elsewhere in the block too
    used = any(parent is last._inbound_nodes[node] for each in own for parent in each.parent_nodes)
    return None if used else last


def _never_called(model: keras.Layer) -> dict[int, str]:
    """Layers that are no call of their own, by identity, and why."""
    found = {id(layer): "an Input is no call" for _, layer in walk(model) if _is_input(layer)}
    for path, layer in walk(model):
        cells = [layer.cell] if isinstance(layer, keras.layers.RNN) else []
        cells += layer.cells if isinstance(layer, StackedRNNCells) else []
        found |= {id(cell): f"{path} runs its cell by itself" for cell in cells}
    return found


def _is_input(layer: Any) -> bool:
    return isinstance(layer, keras.layers.InputLayer)


def _check_insertable(path: str, layer: Any, unused: str | None) -> None:
    if unused is not None:
        remedy = "the layer that takes it" if _is_input(layer) else "the recurrent layer"
        raise DropkitValueError(f"cannot insert behind {path}: {unused}; insert behind {remedy}")
    if isinstance(layer, Dropped):
        raise DropkitValueError(f"{path} has an inserted dropout already; set its rate with set_rate, or restore first")
    if isinstance(layer, (Keyed, NOISES)):
        raise DropkitValueError(f"cannot insert behind {path}: it is a dropout itself; set its rate with set_rate")


def _maker(drop: Any) -> Callable[[str, Any], Any]:
    """What makes the dropout behind a layer of a path."""
    if not isinstance(drop, keras.Layer):
        if not callable(drop):
            raise DropkitTypeError(f"drop must be a layer such as dropkit.keras.Dropout(0.1), got {drop!r}")

        def made(path: str, layer: Any) -> Any:
            new = drop()
            if not isinstance(new, keras.Layer):
                raise DropkitTypeError(f"drop() must return a Keras layer, got {new!r}")
            return new

        return made
    if isinstance(drop, Keyed) and drop.seed_generator.keyed and not drop.named:
        raise DropkitValueError("drop is bound to a model; pass a fresh one such as dropkit.keras.Dropout(0.1)")
    return lambda path, layer: _copy(drop, path, layer)


def _copy(drop: Any, path: str, layer: Any) -> Any:
    dtype = layer.compute_dtype if keras.backend.is_float_dtype(layer.compute_dtype) else "float32"
    new = type(drop).from_config({**drop.get_config(), "name": INSERTED, "dtype": dtype})
    if isinstance(new, Keyed) and new.seed is not None and not new.named:
        new.rekey(new.seed, f"{path}/{INSERTED}", 0)  # copies of one seed and one name would drop alike
    return new
