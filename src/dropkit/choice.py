"""Which implementation runs on the CPU, decided here and nowhere else.

The compiled kernels where they are built and load; NumPy or torch operations, slower and equal to the last bit, where
they are not, or where `DROPKIT_CPU=off` asks for them.
"""

import os
import platform
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

from . import counter

OFF = os.environ.get("DROPKIT_CPU") == "off"
INTERPRET = os.environ.get("TRITON_INTERPRET") == "1"


def cpu() -> ModuleType | None:
    """The module of compiled CPU kernels, or None where array operations take their place."""
    if OFF:
        return None
    from .kernels import cpu as kernels

    return kernels if kernels.available() else None


@lru_cache(maxsize=1)
def triton() -> ModuleType | None:
    """The module of Triton kernels, or None where torch operations take their place on an accelerator."""
    from .kernels import triton as kernels

    return kernels if kernels.available() else None


def xla() -> ModuleType | None:
    """The module of the CPU kernels' custom call, or None where XLA's own operations take its place."""
    if OFF:
        return None
    from .kernels.cpu import ffi

    return ffi if ffi.available() else None


def fold() -> Callable[[int, int, int], tuple[int, int]]:
    """The folding of (seed, site number, step) into key words: compiled, or in Python integers."""
    kernels = cpu()
    return counter.fold if kernels is None else kernels.extension().fold


def info() -> dict[str, Any]:
    """What dropkit runs on here, and why: versions, the CPU path, and what the loaded frameworks add.

    >>> sorted(info())
    ['cpu', 'cuda', 'dropkit', 'machine', 'numpy', 'python', 'torch']
    """
    if OFF:
        here: dict[str, Any] = {"path": None, "why": "DROPKIT_CPU=off asks for array operations"}
    else:
        from .kernels import cpu as kernels

        here = kernels.info()
    from .kernels import triton as cuda

    return {
        "dropkit": _version("dropkit"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "numpy": _version("numpy"),
        "torch": _version("torch") + ("" if "torch" in sys.modules else " (not loaded)"),
        "cpu": here,
        "cuda": cuda.info() if "torch" in sys.modules else {"why": "torch is not loaded"},
    }


def info_text() -> str:
    """`info()` for people, one fact a line."""
    facts = info()
    cpu, cuda = facts.pop("cpu"), facts.pop("cuda")
    facts["CPU kernels"] = f"{cpu['path'] or 'none'} ({cpu['why']})"
    if cpu.get("paths"):
        facts["CPU paths"] = ", ".join(cpu["paths"])
    facts["CUDA kernels"] = f"none ({cuda['why']})" if cuda["why"] else f"Triton {cuda['triton']}"
    width = max(map(len, facts))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in facts.items())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
