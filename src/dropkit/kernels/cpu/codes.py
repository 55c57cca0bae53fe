"""The extension module, where it is there, and the numbers it was compiled with: those of `operations.def`.

Python writes none of them down, so that it cannot mean another operation than the kernels do. Where nothing is compiled
the lists are empty.
"""

import importlib
from typing import Any


def load() -> tuple[Any, str]:
    """The extension module, or None and why it cannot be used."""
    try:
        found = importlib.import_module("._cpu", __package__)
    except ImportError as error:
        return None, f"the extension module is not compiled or does not load: {error}"
    if not hasattr(found, "attend_heads"):  # the newest of what it has
        return None, "the extension module was compiled from an older source"
    return found, ""


MODULE, WHY = load()
OPERATIONS: dict[str, int] = {} if MODULE is None else MODULE.operations
DTYPES: dict[str, int] = {} if MODULE is None else MODULE.dtypes
LAWS: dict[str, int] = {} if MODULE is None else MODULE.laws
PATHS: tuple[str, ...] = () if MODULE is None else tuple(MODULE.path_names())
MOST_AXES: int = 0 if MODULE is None else MODULE.most_axes


def operation(name: str) -> int:
    """The kernels' number of an operation; -1 where nothing is compiled.

    Raises:
        KeyError: the kernels have none of this name.
    """
    return OPERATIONS[name] if OPERATIONS else -1
