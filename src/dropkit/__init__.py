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

from . import interrupts as _interrupts

_interrupts.importing()  # of the command `dropkit` alone: what follows takes a while

from . import axes as axes  # noqa: E402
from .attention import attention_mask_block as attention_mask_block  # noqa: E402
from .choice import info as info  # noqa: E402
from .counter import Key as Key  # noqa: E402
from .drop import Drop as Drop  # noqa: E402
from .errors import DropkitError as DropkitError  # noqa: E402
from .grid import grid as grid  # noqa: E402
from .mask import keep as keep  # noqa: E402
from .mask import normal as normal  # noqa: E402
from .mask import uniform as uniform  # noqa: E402
from .mask import words as words  # noqa: E402

__version__ = "0.1.0"

_LAZY = ("jax", "keras", "lab", "numpy", "probe", "report", "torch", "uncertainty")
_PROBES = {"doctor": ".probe.findings", "explain": ".probe"}  # functions, by where they are

__all__ = [
    "Drop",
    "DropkitError",
    "Key",
    "__version__",
    "attention_mask_block",
    "axes",
    "doctor",
    "explain",
    "grid",
    "info",
    "keep",
    "normal",
    "uniform",
    "words",
]

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
    # What is for users, and the frontends, which `from dropkit import *` would load and so does not name.
    return sorted({*__all__, *_LAZY})
