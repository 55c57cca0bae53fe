"""What a model is run with to be explained: random numbers of given shapes, or samples of a file."""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..counter import Key
from ..errors import DataError, DropkitValueError
from ..frontends import is_torch
from ..lab.data.limits import check_arrays
from ..lab.recipes.recipe import at_least_one
from ..mask import normal, uniform
from ..visible import one_line

BATCH = 8
TYPES = ("float16", "float32", "float64", "int32", "int64", "bool")
FILES = (".npy", ".npz", ".safetensors")

Arrays = Sequence[NDArray] | Mapping[str, NDArray]
Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""What a model's forward takes: by place and by name."""


@dataclass(frozen=True, slots=True)
class Input:
    """The shape of one input of one sample, its type, and below what number whole numbers lie.

    >>> Input.parse("3,150,150")
    Input(shape=(3, 150, 150), dtype='float32', below=None)
    >>> Input.parse("128:int64:30522")
    Input(shape=(128,), dtype='int64', below=30522)
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    below: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Input":
        """Read "3,150,150", "128:int64" or "128:int64:30522"; without any length a number for each sample.

        Raises:
            DropkitValueError: it cannot be read so.
        """
        lengths, _, rest = text.partition(":")
        dtype, _, below = rest.partition(":")
        parts = re.split("[,x]", lengths.replace(" ", "")) if lengths else []
        good = all(part.isdecimal() and int(part) > 0 for part in parts) and dtype in ("", *TYPES)
        good = good and (not below or (below.isdecimal() and int(below) > 0 and dtype.startswith("int")))
        if not good:
            raise DropkitValueError(
                f"--input {text!r} is no shape: write one sample's lengths, without the batch axis, such as 3,150,150, "
                f"and a type where it is not float32, such as 128:int64 ({', '.join(TYPES)})"
            )
        return cls(tuple(map(int, parts)), dtype or "float32", int(below) if below else None)

    def random(self, batch: int, seed: int, place: int, vocabulary: int | None) -> NDArray:
        """A batch: standard normal numbers, or whole ones below `below`, else below the vocabulary.

        Raises:
            DropkitValueError: whole numbers, and neither is known.
        """
        shape, key = (batch, *self.shape), Key(seed, f"explain/input{place}", 0)
        if self.dtype == "bool":
            return uniform(shape, key) < 0.5
        if not self.dtype.startswith("int"):
            return normal(shape, key).astype(self.dtype)
        below = self.below or vocabulary
        if below is None:
            raise DropkitValueError(
                f"--input {','.join(map(str, self.shape))}:{self.dtype} asks for whole numbers, and the model has no "
                f"embedding that tells below what: write it behind, such as "
                f"{','.join(map(str, self.shape))}:{self.dtype}:1000"
            )
        return np.floor(uniform(shape, key).astype(np.float64) * below).astype(self.dtype)


def load(path: Path, batch: int | None) -> Arrays:
    """The first samples of each array in a file; by name where the file has names.

    Raises:
        DataError: it is missing, of another kind, damaged, or holds Python objects, which are not loaded.
    """
    if path.suffix not in FILES:
        raise DataError(f"cannot read --data {path}: samples are taken from {', '.join(FILES)} files")
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            found: Any = load_file(path)
        else:
            with path.open("rb") as file:
                if path.suffix == ".npz":
                    check_arrays(file)
                read = np.load(file, allow_pickle=False)
                found = dict(read) if path.suffix == ".npz" else [read]
    except Exception as error:  # these readers raise whatever they meet, struct.error and zipfile's own among it
        raise DataError(f"cannot read --data {path}: {one_line(error)[:300]}") from error
    arrays = list(found.values()) if isinstance(found, dict) else found
    if not arrays or any(array.ndim == 0 or len(array) == 0 for array in arrays):
        raise DataError(f"--data {path} holds no samples: every array in it needs a first axis, of one or more samples")
    return {name: _first(array, batch) for name, array in found.items()} if isinstance(found, dict) else [
        _first(array, batch) for array in found
    ]  # fmt: skip


def _first(array: NDArray, batch: int | None) -> NDArray:
    return array[: batch or BATCH]


def random(model: Any, texts: Sequence[str], batch: int | None, seed: int) -> list[NDArray]:
    """Random inputs of given shapes."""
    size, vocabulary = at_least_one("batch", BATCH if batch is None else batch), _vocabulary(model)
    return [Input.parse(text).random(size, seed, place, vocabulary) for place, text in enumerate(texts)]


def own(model: Any, batch: int | None, seed: int) -> list[NDArray] | None:
    """Random inputs of a Keras model's own shapes; None where it does not tell them all."""
    tensors = getattr(model, "inputs", None) or []
    sizes = [(tuple(x.shape[1:]), str(x.dtype)) for x in tensors]
    if not sizes or any(None in shape or dtype not in TYPES for shape, dtype in sizes):
        return None
    vocabulary, size = _vocabulary(model), at_least_one("batch", BATCH if batch is None else batch)
    if vocabulary is None and any(dtype.startswith("int") for _, dtype in sizes):
        return None
    # Keras takes indices as floats too, and says so only by the layer behind.
    if vocabulary is not None and len(sizes) == 1 and sizes[0][1].startswith("float"):
        return None
    return [Input(shape, dtype).random(size, seed, place, vocabulary) for place, (shape, dtype) in enumerate(sizes)]


def _vocabulary(model: Any) -> int | None:
    """Entries of the model's first embedding."""
    if is_torch(model):
        import torch

        return next((part.num_embeddings for part in model.modules() if isinstance(part, torch.nn.Embedding)), None)
    import keras

    layers = model._flatten_layers()
    return next((layer.input_dim for layer in layers if isinstance(layer, keras.layers.Embedding)), None)


def arguments(model: Any, arrays: Arrays) -> Inputs:
    """Arrays as the model's forward takes them: tensors of its device and type, by name where all names are its own."""
    if not is_torch(model):
        names = [x.name for x in getattr(model, "inputs", None) or []]
        if isinstance(arrays, Mapping):
            arrays = [arrays[name] for name in names] if set(arrays) == set(names) else list(arrays.values())
        return tuple(arrays), {}
    import torch

    floating = next((x for x in model.parameters() if x.is_floating_point()), None)

    def tensor(array: NDArray) -> torch.Tensor:
        x = torch.from_numpy(np.ascontiguousarray(array))
        if floating is None:
            return x
        return x.to(floating.device, floating.dtype if x.is_floating_point() else None)

    if isinstance(arrays, Mapping):
        tensors = {name: tensor(array) for name, array in arrays.items()}
        if set(tensors) <= set(inspect.signature(model.forward).parameters):
            return (), tensors
        return tuple(tensors.values()), {}
    return tuple(tensor(array) for array in arrays), {}
