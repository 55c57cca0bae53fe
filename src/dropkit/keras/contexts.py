"""Dropout off for a while, or on in prediction, whatever form it takes; everything else keeps its mode."""

import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import keras
from keras.src import backend

from ..errors import DropkitTypeError, DropkitValueError
from . import blocks
from .finding import Place, listed, matched, places
from .paths import walk

_lock = threading.Lock()
_wrapped: Counter[int] = Counter()
_silent: ContextVar[bool] = ContextVar("dropkit_keras_silent", default=False)  # functions drop nothing either


@contextmanager
def disabled(model: keras.Layer, sites: str | Sequence[str] | None = None) -> Iterator[None]:
    """No dropout in the model, in training too: as in evaluation, but for dropout alone.

    Off are dropkit's layers (`when="always"` too), Keras' own dropout and noise layers, the dropout of attention and of
    recurrent layers, and calls of `keras.random.dropout` in layers of others. Rates and configs are not touched,
    BatchNormalization trains on, and a bound model's step stands still. Functions that were compiled before follow, as
    in `at`. Blocks nest, and `disabled` wins over `enabled`.

    Args:
        model: other models that run inside the block keep their dropout, but for layers that they share with it.
        sites: patterns as in `fnmatch` of layer paths ("encoder/*"), as `bind` names them; None is all.

    Raises:
        DropkitValueError: there is nothing to turn off; a pattern matches nothing.
        DropkitTypeError: not a Keras layer.

    >>> import dropkit, numpy as np
    >>> model = keras.Sequential([keras.Input((8,)), dropkit.keras.Dropout(0.5)])
    >>> with disabled(model):
    ...     y = model(np.ones((2, 8), "float32"), training=True)
    >>> float(keras.ops.min(y))
    1.0
    """
    chosen = _chosen(model, sites, "disabled")
    with _switching(chosen, off=True):
        yield


@contextmanager
def enabled(model: keras.Layer, sites: str | Sequence[str] | None = None) -> Iterator[None]:
    """Dropout on in the model, in `predict` too: Monte Carlo dropout that leaves BatchNormalization in evaluation.

    On are the same forms as `disabled` turns off, at the rates that they have, but for layers with parts or weights of
    their own that call a function for dropout: these are named in a warning. What is off by `when="never"` or at rate 0
    stays off. A bound model's step counts, so that each batch draws anew; inside `dropkit.keras.at(step=n)` it repeats.

    Args:
        model, sites: as in `disabled`.

    Raises:
        DropkitValueError: nothing can be turned on; a pattern matches nothing.
        DropkitTypeError: not a Keras layer.

    Source: Gal and Ghahramani 2016 (arXiv:1506.02142).

    >>> import dropkit, numpy as np
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)])
    >>> with enabled(model):
    ...     first, second = (model.predict(np.ones((4, 8), "float32"), verbose=0) for _ in range(2))
    >>> bool((first == second).all())
    False
    """
    chosen = _chosen(model, sites, "enabled")
    out_of_reach = [place for place in chosen if not place.alone]
    within = [place for place in chosen if place.alone and place.on and getattr(place.layer, "when", "") != "never"]
    if not within:
        raise DropkitValueError(f"no dropout of {model.name!r} can be turned on; it has {listed(chosen)}")
    if out_of_reach:
        warnings.warn(
            f"enabled: {listed(out_of_reach)} draw by a function beside other things that `training` decides, and stay "
            "as they are; give them a dropkit.keras.Dropout as a layer of their own",
            stacklevel=3,
        )
    with _switching(within, off=False):
        yield


def _chosen(model: Any, sites: Any, verb: str) -> list[Place]:
    if not isinstance(model, keras.Layer):
        raise DropkitTypeError(f"{verb} needs a Keras model or layer, got {type(model).__name__}")
    found = places(model)
    if not found:
        raise DropkitValueError(
            f"no dropout to be found in {model.name!r}: it has no dropout or noise layer, no attention or recurrent "
            "layer with a rate, and no layer that calls keras.random.dropout"
        )
    chosen = matched(model, found, sites)
    recurrent = {id(place.layer) for place in chosen if not place.keyed}
    for path, layer in walk(model):  # fused loops never ask their cells
        cells = list(getattr(layer.cell, "cells", [layer.cell])) if isinstance(layer, keras.layers.RNN) else []
        known = all(type(cell).__module__.startswith("keras.") for cell in cells)
        if known and any(id(cell) in recurrent for cell in cells):
            chosen.append(Place(path, layer, "dropout", True))
    return chosen


@contextmanager
def _switching(chosen: Sequence[Place], *, off: bool) -> Iterator[None]:
    numbers = frozenset(blocks.number(place.layer) for place in chosen)
    before = blocks.said()
    more = {"off": before.off | numbers} if off else {"on": before.on | numbers}
    with ExitStack() as stack:
        for place in chosen:
            if not place.keyed:
                stack.enter_context(_listening(place.layer, place.alone))
        stack.enter_context(_functions())
        stack.enter_context(blocks.saying(**more))
        yield


@contextmanager
def _listening(layer: Any, alone: bool) -> Iterator[None]:
    """A layer whose call asks the blocks around it, while any block wants to know."""
    with _lock:
        if not _wrapped[id(layer)]:
            layer.__dict__["call"] = _asking(layer, layer.call, alone)
        _wrapped[id(layer)] += 1
    try:
        yield
    finally:
        with _lock:
            _wrapped[id(layer)] -= 1
            if not _wrapped[id(layer)]:
                del layer.__dict__["call"], _wrapped[id(layer)]


def _asking(layer: Any, call: Callable[..., Any], alone: bool) -> Callable[..., Any]:
    told = layer._call_has_training_arg

    def asking(*args: Any, **kwargs: Any) -> Any:
        on = blocks.switched(layer)
        if on is None:
            return call(*args, **kwargs)
        if alone and told:
            kwargs["training"] = on
        token = _silent.set(not on)
        try:
            return call(*args, **kwargs)
        finally:
            _silent.reset(token)

    return asking


@contextmanager
def _functions() -> Iterator[None]:
    """`keras.random.dropout` asks too, for layers that call it; one patch for all blocks."""
    with _lock:
        _Patched.blocks += 1
        if _Patched.blocks == 1:
            _Patched.before = backend.random.dropout
            backend.random.dropout = _dropout
    try:
        yield
    finally:
        with _lock:
            _Patched.blocks -= 1
            if not _Patched.blocks:
                backend.random.dropout = _Patched.before


class _Patched:
    blocks = 0
    before: Any = None


def _dropout(inputs: Any, rate: Any, noise_shape: Any = None, seed: Any = None) -> Any:
    if _silent.get():
        return inputs
    return _Patched.before(inputs, rate, noise_shape=noise_shape, seed=seed)
