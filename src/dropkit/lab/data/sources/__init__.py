"""One's own data, from files, data sets on disk, scikit-learn, or code: `load` takes what `--data` takes.

`load` stands above `data.sets`, which makes a Data of arrays by parts of this package, so it is looked up on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .door import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        return import_module(".door", __name__).load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
