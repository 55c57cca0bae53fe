"""CUDA kernels in Triton: the mask and what it multiplies in one pass, one file for each operation.

The launchers (`dropout`, `affine`, `residual`, `bias_activation`, `norm`, each in the module of its name) know tensors
and scalars, no policy and no autograd: callers lower a dropout to a key, a threshold and noise strides. Triton and
torch are imported with those modules, not with this one. Under `TRITON_INTERPRET=1` the kernels run on CPU tensors.
"""

import importlib.util
import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def interpreted() -> bool:
    """Whether Triton runs kernels in Python, on tensors of any device; settled when Triton is first imported."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def available() -> bool:
    """Whether the kernels can be used: Triton and torch are installed, and there is a CUDA device or the interpreter.

    >>> isinstance(available(), bool)
    True
    """
    return info()["why"] is None


def info() -> dict[str, Any]:
    """Triton's version, whether it interprets, and why the kernels cannot be used (None where they can).

    >>> sorted(info())
    ['interpreted', 'triton', 'why']
    """
    return {"triton": _version(), "interpreted": interpreted(), "why": _why()}


def _version() -> str:
    try:
        return version("triton")
    except PackageNotFoundError:
        return "not installed"


def _why() -> str | None:
    for name in ("torch", "triton"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed"
    import torch

    if not interpreted() and not torch.cuda.is_available():
        return "torch sees no CUDA device, and TRITON_INTERPRET=1 is not set"
    return None
