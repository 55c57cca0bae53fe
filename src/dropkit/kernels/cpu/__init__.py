"""CPU kernels: the mask and what it multiplies in one pass, on the widest vectors the machine has.

The kernels know pointers and scalars, no framework and no policy: callers lower a dropout to a key, a threshold and
strides. One text is compiled for several instruction sets; the fastest that runs here is chosen when the module loads,
or the one that `DROPKIT_CPU` names (`portable`, `neon`, `avx2`, `avx512`).
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from dropkit.errors import DropkitValueError

from . import axes, codes
from .codes import operation

_cpu, _why = codes.MODULE, codes.WHY
DTYPES, PATHS = codes.DTYPES, codes.PATHS

SCALE, AFFINE, RATES, RESIDUAL = operation("SCALE"), operation("AFFINE"), operation("RATES"), operation("RESIDUAL")
RELU, GELU, GELU_TANH = operation("RELU"), operation("GELU"), operation("GELU_TANH")
RELU_GRAD, GELU_GRAD, GELU_TANH_GRAD = operation("RELU_GRAD"), operation("GELU_GRAD"), operation("GELU_TANH_GRAD")
KEEP, WORDS = operation("KEEP"), operation("WORDS")


def available() -> bool:
    """Whether the compiled kernels can be used; `info()["why"]` says why not.

    >>> isinstance(available(), bool)
    True
    """
    return _cpu is not None


def extension() -> Any:
    """The extension module: `dropout`, `walk`, `uniform` and `fold` on raw pointers (see `bind.cpp`).

    Raises:
        DropkitValueError: it is not there.
    """
    if _cpu is None:
        raise DropkitValueError(f"CPU kernels cannot be used: {_why}; reinstall dropkit with a C++17 compiler")
    return _cpu


def paths() -> list[str]:
    """Names of the paths that this machine can run, slowest first.

    >>> "portable" in paths() or not available()
    True
    """
    if _cpu is None:
        return []
    return [name for i, name in enumerate(PATHS) if _cpu.path_runnable(i)]


def path() -> str:
    """Name of the path that runs when none is asked for.

    Raises:
        DropkitValueError: the kernels are not there.
    """
    return PATHS[extension().default_path()]


def path_code(name: str | None) -> int:
    """The number by which `_cpu` knows a path; -1, its default, for None.

    Raises:
        DropkitValueError: no such path, or none that runs here.
    """
    if name is None:
        return -1
    module = extension()
    if name not in PATHS:
        raise DropkitValueError(f"unknown CPU path {name!r}; known: {', '.join(PATHS)}")
    code = PATHS.index(name)
    if not module.path_compiled(code):
        raise DropkitValueError(f"CPU path {name!r} is not part of this build; use one of: {', '.join(paths())}")
    if not module.path_runnable(code):
        raise DropkitValueError(f"CPU path {name!r} does not run on this machine; use one of: {', '.join(paths())}")
    return code


def info() -> dict[str, Any]:
    """What was compiled, what runs, and why.

    >>> sorted(info())
    ['compiled', 'forced', 'path', 'paths', 'why']
    """
    forced = os.environ.get("DROPKIT_CPU") or None
    if _cpu is None:
        return {"compiled": [], "paths": [], "path": None, "forced": forced, "why": _why}
    why = f"DROPKIT_CPU={forced}" if forced else "the widest vectors that this machine has"
    compiled = [name for i, name in enumerate(PATHS) if _cpu.path_compiled(i)]
    return {"compiled": compiled, "paths": paths(), "path": path(), "forced": forced, "why": why}


def adopt_openmp() -> str | None:
    """Run on the threads of the OpenMP runtime that this process has loaded; its library's path, or None without one.

    PyTorch loads one, and its idle threads spin: a second pool would fight them for the cores. A frontend on such a
    framework calls this once, after importing it.
    """
    return extension().adopt_openmp()


def walk(
    op: int,
    inputs: Sequence[np.ndarray],
    out: np.ndarray,
    key: tuple[int, int],
    t: int,
    noise: Sequence[int],
    base: int = 0,
    *,
    rows: np.ndarray | None = None,
    rows_axis: int = 0,
    dtype: str | None = None,
    threads: int = 1,
    path: str | None = None,
    factors: tuple[float, float, float] = (1.0, 0.0, 0.0),
) -> None:
    """One operation over NumPy arrays of one shape, written to `out`, which may be an input.

    Args:
        op: `SCALE`, `AFFINE`, ...; what it does with which inputs stands in `operations.def`.
        inputs: arrays of the shape of the data, broadcast views among them. The kernels count in elements: one whose
            strides are no multiples of its item, whose bytes are swapped, or which overlaps `out` elsewhere than at its
            own place, is copied first.
        out: the same shape and dtype; uint8 for `KEEP`. `WORDS` has a function of its own, `words`.
        key: two words, as from `dropkit.counter.fold`.
        t: kept out of 65536.
        noise: by how many indices the noise moves along each axis, 0 where it is shared.
        base: index of the first element.
        rows: int64 coordinates that replace 0, 1, 2, ... along `rows_axis`.
        dtype: a name in `DTYPES`, if it is not the first input's own (bfloat16 travels as uint16).
        threads: at most this many.
        path: a name in `PATHS`, or None for the default.
        factors: of `AFFINE`: scale, shift and what a dropped element becomes, as from `dropkit.mask.alpha_factors`.

    Raises:
        DropkitValueError: an unknown dtype, shapes or dtypes that differ, an output that the kernels cannot write to,
            or a path that does not run here.
    """
    name = dtype or (inputs[0].dtype.name if inputs else "float32")
    extension()  # without one no dtype is known
    if name not in DTYPES:
        raise DropkitValueError(f"no kernel for dtype {name!r}; known: {', '.join(DTYPES)}")
    if op == WORDS:
        raise DropkitValueError("packed words do not have the shape of the data; call words() instead of walk()")
    _check(op, inputs, out)
    inputs = [array if plain(array) and _apart(array, out) else _native(array) for array in inputs]
    launch(
        op, inputs, out, key, t, noise, base, rows=rows, rows_axis=rows_axis, dtype=name, threads=threads, path=path,
        factors=factors,
    )  # fmt: skip


def launch(
    op: int,
    inputs: Sequence[np.ndarray],
    out: np.ndarray,
    key: tuple[int, int],
    t: int,
    noise: Sequence[int],
    base: int = 0,
    *,
    rows: np.ndarray | None = None,
    rows_axis: int = 0,
    dtype: str | None = None,
    threads: int = 1,
    path: str | None = None,
    factors: tuple[float, float, float] = (1.0, 0.0, 0.0),
) -> None:
    """`walk` of arrays that are known to be alike, `plain` and apart from the output: no question is asked twice."""
    name = dtype or (inputs[0].dtype.name if inputs else "float32")
    rates = DTYPES[inputs[1].dtype.name] if op == RATES else 0
    arguments = (
        op, DTYPES[name], out.shape, noise, out.ctypes.data, _steps(out), [a.ctypes.data for a in inputs],
        [_steps(a) for a in inputs], key[0], key[1], t, base, _rows(rows, out.shape, rows_axis), rows_axis,
        rates, threads, path_code(path), *factors,
    )  # fmt: skip
    if out.ndim > codes.MOST_AXES:
        axes.walk(extension().walk, *arguments, sizes=[out.itemsize, *(array.itemsize for array in inputs)])
    else:
        extension().walk(*arguments)


def words(
    shape: Sequence[int],
    key: tuple[int, int],
    t: int,
    noise: Sequence[int],
    base: int = 0,
    *,
    rows: np.ndarray | None = None,
    rows_axis: int = 0,
    threads: int = 1,
    path: str | None = None,
) -> np.ndarray:
    """Packed keep bits of an array of `shape`: element i in C order is bit i % 32 of word i // 32. Arguments as `walk`.

    >>> words((40,), (0, 0), 65536, (1,)) if available() else np.array([4294967295, 255], np.uint32)
    array([4294967295,        255], dtype=uint32)
    """
    if len(shape) > codes.MOST_AXES:
        bits = np.empty(shape, np.uint8)
        walk(KEEP, [], bits, key, t, noise, base, rows=rows, rows_axis=rows_axis, threads=threads, path=path)
        packed = np.packbits(bits.reshape(-1), bitorder="little")
        return np.pad(packed, (0, -len(packed) % 4)).view("<u4").astype(np.uint32)
    out = np.zeros((int(np.prod(shape, dtype=np.int64)) + 31) // 32, np.uint32)
    extension().walk(
        WORDS, 0, shape, noise, out.ctypes.data, [0] * len(shape), [], [], key[0], key[1], t, base,
        _rows(rows, shape, rows_axis), rows_axis, 0, threads, path_code(path),
    )  # fmt: skip
    return out


def _check(op: int, inputs: Sequence[np.ndarray], out: np.ndarray) -> None:
    """Refuse what would read or write past an array."""
    for k, array in enumerate(inputs):
        wanted = array.dtype if op == RATES and k == 1 else out.dtype
        if array.shape != out.shape or array.dtype != wanted:
            raise DropkitValueError(
                f"input {k} has shape {array.shape} and dtype {array.dtype}, the output {out.shape} and {out.dtype}; "
                "broadcast and cast them alike"
            )
    if op == KEEP and out.dtype.itemsize != 1:
        raise DropkitValueError(f"keep bits take a byte each, got an output of dtype {out.dtype}; pass uint8 or bool")
    if not plain(out) or not out.flags.writeable or _repeats(out):
        raise DropkitValueError(
            f"the output of dtype {out.dtype} and strides {out.strides} cannot be written to element by element: pass "
            "a writable array in native byte order, whose strides are multiples of its item and not 0"
        )


def plain(array: np.ndarray) -> bool:
    """Whether the kernels may take an array by its pointer: they count in whole elements of the machine's own order."""
    size, flags = array.itemsize, array.flags
    if flags.c_contiguous or not any(stride % size for stride in array.strides):
        return flags.aligned and array.dtype.isnative
    return False


def _native(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("="), order="C", copy=True)


def _apart(array: np.ndarray, out: np.ndarray) -> bool:
    """Whether writing an element leaves those of the input that are still to be read alone."""
    same = array.ctypes.data == out.ctypes.data and array.strides == out.strides
    return same or not np.may_share_memory(array, out)


def _repeats(out: np.ndarray) -> bool:
    return not out.flags.c_contiguous and any(
        stride == 0 and size > 1 for size, stride in zip(out.shape, out.strides, strict=True)
    )


def _rows(rows: np.ndarray | None, shape: Sequence[int], axis: int) -> int:
    """The address of gathered coordinates."""
    if rows is None:
        return 0
    if rows.dtype != np.int64 or rows.shape != (shape[axis],) or not rows.flags.c_contiguous:
        raise DropkitValueError(
            f"rows must be {shape[axis]} contiguous int64 coordinates, got shape {rows.shape} and dtype {rows.dtype}"
        )
    return int(rows.ctypes.data)


def _steps(array: np.ndarray) -> list[int]:
    return [stride // array.itemsize for stride in array.strides]


def _force(name: str | None) -> None:
    """Make the path that `DROPKIT_CPU` names the default."""
    if not name or name == "off":  # off: no frontend calls these kernels, which dropkit.choice sees to
        return
    try:
        extension().set_default_path(path_code(name))
    except DropkitValueError as error:
        raise DropkitValueError(f"DROPKIT_CPU={name} cannot be met: {error}; unset it, name another, or off") from None


_force(os.environ.get("DROPKIT_CPU"))
