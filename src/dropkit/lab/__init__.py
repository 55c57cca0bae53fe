"""The lab: train the same model under several dropout strategies, over paired seeds, and tell which is better.

Names load on first use: `dropkit.lab.order` needs NumPy alone, training needs the extra, `pip install "dropkit[lab]"`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .comparing import compare as compare
    from .data.sets import Data as Data
    from .data.sets import load_data as load_data
    from .doors import train as train
    from .doors import tune as tune
    from .experiment import Comparison as Comparison
    from .recipes.recipe import Recipe as Recipe
    from .recipes.recipe import Settings as Settings
    from .runs.run import Run as Run
    from .searching import Tuning as Tuning
    from .statistics.interval import Interval as Interval

_HOME = {
    "Comparison": "experiment",
    "Data": "data.sets",
    "Interval": "statistics.interval",
    "Recipe": "recipes.recipe",
    "Run": "runs.run",
    "Settings": "recipes.recipe",
    "Tuning": "searching",
    "compare": "comparing",
    "load_data": "data.sets",
    "train": "doors",
    "tune": "doors",
}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module 'dropkit.lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
