"""dropkit: dropout done right. A mask is a pure function of (seed, site, step, p, index).

    >>> import dropkit
    >>> dropkit.keep((2, 4), 0.5, dropkit.Key(seed=1, site="drop")).astype(int)
    array([[0, 0, 0, 0],
           [1, 1, 1, 0]])

Importing dropkit loads NumPy and no framework; the frontends are `dropkit.numpy`, `dropkit.torch`,
`dropkit.jax` and `dropkit.keras`, the experiments `dropkit.lab`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import axes as axes
from .choice import info as info
from .counter import Key as Key
from .drop import Drop as Drop
from .errors import DropkitError as DropkitError
from .mask import keep as keep
from .mask import normal as normal
from .mask import uniform as uniform
from .mask import words as words

__version__ = "0.1.0"

_LAZY = ("jax", "keras", "lab", "numpy", "probe", "report", "torch")
_PROBES = {"doctor": ".probe.findings", "explain": ".probe"}  # functions, by where they are

if TYPE_CHECKING:
    from .probe import explain as explain
    from .probe.findings import doctor as doctor


def __getattr__(name: str) -> Any:
    # Frontends load on first use, so that `import dropkit` costs NumPy and nothing else.
    if name in _LAZY:
        return import_module(f".{name}", __name__)
    if name in _PROBES:
        return getattr(import_module(_PROBES[name], __name__), name)
    raise AttributeError(f"module 'dropkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_PROBES})
