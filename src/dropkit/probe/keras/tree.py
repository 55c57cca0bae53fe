"""The layers of a Keras model by their paths, as `dropkit.keras` names sites, and the variables that each owns."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.models.functional import Functional

from ...keras.paths import plain_names
from ..activation import of_class, of_function

# What they hold runs in loops, a step at a time, and not as a layer of its own.
LOOPS = (keras.layers.RNN, keras.layers.TimeDistributed)


class Tree:
    """The layers of a model.

    What a loop holds, such as the cells of a recurrent layer, is no layer of its own here: its name is known, and what
    it owns belongs to the loop.

    Args:
        model: a built Keras layer; its own path is "".
    """

    def __init__(self, model: keras.Layer) -> None:
        self.layers: dict[str, Any] = {"": model}
        self.parents: dict[str, str | None] = {"": None}
        self.names = {id(model): ""}
        self.hidden: dict[str, str] = {}  # path: that of the loop it is hidden in
        self._used: Counter[str] = Counter({"": 1})
        self._walk(model, "", None)
        self._told = {id(layer) for each in self.layers.values() for layer in _told(each)}

    def _walk(self, parent: Any, name: str, hidden: str | None) -> None:
        """Depth first, so that a layer that two blocks share has its path in the first."""
        inside = name if hidden is None and isinstance(parent, LOOPS) else hidden
        children = list(parent._flatten_layers(include_self=False, recursive=False))
        prefix = f"{name}/" if name else ""
        for child, plain in zip(children, plain_names(children), strict=True):
            if id(child) not in self.names and not isinstance(child, keras.layers.InputLayer):
                self._walk(child, self._add(child, prefix + plain, name, inside), inside)

    def _add(self, layer: Any, path: str, parent: str, hidden: str | None) -> str:
        self._used[path] += 1
        if self._used[path] > 1:  # two layers of one name
            path = f"{path}#{self._used[path] - 1}"
        self.layers[path] = layer
        self.parents[path] = parent
        self.names[id(layer)] = path
        if hidden is not None:
            self.hidden[path] = hidden
        return path

    def name(self, layer: Any, caller: str) -> str:
        """The path of a layer; one that its caller keeps where Keras does not see it gets its path there now."""
        if id(layer) not in self.names:
            prefix = f"{caller}/" if caller else ""
            inside = self.hidden.get(caller)
            if inside is None and isinstance(self.layers[caller], LOOPS):
                inside = caller
            self._walk(layer, self._add(layer, prefix + plain_names([layer])[0], caller, inside), inside)
        return self.names[id(layer)]

    def shown(self, name: str) -> str:
        """The layer that a path belongs to: itself, or the loop it is hidden in."""
        return self.hidden.get(name, name)

    def told(self, name: str) -> bool:
        """Whether a graph's recorded call of a layer, or of what it stands in, says `training=True`."""
        path: str | None = name
        while path is not None:
            if id(self.layers[path]) in self._told:
                return True
            path = self.parents[path]
        return False

    @property
    def visible(self) -> list[str]:
        """The paths of all layers that are shown, a block before what stands in it."""
        return [name for name in self.layers if name not in self.hidden]

    def children(self, name: str) -> list[str]:
        """The paths of what stands directly in a block."""
        return [child for child in self.visible if self.parents[child] == name]

    def blocks(self) -> set[str]:
        """The paths of layers in which others stand."""
        return {parent for name in self.visible if (parent := self.parents[name]) is not None}

    def weights(self) -> dict[str, list[Any]]:
        """For each shown layer what it owns of what training can change, frozen or not; a shared variable once."""
        found: dict[str, list[Any]] = {name: [] for name in self.visible}
        seen: set[int] = set()
        for name, layer in self.layers.items():
            for variable in layer._trainable_variables:
                if id(variable) not in seen:
                    seen.add(id(variable))
                    found[self.shown(name)].append(variable)
        return found


def _told(model: Any) -> Iterator[Any]:
    """The layers that a functional model's own graph calls with `training=True`."""
    if isinstance(model, Functional):
        for node in (each for nodes in model._nodes_by_depth.values() for each in nodes):
            if isinstance(node.operation, keras.Layer) and node.arguments.kwargs.get("training") is True:
                yield node.operation


def activation(layer: Any) -> str | None:
    """The activation that a layer is or ends in; None where there is none or it is unknown.

    >>> activation(keras.layers.Dense(3, activation="selu")), activation(keras.layers.LeakyReLU())
    ('selu', 'leaky_relu')
    """
    if isinstance(layer, keras.layers.RNN):  # whose output is a product of two
        return None
    name = getattr(getattr(layer, "activation", None), "__name__", None)
    return of_function(str(name)) or of_class(type(layer).__name__)
