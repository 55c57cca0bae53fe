"""Which tensors can be scaled."""

import torch

from ...errors import DropkitTypeError
from . import cpu


class DropkitDtypeError(DropkitTypeError, NotImplementedError):
    """A tensor of a dtype or layout that dropout cannot scale; the RuntimeErrors that torch raises there, too."""


def check_dtype(x: torch.Tensor) -> None:
    """Refuse a tensor that cannot be scaled. torch's own names ask this where they scale, ours at every rate."""
    if x.dtype not in cpu.DTYPES:
        raise DropkitDtypeError(
            f"dropout in training needs float16, bfloat16, float32 or float64, but x is {x.dtype} (result type Float "
            f"can't be cast to the desired output type {_TORCHS_NAMES.get(x.dtype, x.dtype)}); convert with x.float()"
        )


_TORCHS_NAMES = {
    torch.int64: "Long", torch.int32: "Int", torch.int16: "Short", torch.int8: "Char", torch.uint8: "Byte",
    torch.bool: "Bool",
}  # fmt: skip
