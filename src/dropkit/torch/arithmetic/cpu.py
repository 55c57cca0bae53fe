"""Plain tensors on the CPU through the compiled kernels: pointers in, nothing allocated but the output."""

from typing import Any

import torch

from ... import choice
from ...axes.noise import Bernoulli
from ...drop import Lowered
from ...errors import DropkitRuntimeError
from ...place import Place
from .formula import plain

kernels = choice.cpu()
_raw: Any = None
# what dropout takes, and the kernels' number of it
DTYPES = dict.fromkeys((torch.float32, torch.float64, torch.float16, torch.bfloat16), -1)
if kernels is not None:
    _raw = kernels.extension()
    # torch's idle threads spin, so a second pool would fight them for the cores: the kernels join torch's.
    kernels.adopt_openmp()
    DTYPES = {dtype: kernels.DTYPES[str(dtype).removeprefix("torch.")] for dtype in DTYPES}
    _SCALE, _RESIDUAL, _RATES, _AFFINE = kernels.SCALE, kernels.RESIDUAL, kernels.RATES, kernels.AFFINE
    _MOST_AXES = kernels.codes.MOST_AXES
    _PORTABLE = kernels.PATHS.index("portable")
    _ACTIVATIONS = {  # forward, gradient
        "relu": (kernels.RELU, kernels.RELU_GRAD),
        "gelu": (kernels.GELU, kernels.GELU_GRAD),
        "gelu_tanh": (kernels.GELU_TANH, kernels.GELU_TANH_GRAD),
    }


def extension() -> Any:
    """The kernels on raw pointers; only where `usable` says that they are there."""
    return _raw


def on_vectors() -> bool:
    """Whether the kernels run on vectors of the machine, not as plain C++."""
    return _raw is not None and _raw.default_path() != _PORTABLE


def usable(x: torch.Tensor, lowered: Lowered | None = None) -> bool:
    """Whether a kernel may take this tensor by its pointer, and knows the law."""
    known = lowered is None or type(lowered.law) is Bernoulli or (type(lowered.t) is int and lowered.a is not None)
    return known and _raw is not None and x.is_cpu and x.layout is torch.strided and plain(x)


def scale_kept(
    x: torch.Tensor, key: tuple[int, int], lowered: Lowered, place: Place, inplace: bool = False
) -> torch.Tensor:
    """What the law makes of x; its memory format is kept."""
    if inplace and torch._debug_has_internal_overlap(x) == 1:
        raise DropkitRuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
            "Please clone() the tensor before performing the operation."
        )
    y = x if inplace else torch.empty_like(x)
    rate = lowered.t
    if type(lowered.law) is not Bernoulli:
        return run(_AFFINE, x, [], key, rate, place, y, lowered[2:5])
    if isinstance(rate, torch.Tensor):
        p = rate.detach().to("cpu", torch.float64 if rate.dtype == torch.float64 else torch.float32)
        return run(_RATES, x, [p], key, 0, place, y)
    if place.shape == x.shape and place.flat and x.is_contiguous():
        k0, k1 = key
        threads = torch.get_num_threads()
        to = y.data_ptr()  # first: it gives y, which may be x, memory of its own where that is still to be copied
        _raw.dropout(x.const_data_ptr(), to, x.numel(), DTYPES[x.dtype], k0, k1, rate, place.base, threads)  # type: ignore[attr-defined]
        return y
    return run(_SCALE, x, [], key, rate, place, y)


def residual(x: torch.Tensor, r: torch.Tensor, key: Any, t: int, place: Place) -> torch.Tensor:
    """`r + (x * scale where kept)`."""
    return run(_RESIDUAL, x, [r], key, t, place)


def activate(name: str, x: torch.Tensor, bias: torch.Tensor | None, key: Any, t: int, place: Place) -> torch.Tensor:
    """`f(x + bias) * scale` where kept."""
    return run(_ACTIVATIONS[name][0], x, [] if bias is None else [bias], key, t, place)


def activate_grad(
    name: str, grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None, key: Any, t: int, place: Place
) -> torch.Tensor:
    """`grad * scale * f'(x + bias)` where kept."""
    return run(_ACTIVATIONS[name][1], grad, [x] if bias is None else [x, bias], key, t, place)


def run(
    op: int,
    x: torch.Tensor,
    others: list[torch.Tensor],
    key: tuple[int, int],
    t: int,
    place: Place,
    y: torch.Tensor | None = None,
    constants: tuple[float, float, float] = (1.0, 0.0, 0.0),
) -> torch.Tensor:
    """One of the kernels' operations over x and tensors that broadcast to it; y is like x, or given."""
    y = torch.empty_like(x) if y is None else y
    # resolve_neg: a lazy negation, as of z.conj().imag, is not what the pointer says; x has been asked.
    inputs = [x, *(other.resolve_neg().expand(x.shape) for other in others)]
    # alive as long as its pointer is in use
    rows = None if place.rows is None else place.rows.cpu().resolve_neg().contiguous()
    arguments = (
        op, DTYPES[x.dtype], x.shape, place.strides, y.data_ptr(), y.stride(), [i.const_data_ptr() for i in inputs],  # type: ignore[attr-defined]
        [i.stride() for i in inputs], *key, t, place.base, 0 if rows is None else rows.const_data_ptr(), 0,
        DTYPES[others[0].dtype] if op == _RATES else 0, torch.get_num_threads(), -1, *constants,
    )  # fmt: skip
    if x.dim() > _MOST_AXES:
        assert kernels is not None
        kernels.axes.walk(_raw.walk, *arguments, sizes=[y.itemsize, *(i.itemsize for i in inputs)])
    else:
        _raw.walk(*arguments)
    return y
