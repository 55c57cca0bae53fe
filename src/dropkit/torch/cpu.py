"""Plain tensors on the CPU through the compiled kernels: pointers in, nothing allocated but the output."""

from typing import Any

import torch

from .. import choice
from ..errors import DropkitRuntimeError
from ..layout import Layout
from .formula import Rate

kernels = choice.cpu()
_raw: Any = None
if kernels is not None:
    _raw = kernels.extension()
    # torch's idle threads spin, so a second pool would fight them for the cores: the kernels join torch's.
    kernels.adopt_openmp()

DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
_PLAIN = (torch.Tensor, torch.nn.Parameter)
_SCALE, _RATES = 0, 8


def usable(x: torch.Tensor) -> bool:
    """Whether a kernel may take this tensor by its pointer."""
    return (
        _raw is not None
        and type(x) in _PLAIN
        and x.is_cpu
        and x.layout is torch.strided
        and not x.is_neg()
        and not torch._C._are_functorch_transforms_active()
    )


def scale_kept(x: torch.Tensor, key: tuple[int, int], rate: Rate, place: Layout, inplace: bool = False) -> torch.Tensor:
    """`x * scale` where kept, 0 elsewhere; the memory format of x is kept."""
    if inplace and torch._debug_has_internal_overlap(x) == 1:
        raise DropkitRuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
            "Please clone() the tensor before performing the operation."
        )
    y = x if inplace else torch.empty_like(x)
    k0, k1 = key
    dtype, threads = DTYPES[x.dtype], torch.get_num_threads()
    if isinstance(rate, torch.Tensor):
        p = rate.detach().to("cpu", torch.float64 if rate.dtype == torch.float64 else torch.float32).expand(x.shape)
        inputs, strides, op, t, p_type = (
            [x.data_ptr(), p.data_ptr()],
            [x.stride(), p.stride()],
            _RATES,
            0,
            DTYPES[p.dtype],
        )
    elif place.shape == x.shape and place.flat and x.is_contiguous():
        _raw.dropout(x.data_ptr(), y.data_ptr(), x.numel(), dtype, k0, k1, rate, place.base, threads)
        return y
    else:
        inputs, strides, op, t, p_type = [x.data_ptr()], [x.stride()], _SCALE, rate, 0
    rows = None if place.rows is None else place.rows.contiguous()  # alive as long as its pointer is in use
    _raw.walk(
        op, dtype, x.shape, place.strides, y.data_ptr(), y.stride(), inputs, strides, k0, k1, t, place.base,
        0 if rows is None else rows.data_ptr(), 0, p_type, threads,
    )  # fmt: skip
    return y
