"""Inputs for a Keras model: those given, or random ones of its own shapes."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from ...errors import DropkitValueError

BATCH = 4
STEPS = 16  # of sequences of any length


def inputs_of(model: keras.Layer, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The positional arguments of a call of the model, as tensors.

    Args:
        model: a built layer.
        given: what the caller gave; used as it is.

    Raises:
        DropkitValueError: nothing was given, and the model does not know its inputs' shapes.
    """
    if given:
        if len(given) > 1 and _graph(model) is not None:  # which takes one structure
            given = (keras.tree.pack_sequence_as(_graph(model)._inputs_struct, list(given)),)
        return tuple(keras.tree.map_structure(_tensor, each) for each in given)
    rng = np.random.Generator(np.random.Philox(0))
    graph = _graph(model)
    if graph is not None:
        made = [_made(rng, x.shape, x.dtype, _vocabulary(model, n)) for n, x in enumerate(graph.inputs)]
        return (keras.tree.map_structure(_tensor, keras.tree.pack_sequence_as(graph._inputs_struct, made)),)
    shape = _built_for(model)
    if any(isinstance(layer, keras.layers.Embedding) for layer in model._flatten_layers()):
        raise _unknown(model, "looks indices up in an Embedding, and says nothing of its input's type")
    return (_tensor(_made(rng, shape, "float32", None)),)


def flat(arguments: tuple[Any, ...]) -> list[Any]:
    """The tensors among the arguments."""
    return [value for value in keras.tree.flatten(arguments) if keras.ops.is_tensor(value)]


def _tensor(value: Any) -> Any:
    return None if value is None else keras.ops.convert_to_tensor(value)


def _graph(model: Any) -> Any:
    """The functional model that a model is, or that a Sequential has inside; None where there is none."""
    if isinstance(model, keras.Sequential):
        return model._functional
    return model if hasattr(model, "_inputs_struct") and hasattr(model, "inputs") else None


def _built_for(model: Any) -> tuple[Any, ...]:
    """The one input shape that a layer was built for."""
    shape = (model.get_build_config() or {}).get("input_shape")
    if not isinstance(shape, tuple | list) or not all(n is None or isinstance(n, int) for n in shape):
        raise _unknown(model, "does not say what shapes its inputs have")
    return (None, *shape[1:])  # the batch may be of any size


def _made(rng: np.random.Generator, shape: Any, dtype: str, vocabulary: int | None) -> np.ndarray:
    sizes = list(shape)
    if None in sizes[1:] and len(sizes) in (2, 3):  # a sequence of any length
        sizes[1:] = [STEPS if n is None else n for n in sizes[1:]]
    if None in sizes[1:] or dtype == "string":
        raise DropkitValueError(
            f"the model takes inputs of shape {tuple(shape)} and type {dtype}, of which none can be made up: give one, "
            "such as explain(model, x)"
        )
    sizes[:1] = [BATCH if sizes[0] is None else sizes[0]] if sizes else []
    if dtype == "bool":
        return rng.integers(0, 2, sizes).astype(bool)
    if vocabulary is not None or "int" in dtype:
        return rng.integers(0, vocabulary or 2, sizes).astype(dtype)
    return rng.normal(size=sizes).astype(dtype if dtype != "bfloat16" else "float32")


def _vocabulary(model: Any, number: int) -> int | None:
    """How many indices an input of a model may have; None where no Embedding takes it."""
    graph = _graph(model)
    if graph is None:
        return model.input_dim if isinstance(model, keras.layers.Embedding) else None
    sizes = [size for node, place in _takers(graph, graph.inputs[number]) if (size := _vocabulary(node, place))]
    return min(sizes, default=None)


def _takers(graph: Any, tensor: Any) -> Iterator[tuple[Any, int]]:
    """The layers of a graph that take a tensor, and as which of their inputs."""
    for operation in graph.operations:
        for node in operation._inbound_nodes:
            for place, taken in enumerate(node.input_tensors):
                if taken is tensor and not node.is_input:
                    yield operation, place


def _unknown(model: Any, what: str) -> DropkitValueError:
    return DropkitValueError(
        f"the {type(model).__name__} {model.name!r} {what}: give an input, such as explain(model, x)"
    )
