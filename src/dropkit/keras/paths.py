"""The names of layers: their paths in a model, which do not depend on what was made before."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras


def walk(model: keras.Layer) -> Iterator[tuple[str, Any]]:
    """Every layer of a model with its path in it, a block before what stands in it; the model itself by its name."""
    yield plain_names([model])[0], model
    yield from _below(model, "", {id(model)})


def _below(parent: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    children = list(parent._flatten_layers(include_self=False, recursive=False))
    for child, name in zip(children, plain_names(children), strict=True):
        if id(child) in seen:
            continue  # a layer that two parents share has the path of the first
        seen.add(id(child))
        yield prefix + name, child
        yield from _below(child, f"{prefix}{name}/", seen)


def plain_names(layers: list[Any]) -> list[str]:
    """The layers' names; those that Keras made up count from the first of their class among these."""
    counts: Counter[str] = Counter()
    names = []
    for layer in layers:
        stem = _snake_case(type(layer).__name__)
        made_up = re.fullmatch(rf"((?:forward_|backward_)?{re.escape(stem)})(_\d+)?", layer.name)  # of Bidirectional
        if made_up:
            stem = made_up[1]
            names.append(f"{stem}_{counts[stem]}" if counts[stem] else stem)
            counts[stem] += 1
        else:
            names.append(layer.name)
    return names


def _snake_case(name: str) -> str:
    """A class name as Keras makes layer names of it."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
