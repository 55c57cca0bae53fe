"""What a function of one's own gives: arrays, tables, torch Datasets and DataLoaders, parts of them. Read once, "
"in order."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import DataError, DropkitError
from ....language import say
from ....visible import a_type, one_line
from ...imported import generators_kept, seed_all
from ..limits import MOST, size
from . import hub, tables
from .arrays import X, Y, named_arrays
from .raw import Part, Raw
from .tokens import Ragged

GIVES = (
    "(X, y), (X_train, y_train, X_test, y_test), a dict of these names, a table, a torch Dataset or DataLoader, or "
    "(train, test) of one of them"
)
BATCH = 256
PARTS = ("train", "test")


def taken(name: str, found: Any, target: str | None, side: int) -> Raw:
    """What a function gave, as x and y.

    Raises:
        DataError: nothing of what is known; parts that do not fit; too much.
    """
    if _is_hub(found):
        return hub.taken(name, found, target, side)
    if isinstance(found, Mapping) and set(PARTS) <= set(found):
        found = (found["train"], found["test"])
    if isinstance(found, Mapping):
        return named_arrays(name, {key: _array(name, value) for key, value in found.items()}, target)
    if _is_table(found):
        return tables.parted(name, [found.reset_index(drop=True)], target)
    if isinstance(found, tuple | list) and len(found) == 2 and all(map(_is_table, found)) and target is not None:
        return tables.parted(name, [table.reset_index(drop=True) for table in found], target)
    if target is not None:
        raise DataError(f"{name} gives its target itself, so --target {target} has no use; leave it out")
    return _parts(name, found)


def _parts(name: str, found: Any) -> Raw:
    if _is_loaded(found) or isinstance(found, np.ndarray) or not isinstance(found, tuple | list):
        return _raw(name, [found])
    if len(found) == 2 and all(_is_loaded(part) or isinstance(part, tuple) for part in found):
        return _raw(name, list(found))
    if len(found) == 2:
        return Raw(name, _pair(name, found))
    if len(found) == 4:
        first, second, third, fourth = (_array(name, part) for part in found)
        # scikit-learn's train_test_split gives x of both parts, then y of both.
        by_part = len(first) == len(second) and len(third) == len(fourth)
        if not by_part:
            second, third = third, second
        return Raw(name, Part(first, second), Part(third, fourth))
    raise DataError(
        f"{name} gives {len(found)} things ({', '.join(type(part).__name__ for part in found[:6])}); give {GIVES}"
    )


def _raw(name: str, found: Sequence[Any]) -> Raw:
    parts, notes = [], []
    for part in found:
        if _is_loaded(part):
            parts.append(_read(name, part))
            notes = [say("read once, in order: what is random in the data set, such as augmentation, was drawn once")]
        elif isinstance(part, tuple | list) and len(part) == 2:
            parts.append(_pair(name, part))
        else:
            parts.append(Part(_array(name, part)))
    return Raw(name, parts[0], parts[1] if len(parts) > 1 else None).noted(*notes)


def pair(name: str, words: str, given: Any) -> Part:
    """x and y of a part that is given as (X, y)."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise DataError(f"{name}: {words}={type(given).__name__} is no pair of arrays: give {words}=(X, y)")
    return _pair(name, given)


def _pair(name: str, found: Sequence[Any]) -> Part:
    x, y = found
    return Part(x.reset_index(drop=True) if _is_table(x) else _array(name, x), _array(name, y))


def _is_table(value: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def _is_hub(value: Any) -> bool:
    datasets = sys.modules.get("datasets")
    return datasets is not None and isinstance(value, datasets.Dataset | datasets.DatasetDict)


def _is_loaded(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.utils.data.Dataset | torch.utils.data.DataLoader)


def _array(name: str, value: Any) -> Any:
    """An array of what is one or can become one."""
    if _is_table(value) or isinstance(value, np.ndarray | Ragged):
        return value.to_numpy() if _is_table(value) else value
    if type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach"):
        found = value.detach().cpu().to_dense()
        return (found.float() if str(found.dtype) == "torch.bfloat16" else found).numpy()
    if hasattr(value, "toarray") and hasattr(value, "nnz"):  # a sparse matrix of scipy
        _check_size(name, [np.broadcast_to(np.float64(0), value.shape)], 1)
        return value.toarray()
    if hasattr(value, "dtype") and hasattr(value, "to_numpy"):  # a column
        return value.to_numpy()
    if not hasattr(value, "__array__") and not isinstance(value, list | tuple):
        raise DataError(f"{name} gives {a_type(value)} where an array belongs; give {GIVES}")
    try:
        return np.asarray(value)
    except ValueError as error:
        raise DataError(
            f"{name}: a list is no array ({one_line(error)[:200]}); pad or cut its entries to one length"
        ) from None


def _read(name: str, source: Any) -> Part:
    """All samples of a Dataset or DataLoader, in the order of their numbers.

    Raises:
        DataError: too large, of different shapes, or no samples of x and y.
    """
    try:
        with generators_kept():
            seed_all(0)
            return _collected(name, _in_order(source))
    except DropkitError:
        raise
    except Exception as error:  # somebody's code, and torch's stacking
        raise DataError(
            f"{name}: {type(source).__name__} cannot be read: {type(error).__name__}: {one_line(error)[:300]}; samples "
            "must be tensors or arrays of one shape, or numbers"
        ) from error


def _in_order(source: Any) -> Any:
    """A loader of the same samples, unshuffled."""
    from torch.utils import data

    if not isinstance(source, data.DataLoader):
        return data.DataLoader(source, batch_size=BATCH)
    dataset, sampler = source.dataset, source.sampler
    if not isinstance(dataset, data.IterableDataset):
        every = (data.SequentialSampler, data.RandomSampler, data.WeightedRandomSampler, data.DistributedSampler)
        if not isinstance(sampler, every) or _batches(source) is not None:  # a choice of samples
            chosen = _batches(source) or [sampler]
            dataset = data.Subset(dataset, sorted({int(number) for numbers in chosen for number in numbers}))
    # A loader that makes no batches gives samples one by one; here they are stacked as torch does it.
    collate = None if source.batch_size is None and _batches(source) is None else source.collate_fn
    return data.DataLoader(dataset, batch_size=source.batch_size or BATCH, collate_fn=collate)


def _batches(source: Any) -> Any:
    """A sampler of whole batches, where the loader has one of somebody's own."""
    return source.batch_sampler if source.batch_size is None else None


def _collected(name: str, loader: Any) -> Part:
    """Batches, one behind the other, in arrays that are made once where it is known how large they become."""
    counted = hasattr(loader.dataset, "__len__")
    total = len(loader.dataset) if counted else 0
    kept: list[list[NDArray]] = []
    whole: list[NDArray] = []
    done = 0
    for batch in loader:
        arrays = [np.asarray(_array(name, part)) for part in _fields(name, batch)]
        count = len(arrays[0])
        _check_size(name, arrays, max(total, done + count) / max(1, count))
        if not counted:
            kept.append(arrays)
        else:
            whole = whole or [np.empty((total, *array.shape[1:]), array.dtype) for array in arrays]
            for array, part in zip(whole, arrays, strict=True):
                array[done : done + count] = part
        done += count
    if not done:
        raise DataError(f"{name}: a data set has no samples; it needs at least one")
    if kept:
        whole = [np.concatenate(parts) for parts in zip(*kept, strict=True)]
    x, y = ([array[:done] for array in whole] + [None])[:2]
    return Part(x, y)


def _check_size(name: str, arrays: Sequence[NDArray], batches: float) -> None:
    expected = int(sum(array.nbytes for array in arrays) * batches)
    if expected > MOST:
        raise DataError(
            f"{name}: all samples together would become {size(expected)}, and at most {size(MOST)} are held in memory; "
            "make them smaller, or give some of them, as torch.utils.data.Subset does"
        )


def _fields(name: str, batch: Any) -> tuple[Any, ...]:
    """x and y of a batch; x alone where there is no more."""
    if isinstance(batch, Mapping):
        lower = {str(key).lower(): key for key in batch}
        x = next((lower[word] for word in (*X, "image", "pixel_values") if word in lower), None)
        y = next((lower[word] for word in Y if word in lower), None)
        if x is None:
            raise DataError(f"{name}: samples hold {', '.join(map(str, batch))}; name these x and y")
        return (batch[x],) if y is None else (batch[x], batch[y])
    if isinstance(batch, tuple | list):
        if len(batch) > 2:
            raise DataError(
                f"{name}: samples hold {len(batch)} things; give x and y, since a model here takes one input"
            )
        return tuple(batch)
    return (batch,)
