"""CUDA tensors through the Triton kernels. Under `TRITON_INTERPRET=1 DROPKIT_CPU=off` CPU tensors take this way too."""

from typing import Any

import torch

from ... import choice
from ...drop import Lowered
from ...place import Place
from . import laws
from .formula import plain


def usable(x: torch.Tensor, lowered: Lowered | None = None) -> bool:
    """Whether a Triton kernel may take this tensor by its pointer, and knows the law."""
    known = lowered is None or lowered.inverted or _affine(lowered)
    return known and (x.is_cuda or (choice.OFF and choice.INTERPRET)) and plain(x) and choice.triton() is not None


def _affine(lowered: Lowered) -> bool:
    return lowered.a is not None and (type(lowered.t) is int or lowered.t.numel() == 1)


def capturing() -> bool:
    """Whether a CUDA graph is being captured: what is read on the host now would be replayed for ever."""
    return _CAPTURES and torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


_CAPTURES = torch.backends.cuda.is_built()


def stored_key(seed: torch.Tensor, site: int, step: torch.Tensor) -> Any:
    """A key that a kernel reads from the device's memory and folds by itself."""
    from ...kernels.triton.walk import StoredKey

    return StoredKey(seed, site, step)


def folded_key(state: torch.Tensor, site: int) -> torch.Tensor:
    """A folded key as two words in the device's memory, of seed and step that lie there."""
    from ...kernels.triton.fold import fold

    return fold(state, site)


def scale_kept(x: torch.Tensor, key: Any, lowered: Lowered, place: Place, inplace: bool = False) -> torch.Tensor:
    """What the law makes of x; its memory format is kept."""
    rate = lowered.t
    if not lowered.inverted:
        from ...kernels.triton.affine import affine

        constants: Any = laws.on_device(lowered, x.device) if isinstance(rate, torch.Tensor) else lowered[2:5]
        return affine(x, key, rate, constants, *_where(x, place), inplace=inplace)
    from ...kernels.triton.dropout import dropout

    return dropout(x, key, rate, *_where(x, place), inplace=inplace)


def residual(x: torch.Tensor, r: torch.Tensor, key: Any, rate: Any, place: Place) -> torch.Tensor:
    """`r + (x * scale where kept)`."""
    from ...kernels.triton.residual import residual

    return residual(x, r, key, rate, *_where(x, place))


def activate(name: str, x: torch.Tensor, bias: torch.Tensor | None, key: Any, rate: Any, place: Place) -> torch.Tensor:
    """`f(x + bias) * scale` where kept."""
    from ...kernels.triton.bias_activation import bias_activation

    return bias_activation(x, bias, key, rate, name, *_where(x, place))


def activate_grad(
    name: str, grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None, key: Any, rate: Any, place: Place
) -> torch.Tensor:
    """`grad * scale * f'(x + bias)` where kept."""
    from ...kernels.triton.bias_activation import bias_activation_backward

    return bias_activation_backward(grad, x, bias, key, rate, name, *_where(x, place))[0]


def norm(
    x: torch.Tensor,
    r: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    key: Any,
    rate: Any,
    eps: float,
    rms: bool,
    place: Place,
) -> Any:
    """`norm(r + (x * scale where kept))`: y, the sum, its mean and the inverse of its deviation, a number a row."""
    from ...kernels.triton.norm import norm

    return norm(x, r, weight, bias, key, rate, eps, rms, *_where(x, place))


def norm_grad(
    dy: torch.Tensor,
    dz: torch.Tensor,
    z: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor | None,
    rstd: torch.Tensor,
    key: Any,
    rate: Any,
    place: Place,
) -> Any:
    """Gradients of x, r, weight and bias."""
    from ...kernels.triton.norm import norm_backward

    return norm_backward(dy, dz, z, weight, bias, mean, rstd, key, rate, *_where(z, place))


def _where(x: torch.Tensor, place: Place) -> tuple[tuple[int, ...], int, torch.Tensor | None]:
    return place.strides, place.base, None if place.rows is None else place.rows.to(x.device)
